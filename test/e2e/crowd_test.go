package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/internal/containerdtest"
)

const (
	// crowdNamespaces is how many of containerd's namespaces a crowd is spread over. Ids repeat across them.
	crowdNamespaces = 3
	crowdWorkers    = 16
)

// member is one container of a crowd and what it does. What it does bears its tag, which no other process has.
type member struct {
	number        int
	namespace, id string
	image         string
	tag           string
	address       string   // that it connects to
	mounts        []string // further directories of the host that it may write
	hostPIDs      bool     // it lives in the host's pid namespace
	pid           uint32   // its first process, once there is one
	script        string
	acts          []string // as findings call them
}

// crowd is containers that share a root file system and the host's network.
type crowd struct {
	t      *testing.T
	client *client.Client
	root   string
	all    []*member
	mu     sync.Mutex
	tasks  map[int]client.Task // guarded by mu
}

func newCrowd(t *testing.T, daemon *containerdtest.Daemon) *crowd {
	t.Helper()
	c, err := client.New(daemon.Socket)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("no busybox: %v", err)
	}
	root := t.TempDir()
	for _, directory := range []string{"bin", "proc", "dev", "sys", "run", "tmp", "acts", "cgroup"} {
		if err := os.MkdirAll(filepath.Join(root, directory), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("busybox", filepath.Join(root, "bin/sh")); err != nil {
		t.Fatal(err)
	}
	return &crowd{t: t, client: c, root: root, tasks: map[int]client.Task{}}
}

// member makes the n-th container up. Its id is what runtimes call containers: 64 hexadecimal digits.
func (c *crowd) member(n int) *member {
	m := &member{
		number: n, namespace: fmt.Sprintf("palisade-crowd-%d", n%crowdNamespaces), id: fmt.Sprintf("%064x", 0xc0ffee00+n/crowdNamespaces),
		tag: fmt.Sprintf("act-%04d", n), address: fmt.Sprintf("127.77.%d.%d", n/250, n%250+1),
	}
	m.image = "registry.example/" + m.namespace + "/app:" + m.tag
	m.script = ": " + m.tag + "-exec0\n" // the shell's own
	m.acts = append(m.acts, m.tag+"-exec0")
	c.all = append(c.all, m)
	return m
}

// cgroup is the member's, below the top of each hierarchy.
func (m *member) cgroup() string {
	return "/" + containerdtest.Namespace + "/" + m.namespace + "-" + m.id
}

// does adds the k-th of each kind of act to what a member does.
func (c *crowd) does(m *member, k int) {
	c.t.Helper()
	file := fmt.Sprintf("%s-open%d", m.tag, k)
	if err := os.WriteFile(filepath.Join(c.root, "acts", file), []byte("x\n"), 0o644); err != nil {
		c.t.Fatal(err)
	}
	exec, connect := fmt.Sprintf("%s-exec%d", m.tag, k), fmt.Sprintf("%s:%d", m.address, 1000+k)
	m.script += fmt.Sprintf("read x </acts/%s\nbusybox true %s\nbusybox nc -w 1 %s %d </dev/null\n", file, exec, m.address, 1000+k)
	m.acts = append(m.acts, file, exec, connect)
}

// leavesAnOrphan adds an act of a process whose parent has ended.
func (c *crowd) leavesAnOrphan(m *member) {
	m.script += "export A=" + m.orphan() + "\nbusybox sh -c '(busybox sleep 1; exec busybox true $A) & exit 0'\n"
	m.acts = append(m.acts, m.orphan())
}

func (m *member) orphan() string { return m.tag + "-exec9" }

// each calls act for every member, as many at a time as there are workers.
func (c *crowd) each(all []*member, act func(*member) error) {
	c.t.Helper()
	members := make(chan *member)
	var workers sync.WaitGroup
	for range crowdWorkers {
		workers.Go(func() {
			for m := range members {
				if err := act(m); err != nil {
					c.t.Errorf("container %s in %s: %v", m.tag, m.namespace, err)
				}
			}
		})
	}
	for _, m := range all {
		members <- m
	}
	close(members)
	workers.Wait()
}

// create makes the container and its first process, which waits to be started.
func (c *crowd) create(m *member) error {
	ctx := namespaces.WithNamespace(context.Background(), m.namespace)
	mounts := []specs.Mount{}
	for _, directory := range m.mounts {
		mounts = append(mounts, specs.Mount{Type: "bind", Source: directory, Destination: "/cgroup", Options: []string{"rbind", "rw"}})
	}
	also := []oci.SpecOpts{}
	if m.hostPIDs {
		also = append(also, oci.WithHostNamespace(specs.PIDNamespace))
	}
	made, err := c.client.NewContainer(ctx, m.id, client.WithRuntime("io.containerd.runc.v2", nil), client.WithImageName(m.image),
		client.WithContainerLabels(map[string]string{"io.kubernetes.container.name": "app-" + m.tag}),
		client.WithNewSpec(oci.WithRootFSPath(c.root), oci.WithProcessArgs("/bin/sh", "-c", m.script), oci.WithMounts(mounts),
			oci.WithHostNamespace(specs.NetworkNamespace), oci.WithCgroup(m.cgroup()), oci.Compose(also...)))
	if err != nil {
		return err
	}
	task, err := made.NewTask(ctx, cio.NullIO)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tasks[m.number], m.pid = task, task.Pid()
	return nil
}

func (c *crowd) start(m *member) error {
	c.mu.Lock()
	task := c.tasks[m.number]
	c.mu.Unlock()
	if task == nil {
		return fmt.Errorf("was not created")
	}
	return task.Start(namespaces.WithNamespace(context.Background(), m.namespace))
}

// run is what `ctr run` does: create, then start.
func (c *crowd) run(m *member) error {
	if err := c.create(m); err != nil {
		return err
	}
	return c.start(m)
}

// remove ends all of them, and leaves nothing of their namespaces.
func (c *crowd) remove(all []*member) {
	c.t.Helper()
	c.each(all, func(m *member) error {
		ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), m.namespace), 20*time.Second)
		defer cancel()
		c.mu.Lock()
		task := c.tasks[m.number]
		c.mu.Unlock()
		if task == nil {
			return nil
		}
		// By its pid: runC kills who is in the container's cgroup, and one that has moved out of it lives on.
		ended, err := task.Wait(ctx)
		if err != nil {
			return err
		}
		_ = task.Kill(ctx, syscall.SIGKILL) // it may be over
		<-ended
		_, err = task.Delete(ctx)
		return err
	})
	for n := range crowdNamespaces {
		_ = os.Remove(fmt.Sprintf("/run/containerd/runc/palisade-crowd-%d", n))
	}
}

// crowdRules find whatever a member of a crowd does.
const crowdRules = `
- rule: Crowd executed
  desc: A program whose arguments bear a tag.
  condition: evt.type = execve and proc.args contains "act-"
  output: "%proc.args | ppid=%proc.ppid"
  priority: NOTICE
- rule: Crowd opened
  desc: A file whose name bears a tag.
  condition: evt.type = openat and fd.name startswith "/acts/act-"
  output: "%fd.name"
  priority: NOTICE
- rule: Crowd connected
  desc: An address that bears a tag.
  condition: evt.type = connect and fd.rnet = "127.77.0.0/16"
  output: "%fd.rip:%fd.rport"
  priority: NOTICE
`

var tagged = regexp.MustCompile(`act-\d{4}-exec\d+`)

// actOf is what a finding of the crowd's rules is about, empty if it is another rule's.
func actOf(f finding) string {
	switch f.Rule {
	case "Crowd opened":
		return strings.TrimPrefix(f.Output, "/acts/")
	case "Crowd connected":
		return f.Output
	case "Crowd executed": // the shell's arguments bear all of its container's tags, its own first
		return tagged.FindString(f.Output)
	}
	return ""
}
