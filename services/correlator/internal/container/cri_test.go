package container

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/unixsock"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// criFollower follows a CRI until the test ends, and remembers what it said as the index does.
type criFollower struct {
	*criWatcher
	t       *testing.T
	running map[string]workload.Task
}

func followCRI(t *testing.T, socket string, cfg Config) *criFollower {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(unixsock.ClientCredentials(0)))
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	w := newCRIWatcher(cfg, conn, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = conn.Close()
	})
	return &criFollower{criWatcher: w, t: t, running: map[string]workload.Task{}}
}

// await applies updates until ok.
func (f *criFollower) await(what string, ok func() bool) {
	f.t.Helper()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case u := <-f.updates:
			if u.Complete {
				clear(f.running)
			}
			for _, ref := range u.Gone {
				delete(f.running, ref.ID)
			}
			for _, task := range u.Running {
				f.running[task.Ref.ID] = task
			}
		case <-limit:
			err, _ := f.health.get()
			f.t.Fatalf("not within 30s: %s (last error: %v)", what, err)
		case <-time.After(20 * time.Millisecond): // ok may ask for more than updates
		}
	}
}

func (f *criFollower) runs(id string) func() bool {
	return func() bool { return f.running[id].PID != 0 }
}

func (f *criFollower) ended(id string) func() bool {
	return func() bool { _, ok := f.running[id]; return !ok }
}

// criConfig makes sure that a test sees what it is about: where a CRI has events, no list comes to their help.
func criConfig(t *testing.T, socket string) (cfg Config, events bool) {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(unixsock.ClientCredentials(0)))
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	stream, err := runtimeapi.NewRuntimeServiceClient(conn).GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	cfg = DefaultConfig()
	if status.Code(err) == codes.Unimplemented {
		cfg.Poll = 50 * time.Millisecond
		return cfg, false
	}
	cfg.Poll, cfg.Relist = time.Hour, time.Hour
	return cfg, true
}

// TestRealCRI follows the CRI of a real containerd, as it would CRI-O's.
func TestRealCRI(t *testing.T) {
	daemon, digest := containerdtest.StartCRI(t)
	daemon.Pulled(t, digest)
	pod := containerdtest.StartPod(t, daemon, containerdtest.Pod{
		Name: "web-0", UID: "b0b0b0b0-0000-4000-8000-000000000020", Labels: map[string]string{"app": "web", "io.kubernetes.pod.name": "web-0"},
	})
	defer pod.Remove()
	old := pod.Run("app", map[string]string{"role": "main"}, "sleep 1000")
	cfg, events := criConfig(t, daemon.Socket)
	t.Logf("events: %v", events)
	f := followCRI(t, daemon.Socket, cfg)

	f.await("the container that ran before", f.runs(old))
	task := f.running[old]
	w := task.Workload
	if w.GetImage() != containerdtest.ImageName || w.GetImageDigest() != digest || w.GetRuntime() != crio || w.GetLabels()["role"] != "main" {
		t.Errorf("description = %v, want image %s@%s and its label", w, containerdtest.ImageName, digest)
	}
	if w.GetContainerName() != "app" || w.GetPodName() != "web-0" || w.GetPodNamespace() != "prod" ||
		w.GetPodUid() != "b0b0b0b0-0000-4000-8000-000000000020" || len(w.GetPodLabels()) != 1 || w.GetPodLabels()["app"] != "web" {
		t.Errorf("description = %v, want container app of pod prod/web-0 with its uid and its own label", w)
	}
	if age := time.Since(w.GetStartTime().AsTime()); age < 0 || age > time.Minute || len(w.GetMounts()) == 0 || w.GetPrivileged() {
		t.Errorf("description = %v, want a start time, mounts, and no privilege", w)
	}
	bindsToKernelsWord(t, task)
	f.await("the pod's sandbox", f.runs(pod.Sandbox))

	fresh := pod.Run("side", nil, "sleep 1000")
	f.await("a container that starts", f.runs(fresh))
	bindsToKernelsWord(t, f.running[fresh])
	pod.Stop(fresh)
	f.await("a container that ends", f.ended(fresh))

	daemon.Down(t)
	for err := error(nil); err == nil; err, _ = f.health.get() { //nolint:revive // the error is the subject here
		time.Sleep(5 * time.Millisecond)
	}
	clear(f.running)
	daemon.Up(t)
	f.await("a list after the restart", f.runs(old))
	if _, ok := f.running[fresh]; ok {
		t.Error("after the restart, the container that ended runs")
	}
}
