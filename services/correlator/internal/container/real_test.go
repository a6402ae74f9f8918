package container

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/unixsock"
	"github.com/palisade-sec/palisade/services/correlator/internal/process"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// watch follows a containerd until the test ends.
func watch(t *testing.T, socket string) *Watcher {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(unixsock.ClientCredentials(0)))
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	w, err := New(DefaultConfig(), conn, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("New() error = %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = conn.Close()
	})
	return w
}

// await takes updates until one satisfies ok.
func await(t *testing.T, w *Watcher, what string, ok func(workload.Update) bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case u := <-w.Updates():
			if ok(u) {
				return
			}
		case <-limit:
			t.Fatalf("no update within 20s: %s (last error: %v)", what, w.Err())
		}
	}
}

// find is the task of that id in an update, nil if it is not there.
func find(u workload.Update, id string) *workload.Task {
	for i := range u.Running {
		if u.Running[i].Ref.ID == id {
			return &u.Running[i]
		}
	}
	return nil
}

func TestRealContainerd(t *testing.T) {
	daemon := containerdtest.Start(t)
	digest := daemon.Image(t)
	daemon.Ctr(t, "run", "--detach", "--snapshotter", "native", "--label", "io.kubernetes.pod.name=web-0",
		"--label", "io.kubernetes.pod.namespace=prod", "--label", "io.kubernetes.container.name=app",
		containerdtest.ImageName, "old", "/bin/sleep", "1000")
	w := watch(t, daemon.Socket)

	var old workload.Task
	await(t, w, "the list at the start", func(u workload.Update) bool {
		if task := find(u, "old"); task != nil && u.Complete {
			old = *task
		}
		return old.PID != 0
	})
	got := old.Workload
	if got.GetImage() != containerdtest.ImageName || got.GetImageDigest() != digest || got.GetRuntime() != containerdtest.Namespace ||
		got.GetPodName() != "web-0" || got.GetPodNamespace() != "prod" || got.GetContainerName() != "app" {
		t.Errorf("description = %v, want image %s@%s in pod prod/web-0", got, containerdtest.ImageName, digest)
	}
	for w.Err() != nil { // it is cleared just after the list is handed over
		time.Sleep(time.Millisecond)
	}

	go daemon.TryCtr("run", "--detach", "--snapshotter", "native", containerdtest.ImageName, "new", "/bin/sleep", "1000") //nolint:errcheck // awaited by its event
	var pid uint32
	await(t, w, "a container that starts", func(u workload.Update) bool {
		if task := find(u, "new"); task != nil {
			pid = task.PID
		}
		return pid != 0
	})
	bindsToKernelsWord(t, workload.Task{Ref: workload.Ref{Namespace: containerdtest.Namespace, ID: "new"}, PID: pid, Workload: got})

	go daemon.TryCtr("tasks", "kill", "--signal", "SIGKILL", "new") //nolint:errcheck // awaited by its event
	await(t, w, "a container that ends", func(u workload.Update) bool {
		return len(u.Gone) == 1 && u.Gone[0].ID == "new"
	})

	daemon.Down(t)
	for w.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	daemon.Up(t)
	await(t, w, "a list after the restart", func(u workload.Update) bool { return u.Complete && find(u, "old") != nil && find(u, "new") == nil })

	w.Ask()
	await(t, w, "a list that was asked for", func(u workload.Update) bool { return u.Complete })
}

// bindsToKernelsWord joins containerd's word about a real container with what the kernel says of its process.
func bindsToKernelsWord(t *testing.T, task workload.Task) {
	t.Helper()
	cgroup, place := kernelsWord(t, task.PID)
	tree := process.New(10)
	index := workload.NewIndex(workload.Config{Now: time.Now}, tree)
	entry := tree.Apply(&eventv1.Event{
		Process: &eventv1.ProcessKey{Pid: task.PID, StartBoottimeNs: 7}, CgroupId: cgroup, Namespaces: place,
		Kind: &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: "/bin/busybox"}, Argv: []string{"sleep"}}},
	})
	if !index.Apply(workload.Update{Running: []workload.Task{task}}) {
		t.Fatalf("pid %d in cgroup %d was not bound", task.PID, cgroup)
	}
	at := workload.Place{CgroupID: cgroup, MntNS: place.GetMnt(), PIDNS: place.GetPid()}
	if got, ok := index.Resolve(entry, at); !ok || got != task.Workload {
		t.Errorf("Resolve() = %v, %v, want the container", got, ok)
	}
}

// kernelsWord is a process's cgroup id and namespaces, from /proc and the cgroup file system.
func kernelsWord(t *testing.T, pid uint32) (uint64, *eventv1.Namespaces) {
	t.Helper()
	inode := func(name string) uint32 {
		var n uint32
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if err != nil {
			t.Skipf("read the container's namespaces: %v", err)
		}
		if _, err := fmt.Sscanf(strings.TrimPrefix(link, name), ":[%d]", &n); err != nil {
			t.Fatalf("namespace %q: %v", link, err)
		}
		return n
	}
	return cgroupID(t, pid), &eventv1.Namespaces{Mnt: inode("mnt"), Pid: inode("pid")}
}
