package admit

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/admission"
	"github.com/palisade-sec/palisade/internal/unixsock"
	"github.com/palisade-sec/palisade/services/enforcer/internal/audit"
	"github.com/palisade-sec/palisade/services/enforcer/internal/identity"
)

// world is everybody whom a judge speaks with.
type world struct {
	container identity.Container
	unknown   error
	auditErr  error

	mu            sync.Mutex
	report        *scannerv1.Report
	scanErr       error
	scans         int
	records       []audit.Record
	registrations []*correlatorv1.RegisterContainerRequest
	findings      []*findingv1.Finding
	images        map[string]*enforcerv1.KnownImage
}

func (w *world) Find(context.Context, string, string) (identity.Container, error) {
	return w.container, w.unknown
}

func (w *world) Append(r audit.Record) error {
	w.records = append(w.records, r)
	return w.auditErr
}

func (w *world) Register(r *correlatorv1.RegisterContainerRequest) {
	w.registrations = append(w.registrations, r)
}

func (w *world) RegisterNow(_ context.Context, r *correlatorv1.RegisterContainerRequest) {
	w.Register(r)
}

func (w *world) Tell(f *findingv1.Finding) { w.findings = append(w.findings, f) }

func (w *world) ReportShim(bool, []*correlatorv1.ShimPlace) {}

func (w *world) GetReport(context.Context, *scannerv1.GetReportRequest, ...grpc.CallOption) (*scannerv1.GetReportResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report == nil {
		return nil, status.Error(codes.NotFound, "not scanned")
	}
	return &scannerv1.GetReportResponse{Report: w.report}, nil
}

func (w *world) Scan(context.Context, *scannerv1.ScanRequest, ...grpc.CallOption) (*scannerv1.ScanResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scans++
	if w.scanErr != nil {
		return nil, w.scanErr
	}
	w.report = vulnerable
	return &scannerv1.ScanResponse{Report: w.report}, nil
}

func (w *world) ListReports(context.Context, *scannerv1.ListReportsRequest, ...grpc.CallOption) (*scannerv1.ListReportsResponse, error) {
	return nil, errors.ErrUnsupported
}

func (w *world) PutImage(key string, image *enforcerv1.KnownImage) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.images == nil {
		w.images = map[string]*enforcerv1.KnownImage{}
	}
	w.images[key] = image
	return nil
}

var vulnerable = &scannerv1.Report{Image: "shop:1", Vulnerabilities: []*scannerv1.Vulnerability{{
	Id: "CVE-2026-0001", Severity: scannerv1.Severity_SEVERITY_CRITICAL, Package: "openssl", Version: "1", FixedVersion: "2",
}}}

const strict = `
version: 1
rules:
  - name: no critical vulnerabilities
    match: {images: ["shop:*"]}
    on_error: deny
    vulnerability: {block: critical}
`

