package admit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/admission"
	"github.com/palisade-sec/palisade/internal/admission/kept"
	"github.com/palisade-sec/palisade/internal/runcshim/standing"
)

// newAdmission returns one that works in a directory, and what is told.
func newAdmission(t *testing.T, directory string) (*Admission, *world) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root's files count")
	}
	w := &world{}
	cfg := Config{
		Policy: filepath.Join(directory, "policy"), Kept: filepath.Join(directory, "kept"), Standing: filepath.Join(directory, "standing"),
		Every: 10 * time.Millisecond,
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), cfg, Parts{
		Finder: w, Audit: w, Outbox: w, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, w
}

func put(t *testing.T, directory, text string) {
	t.Helper()
	path := filepath.Join(directory, "policy")
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, kept.PolicyName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func named(rule string, serial int) string {
	return fmt.Sprintf("version: 1\nserial: %d\nrules:\n  - {name: %s, compliance: {block: high}}\n", serial, rule)
}

func TestThePolicyInForceFollowsItsFile(t *testing.T) {
	directory := t.TempDir()
	a, _ := newAdmission(t, directory)
	rule := func() string {
		t.Helper()
		a.policies.look(t.Context())
		if p := a.policies.current(); p != nil {
			return p.Rules[0].Name
		}
		return ""
	}
	warning := func() string {
		t.Helper()
		answer := &processv1.GetStatusResponse{Healthy: true}
		a.Describe(answer)
		if answer.GetHealthy() != (len(answer.GetWarnings()) == 0) {
			t.Errorf("status = %v", answer)
		}
		return strings.Join(answer.GetWarnings(), "\n")
	}
	for _, step := range []struct{ what, text, rule, warning string }{
		{what: "no policy"},
		{what: "a policy", text: named("first", 2), rule: "first"},
		{what: "a mistake", text: "version: 1\nrules:\n  - {name: x, compliense: {}}\n", rule: "first", warning: "policy.yaml:3"},
		{what: "a roll-back", text: named("older", 1), rule: "first", warning: kept.ErrRollback.Error()},
		{what: "a newer one", text: named("second", 3), rule: "second"},
	} {
		if step.text != "" {
			put(t, directory, step.text)
		}
		if got := rule(); got != step.rule {
			t.Errorf("%s: rule in force = %q, want %q", step.what, got, step.rule)
		}
		if got := warning(); !strings.Contains(got, step.warning) || (step.warning == "") != (got == "") {
			t.Errorf("%s: warning = %q, want %q", step.what, got, step.warning)
		}
	}
	// One that starts with a faulty file has the policy that was in force last.
	put(t, directory, "nonsense")
	again, _ := newAdmission(t, directory)
	if p := again.policies.current(); p == nil || p.Rules[0].Name != "second" {
		t.Errorf("policy in force after a restart = %+v, want second", p)
	}
	if err := os.Remove(filepath.Join(directory, "policy", kept.PolicyName)); err != nil {
		t.Fatal(err)
	}
	if got := rule(); got != "" {
		t.Errorf("rule in force without a policy = %q", got)
	}
	if third, _ := newAdmission(t, directory); third.policies.current() != nil {
		t.Error("a policy that was taken away is in force after a restart")
	}
}

// Where policies have to be signed nobody takes one away by deleting it.
func TestAnAbsenceIsNotSigned(t *testing.T) {
	directory := t.TempDir()
	put(t, directory, named("first", 1))
	a, _ := newAdmission(t, directory)
	if err := os.WriteFile(filepath.Join(directory, "policy", kept.KeyName), []byte("any"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(directory, "policy", kept.PolicyName)); err != nil {
		t.Fatal(err)
	}
	a.policies.look(t.Context())
	if policy, fault := a.policies.standing(); policy == nil || fault == nil {
		t.Errorf("policy = %+v, fault = %v, want the one before in force and a fault", policy, fault)
	}
}

func TestWhatWasDecidedWithoutTheEnforcerIsTold(t *testing.T) {
	directory := t.TempDir()
	a, w := newAdmission(t, directory)
	at := time.Now()
	for _, line := range []kept.Line{
		{Time: at, Container: "quiet", Effect: string(admission.Ignore)},
		{Time: at, Container: "refused", Effect: string(admission.Block), Denied: true, Rule: "r", Text: "Palisade refuses\n  this", Image: "shop:1"},
		{Time: at, Container: "blind", Effect: string(admission.Alert), Fault: "policy: it is cut off or was changed"},
	} {
		if err := a.alone.store.Append(line); err != nil {
			t.Fatal(err)
		}
	}
	a.alone.look(t.Context())
	a.alone.look(t.Context())
	if len(w.registrations) != 3 || len(w.findings) != 2 || a.alone.count.Load() != 3 {
		t.Fatalf("registrations = %v, findings = %v, want 3 and 2", w.registrations, w.findings)
	}
	refused, blind := w.findings[0], w.findings[1]
	if refused.GetAction().GetOutcome() != findingv1.ActionOutcome_ACTION_OUTCOME_DONE || refused.GetWorkload().GetContainerId() != "refused" ||
		!strings.Contains(refused.GetOutput(), "Palisade refuses; this; decided in the enforcer's place") {
		t.Errorf("finding = %v", refused)
	}
	if blind.GetAction() != nil || blind.GetRule() != noRule || !strings.Contains(blind.GetOutput(), "cut off or was changed") {
		t.Errorf("finding = %v", blind)
	}
}

func TestWhereTheShimStandsIsPassedOn(t *testing.T) {
	directory := t.TempDir()
	a, _ := newAdmission(t, directory)
	status := func() string { a.shim.look(t.Context()); return a.shim.String() }
	if got := status(); got != standing.ErrStale.Error() {
		t.Errorf("status = %q, want that nobody watches", got)
	}
	write := func(covered bool, at time.Time) {
		t.Helper()
		state := standing.State{Time: at, Places: []standing.Place{{Path: "/usr/sbin/runc", Engines: []string{"docker"}, Covered: covered}}}
		if err := standing.Write(filepath.Join(directory, "standing"), state); err != nil {
			t.Fatal(err)
		}
	}
	write(true, time.Now())
	if got := status(); got != "in the place of 1 of 1 runtimes" {
		t.Errorf("status = %q", got)
	}
	write(false, time.Now())
	if got := status(); got != "not installed" {
		t.Errorf("status = %q", got)
	}
	write(true, time.Now().Add(-time.Hour))
	if got := status(); got != standing.ErrStale.Error() {
		t.Errorf("status = %q, want that nobody watches any more", got)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	a, _ := newAdmission(t, t.TempDir())
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := a.Watch(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch = %v, want %v", err, context.Canceled)
		}
	})
	time.Sleep(30 * time.Millisecond)
	stop()
	running.Wait()
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := Config{Policy: "a", Kept: "b", Standing: "c"}.Validate()
	for _, key := range []string{"admission.policy:", "admission.kept:", "admission.standing:", "admission.every:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Validate() = %v, want it to name %s", err, key)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("DefaultConfig().Validate() = %v", err)
	}
}
