package passage

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
)

const (
	create = enforcerv1.AdmissionEvent_ADMISSION_EVENT_CREATE
	start  = enforcerv1.AdmissionEvent_ADMISSION_EVENT_START
)

func register(t *testing.T, b *Book, r *correlatorv1.RegisterContainerRequest) {
	t.Helper()
	if _, err := b.RegisterContainer(t.Context(), r); err != nil {
		t.Fatalf("RegisterContainer(%v) = %v", r, err)
	}
}

func TestTheBookKnowsWhoPassed(t *testing.T) {
	b := New(DefaultConfig())
	register(t, b, &correlatorv1.RegisterContainerRequest{ContainerId: "a", Event: create})
	register(t, b, &correlatorv1.RegisterContainerRequest{ContainerId: "b", Event: start, CgroupId: 7})
	register(t, b, &correlatorv1.RegisterContainerRequest{
		ContainerId: "denied", Event: create, Verdict: enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY,
	})
	for _, tt := range []struct {
		id     string
		cgroup uint64
		want   bool
	}{{"a", 0, true}, {"b", 0, true}, {"", 7, true}, {"denied", 0, false}, {"c", 8, false}, {"", 0, false}} {
		if got := b.Passed(&findingv1.Workload{ContainerId: tt.id}, tt.cgroup); got != tt.want {
			t.Errorf("Passed(%q, %d) = %v, want %v", tt.id, tt.cgroup, got, tt.want)
		}
	}
	for _, bad := range []*correlatorv1.RegisterContainerRequest{
		{}, {ContainerId: "x"}, {Event: create}, {ContainerId: "x", Event: 99}, {ContainerId: strings.Repeat("x", maxID+1), Event: create},
	} {
		if _, err := b.RegisterContainer(t.Context(), bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("RegisterContainer(%.80v) = %v, want INVALID_ARGUMENT", bad, err)
		}
	}
}

func TestTheBookIsBounded(t *testing.T) {
	b := New(DefaultConfig())
	for i := range b.cfg.Containers + 10 {
		register(t, b, &correlatorv1.RegisterContainerRequest{ContainerId: fmt.Sprint(i), Event: start, CgroupId: uint64(i + 1)}) //nolint:gosec // small
	}
	if len(b.order) != b.cfg.Containers || len(b.passed) != b.cfg.Containers || len(b.cgroups) != b.cfg.Containers {
		t.Errorf("%d, %d and %d entries, want %d", len(b.order), len(b.passed), len(b.cgroups), b.cfg.Containers)
	}
	if b.Passed(&findingv1.Workload{ContainerId: "0"}, 1) || !b.Passed(&findingv1.Workload{ContainerId: "10"}, 0) {
		t.Error("want the oldest forgotten, and no other")
	}
}

// A report to the correlator that was there before says nothing to this one.
func TestAReportToAnotherIsNotTaken(t *testing.T) {
	b := New(DefaultConfig())
	answer, err := b.ReportShim(t.Context(), &correlatorv1.ReportShimRequest{SinceBoottimeNs: 5, Instance: "the one before"})
	if err != nil || answer.GetInstance() == "" || b.Since() != 0 {
		t.Fatalf("ReportShim() = %v, %v, since %d, want its name and nothing taken", answer, err, b.Since())
	}
	if _, err := b.ReportShim(t.Context(), &correlatorv1.ReportShimRequest{
		SinceBoottimeNs: 5, Instance: answer.GetInstance(),
		Places: []*correlatorv1.ShimPlace{{Path: "/usr/sbin/runc", Covered: true}, {Path: "/usr/bin/crun", Engines: []string{"podman"}}},
	}); err != nil || b.Since() != 5 {
		t.Errorf("ReportShim() = %v, since %d, want 5", err, b.Since())
	}
	told := &processv1.GetStatusResponse{}
	b.Describe(told)
	if got := told.GetFacts()[0].GetValue(); got != "in force, 0 containers passed; not at /usr/bin/crun (podman)" {
		t.Errorf("status = %q", got)
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := Config{Wait: time.Millisecond}.Validate()
	for _, key := range []string{"shim.wait:", "shim.containers:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Validate() = %v, want it to name %s", err, key)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("DefaultConfig().Validate() = %v", err)
	}
}