// judgeOf returns a judge in a world, whose image worker runs.
func judgeOf(t *testing.T, w *world, policy string) *judge {
	t.Helper()
	p, err := admission.Parse("policy.yaml", []byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	i := newImages(w, w, log)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = i.run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return &judge{
		host: "node-1", finder: w, policy: func() *admission.Policy { return p }, images: i, audit: w, outbox: w, log: log,
		metrics: testMetrics(t), now: time.Now,
	}
}

var question = &enforcerv1.AdmissionRequest{
	ContainerId: "c1", Event: enforcerv1.AdmissionEvent_ADMISSION_EVENT_CREATE, Layers: []string{"/layers/2", "/layers/1"}, Spec: []byte("{}"),
}

var shop = identity.Container{Runtime: "docker", Name: "web", Image: "shop:1", Digest: "sha256:aa", Labels: map[string]string{"team": "blue"}}

func TestARefusalIsRecordedBeforeItIsToldAndThenAFinding(t *testing.T) {
	w := &world{container: shop, report: vulnerable}
	response, told := judgeOf(t, w, strict).answer(t.Context(), question, unixsock.Peer{PID: 77})
	if response.GetVerdict() != enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY || !strings.Contains(response.GetMessage(), "CVE-2026-0001") {
		t.Fatalf("answer = %v, want a refusal that names the vulnerability", response)
	}
	if len(w.records) != 1 || w.records[0].Phase != audit.PhaseBefore || w.records[0].PID != 77 || w.records[0].ContainerID != "c1" {
		t.Errorf("records = %+v, want one of before", w.records)
	}
	told(nil)
	if len(w.records) != 2 || w.records[1].Phase != audit.PhaseAfter || w.records[1].Outcome != "done" {
		t.Errorf("records = %+v, want one of after, done", w.records)
	}
	if len(w.findings) != 1 {
		t.Fatalf("findings = %v, want one", w.findings)
	}
	f := w.findings[0]
	if f.GetAction().GetKind() != findingv1.ActionKind_ACTION_KIND_REFUSE || f.GetAction().GetOutcome() != findingv1.ActionOutcome_ACTION_OUTCOME_DONE ||
		f.GetEffect() != findingv1.Effect_EFFECT_BLOCK || f.GetWorkload().GetImage() != "shop:1" || f.GetRule() != "no critical vulnerabilities" ||
		len(f.GetId()) != 32 || strings.ContainsAny(f.GetOutput(), "\n\r") || f.GetId() != w.records[0].FindingID {
		t.Errorf("finding = %v", f)
	}
	if r := w.registrations[0]; r.GetVerdict() != enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY || r.GetRule() != f.GetRule() {
		t.Errorf("registration = %v, want one of a refusal", r)
	}
}

func TestARefusalThatNobodyHeardSaysSo(t *testing.T) {
	w := &world{container: shop, report: vulnerable}
	_, told := judgeOf(t, w, strict).answer(t.Context(), question, unixsock.Peer{})
	told(errors.New("broken pipe"))
	if a := w.findings[0].GetAction(); a.GetOutcome() != findingv1.ActionOutcome_ACTION_OUTCOME_FAILED || w.records[1].Outcome != "failed" {
		t.Errorf("action = %v, record = %+v, want both failed", a, w.records[1])
	}
}

// Whoever fills the disk must not get his container through.
func TestARefusalThatCannotBeRecordedIsOneNevertheless(t *testing.T) {
	w := &world{container: shop, report: vulnerable, auditErr: errors.New("no space left on device")}
	j := judgeOf(t, w, strict)
	response, _ := j.answer(t.Context(), question, unixsock.Peer{})
	if response.GetVerdict() != enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY || !j.metrics.unaudited.Load() {
		t.Errorf("answer = %v, unaudited = %v, want a refusal and a warning", response, j.metrics.unaudited.Load())
	}
}

func TestADryRunRefusesNothingAndTells(t *testing.T) {
	w := &world{container: shop, report: vulnerable}
	response, told := judgeOf(t, w, strings.Replace(strict, "rules:", "dry_run: true\nrules:", 1)).answer(t.Context(), question, unixsock.Peer{})
	told(nil)
	if response.GetVerdict() != enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_ALLOW || response.GetMessage() != "" || len(w.records) != 0 {
		t.Errorf("answer = %v, records %+v, want the container allowed without a word", response, w.records)
	}
	if a := w.findings[0].GetAction(); a.GetOutcome() != findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED || !strings.Contains(a.GetDetail(), "dry run") {
		t.Errorf("action = %v, want one that was not done, for it is a dry run", a)
	}
}

// An image that nobody has scanned is scanned because a container was to be created of it: the next try is decided by what was found.
func TestTheFirstContainerHasItsImageScanned(t *testing.T) {
	w := &world{container: shop}
	j := judgeOf(t, w, strings.Replace(strict, "block: critical", "block: critical, exceptions: [{id: CVE-2026-0001, until: 2999-01-01, reason: test}]", 1))
	response, told := j.answer(t.Context(), question, unixsock.Peer{})
	if response.GetVerdict() != enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY || !strings.Contains(response.GetMessage(), "try again in a moment") {
		t.Errorf("answer = %v, want a refusal until the scan has ended", response)
	}
	told(nil)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		kept := len(w.images)
		w.mu.Unlock()
		if kept > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the image was not scanned and kept")
		}
	}
	response, told = j.answer(t.Context(), question, unixsock.Peer{})
	told(nil)
	if response.GetVerdict() != enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_ALLOW {
		t.Errorf("answer after the scan = %v, want the container allowed", response)
	}
	if w.scans != 1 {
		t.Errorf("%d scans, want 1", w.scans)
	}
}

