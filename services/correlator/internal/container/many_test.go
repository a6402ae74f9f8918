package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/services/correlator/internal/process"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

const manyContainers = 200

// crowd is containers of three namespaces that have been created and not started. Ids repeat across namespaces.
type crowd struct {
	tasks map[workload.Ref]client.Task
}

// create makes the containers, eight at a time.
func create(t *testing.T, socket string) crowd {
	t.Helper()
	c, err := client.New(socket)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	root := t.TempDir()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("no busybox: %v", err)
	}
	for _, directory := range []string{"bin", "proc", "dev", "sys", "run", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, directory), 0o755); err != nil { //nolint:gosec // a root file system
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	all := crowd{tasks: map[workload.Ref]client.Task{}}
	t.Cleanup(func() { all.remove(t) })
	var mu sync.Mutex
	all.each(func(ref workload.Ref) {
		ctx := namespaces.WithNamespace(context.Background(), ref.Namespace)
		made, err := c.NewContainer(ctx, ref.ID, client.WithRuntime("io.containerd.runc.v2", nil), client.WithImageName("registry.example/"+ref.Namespace+"/"+ref.ID),
			client.WithNewSpec(oci.WithRootFSPath(root), oci.WithProcessArgs("/bin/busybox", "sleep", "1000"),
				oci.WithCgroup("/"+containerdtest.Namespace+"/"+ref.Namespace+"-"+ref.ID)))
		if err != nil {
			t.Errorf("create %v: %v", ref, err)
			return
		}
		task, err := made.NewTask(ctx, cio.NullIO)
		if err != nil {
			t.Errorf("create task %v: %v", ref, err)
			return
		}
		mu.Lock()
		all.tasks[ref] = task
		mu.Unlock()
	})
	if t.Failed() {
		t.FailNow()
	}
	return all
}

// each calls act for every container, eight at a time.
func (crowd) each(act func(workload.Ref)) {
	refs := make(chan workload.Ref)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for ref := range refs {
				act(ref)
			}
		})
	}
	for i := range manyContainers {
		refs <- workload.Ref{Namespace: fmt.Sprintf("palisade-test-%d", i%3), ID: fmt.Sprintf("c%d", i/3)}
	}
	close(refs)
	workers.Wait()
}

func (a crowd) remove(t *testing.T) {
	a.each(func(ref workload.Ref) {
		task := a.tasks[ref]
		if task == nil {
			return
		}
		ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), ref.Namespace), 20*time.Second)
		defer cancel()
		if _, err := task.Delete(ctx, client.WithProcessKill); err != nil {
			t.Errorf("delete %v: %v", ref, err)
		}
	})
	for i := range 3 {
		_ = os.Remove(fmt.Sprintf("/run/containerd/runc/palisade-test-%d", i))
	}
}

// B18: 200 containers of three namespaces, started as fast as containerd can, while the runtime's word and the kernel's
// arrive in any order. Each process is its own container's, and none is another's.
func TestB18TwoHundredContainersAtOnce(t *testing.T) {
	daemon := containerdtest.Start(t)
	n := followAll(t, daemon.Socket)
	pumped, stop := make(chan struct{}), make(chan struct{})
	go func() { // containerd drops a subscriber that does not read
		defer close(pumped)
		for {
			select {
			case u := <-n.Updates():
				for _, ref := range u.Gone {
					delete(n.running, ref)
				}
				for _, task := range u.Running {
					n.running[task.Ref] = task
				}
			case <-stop:
				return
			}
		}
	}()
	all := create(t, daemon.Socket)
	began := time.Now()
	all.each(func(ref workload.Ref) {
		if err := all.tasks[ref].Start(namespaces.WithNamespace(context.Background(), ref.Namespace)); err != nil {
			t.Errorf("start %v: %v", ref, err)
		}
	})
	t.Logf("%d containers started in %v", manyContainers, time.Since(began).Round(time.Millisecond))
	close(stop)
	<-pumped
	n.await("all of them", func() bool { return len(n.running) == manyContainers })

	tree := process.New(manyContainers)
	index := workload.NewIndex(workload.Config{Now: time.Now, Grace: time.Minute}, tree)
	entries := map[workload.Ref]*process.Entry{}
	places := map[workload.Ref]workload.Place{}
	odd := false
	for ref, task := range n.running {
		if odd = !odd; odd { // the runtime first
			index.Apply(workload.Update{Running: []workload.Task{task}})
		}
		cgroup, place := kernelsWord(t, all.tasks[ref].Pid())
		entries[ref] = tree.Apply(&eventv1.Event{
			Process: &eventv1.ProcessKey{Pid: all.tasks[ref].Pid(), StartBoottimeNs: 7}, CgroupId: cgroup, Namespaces: place,
			Kind: &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: "/bin/busybox"}, Argv: []string{"sleep"}}},
		})
		places[ref] = workload.Place{CgroupID: cgroup, MntNS: place.GetMnt(), PIDNS: place.GetPid()}
		index.Observe(entries[ref])
		index.Apply(workload.Update{Running: []workload.Task{task}}) // the kernel first, and said again
	}
	for ref, entry := range entries {
		w, ok := index.Resolve(entry, places[ref])
		if !ok || w.GetContainerId() != ref.ID || w.GetRuntime() != ref.Namespace || w.GetImage() != "registry.example/"+ref.Namespace+"/"+ref.ID {
			t.Errorf("process of %v is attributed to %v", ref, w)
		}
	}
	if len(entries) != manyContainers {
		t.Errorf("%d of %d containers seen", len(entries), manyContainers)
	}
	// One that ends is gone alone, though another namespace has its id.
	victim := workload.Ref{Namespace: "palisade-test-1", ID: "c1"}
	if err := all.tasks[victim].Kill(namespaces.WithNamespace(context.Background(), victim.Namespace), syscall.SIGKILL); err != nil {
		t.Fatalf("kill: %v", err)
	}
	n.await("one end", func() bool { return len(n.running) == manyContainers-1 })
	if _, there := n.running[victim]; there {
		t.Errorf("%v is still said to run", victim)
	}
}
