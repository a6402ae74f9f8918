package container

import (
	"context"
	"strings"
	"testing"
	"time"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

func TestPrivilegedIsWhatTheSpecificationAllows(t *testing.T) {
	const all = `{"allow":true,"access":"rwm"}`
	const admin = `"process":{"capabilities":{"bounding":["CAP_SYS_ADMIN"]}}`
	for name, tt := range map[string]struct {
		spec string
		want bool
	}{
		"privileged":        {`{` + admin + `,"linux":{"resources":{"devices":[{"allow":false,"access":"rwm"},` + all + `]}}}`, true},
		"no capability":     {`{"linux":{"resources":{"devices":[` + all + `]}}}`, false},
		"masked paths":      {`{` + admin + `,"linux":{"maskedPaths":["/proc/kcore"],"resources":{"devices":[` + all + `]}}}`, false},
		"devices denied":    {`{` + admin + `,"linux":{"resources":{"devices":[` + all + `,{"allow":false,"access":"rwm"}]}}}`, false},
		"one device":        {`{` + admin + `,"linux":{"resources":{"devices":[{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]}}}`, false},
		"not a spec at all": {`[]`, false},
	} {
		if got := parseSpec([]byte(tt.spec)).privileged(); got != tt.want {
			t.Errorf("%s: privileged() = %v, want %v", name, got, tt.want)
		}
	}
}

// FuzzSpec: a specification never breaks us, and its mounts are bounded.
func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"mounts":[{"destination":"/proc","source":"proc","options":["ro"]}],"linux":{"resources":{"devices":[{"allow":true}]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := parseSpec(data)
		if got := len(s.mounts()); got > maxMounts {
			t.Errorf("%d mounts", got)
		}
		s.privileged()
	})
}

// FuzzEvents: a stream of events ends with an error or its end, whatever is in it.
func FuzzEvents(f *testing.F) {
	f.Add(`{"Action":"start","Actor":{"ID":"a"}}` + "\n" + `{"status":"die","id":"b"}`)
	f.Fuzz(func(t *testing.T, data string) {
		news := make(chan dockerEvent, len(data)+1)
		_ = readEvents(context.Background(), strings.NewReader(data), news)
	})
}

func TestMerge(t *testing.T) {
	r := &Runtimes{claims: []map[workload.Ref]claim{{}, {}}}
	ref := workload.Ref{Namespace: "moby", ID: "a"}
	now := time.Unix(1000, 0)
	task := func(pid uint32, image string) workload.Update {
		return workload.Update{Running: []workload.Task{{Ref: ref, PID: pid, Workload: &findingv1.Workload{Image: image}}}}
	}
	say := func(u workload.Update) (pid uint32, image string, gone bool) {
		if len(u.Running) > 0 {
			pid, image = u.Running[0].PID, u.Running[0].Workload.GetImage()
		}
		return pid, image, len(u.Gone) > 0
	}
	steps := []struct {
		name   string
		source int
		update workload.Update
		pid    uint32
		image  string
		gone   bool
	}{
		{"created in docker", 1, task(0, "docker's"), 0, "", false},
		{"started by containerd", 0, task(7, ""), 7, "docker's", false},
		{"started, says docker", 1, task(7, "docker's"), 7, "docker's", false},
		{"in containerd's list no more, in docker's still", 0, workload.Update{Complete: true}, 0, "", false},
		{"in neither's", 1, workload.Update{Complete: true}, 0, "", true},
		{"started again", 0, task(9, ""), 9, "docker's", false},
		{"docker is late with the old pid", 1, task(7, "docker's"), 9, "docker's", false},
		{"ended", 0, workload.Update{Gone: []workload.Ref{ref}}, 0, "", true},
	}
	for _, s := range steps {
		pid, image, gone := say(r.merge(s.source, s.update, now))
		if pid != s.pid || image != s.image || gone != s.gone {
			t.Errorf("%s: pid %d, image %q, gone %v, want %d, %q, %v", s.name, pid, image, gone, s.pid, s.image, s.gone)
		}
	}
	r.merge(1, workload.Update{Complete: true}, now.Add(keepIdle+time.Second))
	if len(r.claims[0])+len(r.claims[1]) != 0 {
		t.Errorf("claims = %v, want none", r.claims)
	}
}