func TestAFailedScanIsToldAndNotTriedAtEveryContainer(t *testing.T) {
	w := &world{container: shop, scanErr: status.Error(codes.ResourceExhausted, "the image is too large")}
	j := judgeOf(t, w, strict)
	for deadline := time.Now().Add(20 * time.Second); ; {
		response, told := j.answer(t.Context(), question, unixsock.Peer{})
		told(nil)
		if strings.Contains(response.GetMessage(), "the image is too large") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("answer = %v, want why the scan failed", response)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.scans != 1 {
		t.Errorf("%d scans, want 1", w.scans)
	}
}

func TestWhoIsNotKnownIsJudgedByRulesThatDenyWhatTheyCannotJudge(t *testing.T) {
	for name, test := range map[string]struct {
		policy string
		found  identity.Container
		err    error
		denied bool
	}{
		"deny":                {policy: strict, err: identity.ErrUnknown, denied: true},
		"allow":               {policy: strings.Replace(strict, "deny", "allow", 1), err: identity.ErrUnknown},
		"nobody answers":      {policy: strict, err: context.DeadlineExceeded, denied: true},
		"created by an id":    {policy: strict, found: identity.Container{Runtime: "docker", Name: "x", Digest: "sha256:aa"}, denied: true},
		"namespace is known":  {policy: strings.Replace(strict, `images: ["shop:*"]`, `namespaces: [prod]`, 1), found: identity.Container{Runtime: "docker"}},
		"namespace is not":    {policy: strings.Replace(strict, `images: ["shop:*"]`, `namespaces: [prod]`, 1), err: identity.ErrUnknown, denied: true},
		"another image":       {policy: strict, found: identity.Container{Runtime: "docker", Image: "other:1"}},
		"the host is known":   {policy: strings.Replace(strict, `images: ["shop:*"]`, `hosts: [node-2]`, 1), err: identity.ErrUnknown},
		"the pod was not had": {policy: strings.Replace(strict, `images: ["shop:*"]`, `labels: {app: web}`, 1), found: shop, err: context.DeadlineExceeded, denied: true},
	} {
		w := &world{container: test.found, unknown: test.err}
		response, _ := judgeOf(t, w, test.policy).answer(t.Context(), question, unixsock.Peer{})
		if got := response.GetVerdict() == enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY; got != test.denied {
			t.Errorf("%s: denied = %v, want %v: %s", name, got, test.denied, response.GetMessage())
		}
	}
}

func TestAStartIsRegisteredAndNotJudged(t *testing.T) {
	w := &world{unknown: identity.ErrUnknown}
	response, told := judgeOf(t, w, strict).answer(t.Context(), &enforcerv1.AdmissionRequest{
		ContainerId: "c1", Event: enforcerv1.AdmissionEvent_ADMISSION_EVENT_START, CgroupId: 4711,
	}, unixsock.Peer{})
	told(nil)
	if response.GetVerdict() != enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_ALLOW || len(w.findings) != 0 {
		t.Errorf("answer = %v, findings = %v, want it allowed without a word", response, w.findings)
	}
	if r := w.registrations[0]; r.GetContainerId() != "c1" || r.GetCgroupId() != 4711 || r.GetEvent() != enforcerv1.AdmissionEvent_ADMISSION_EVENT_START {
		t.Errorf("registration = %v", r)
	}
}
