package container

import (
	"errors"
	"testing"
	"time"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// A container of Docker's is told of with Docker's word, even when containerd's comes first; without it as soon as patience ends, and when
// it is over before that, it is told of before its end.
func TestContainerdsWordOnDockersContainersWaits(t *testing.T) {
	now := time.Unix(1000, 0)
	moby := workload.Ref{Namespace: "moby", ID: "a"}
	says := func(ref workload.Ref, image string) workload.Update {
		return workload.Update{Running: []workload.Task{{Ref: ref, PID: 7, Workload: &findingv1.Workload{Image: image}}}}
	}
	follow := func(err error) *Runtimes {
		docker := &dockerWatcher{socket: Socket{Namespace: "moby"}, health: health{err: err}}
		return &Runtimes{others: []source{docker}, claims: []map[workload.Ref]claim{{}, {}}, withheld: map[workload.Ref]withheld{}}
	}
	first := func(u workload.Update) string {
		if len(u.Running) != 1 {
			return ""
		}
		return u.Running[0].Workload.GetImage()
	}

	for name, err := range map[string]error{"followed": nil, "about to be followed": errNotYet} {
		r := follow(err)
		if u := r.merge(0, says(moby, "containerd's"), now); len(u.Running) != 0 || r.due(now) == nil {
			t.Errorf("%s: containerd's word = %v, want none yet", name, u)
		}
		if u := r.merge(1, says(moby, "docker's"), now); first(u) != "docker's" || r.due(now) != nil {
			t.Errorf("%s: docker's word = %v, want it", name, u)
		}
	}

	r := follow(nil)
	r.merge(0, says(moby, "containerd's"), now)
	if u := r.overdue(now.Add(patience / 2)); len(u.Running) != 0 {
		t.Errorf("half way: %v, want none", u)
	}
	if u := r.overdue(now.Add(patience)); first(u) != "containerd's" || r.due(now) != nil {
		t.Errorf("overdue = %v, want containerd's word", u)
	}

	r = follow(nil)
	r.merge(0, says(moby, "containerd's"), now)
	gone := r.merge(0, workload.Update{Gone: []workload.Ref{moby}}, now)
	if u := r.beforeGone(gone.Gone); first(u) != "containerd's" || len(gone.Gone) != 1 || r.due(now) != nil {
		t.Errorf("gone = %v after %v, want containerd's word before the end", gone, u)
	}

	if u := follow(errors.New("lost")).merge(0, says(moby, "containerd's"), now); first(u) != "containerd's" {
		t.Errorf("docker lost: %v, want containerd's word", u)
	}
	if u := follow(nil).merge(0, says(workload.Ref{Namespace: "k8s.io", ID: "a"}, "containerd's"), now); first(u) != "containerd's" {
		t.Errorf("not docker's: %v, want containerd's word", u)
	}
}
