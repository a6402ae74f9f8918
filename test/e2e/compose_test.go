package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/dockertest"
	"github.com/palisade-sec/palisade/internal/recording"
)

// TestComposePinsOutliveTheCollector runs deploy/compose on a Docker of its own and kills the collector's container again and
// again, while programs are executed on the host: it comes back, takes over what is pinned, and no exec is missing. Then it is
// made anew, as an upgrade does. What stays after `compose down` goes with `palisade remove`.
func TestComposePinsOutliveTheCollector(t *testing.T) {
	c := layCompose(t)
	before := takeInventory(t).programs
	c.project.Do(t, "up", "--detach", "--no-build", "pins", "collector", "correlator")
	c.awaitStart(t, 1)
	c.checkPrivileges(t)

	recorder := c.record(t)
	load := startExecs(t.Context())
	const kills = 4
	for n := range kills {
		time.Sleep(150 * time.Millisecond) // of load
		c.kill(t)
		c.awaitStart(t, n+2)
	}
	c.project.Do(t, "up", "--detach", "--no-build", "--no-deps", "--force-recreate", "collector")
	c.awaitStart(t, 1)                                                         // of the new container
	c.project.Do(t, "run", "--rm", "--no-deps", "pins", "pins", "/sys/fs/bpf") // as after a reboot: there is nothing to hand over
	time.Sleep(150 * time.Millisecond)
	issued := load.stop(t)
	recorder.check(t, issued)

	c.project.Do(t, "down", "--timeout", "5")
	if left := difference(takeInventory(t).programs, before); len(left) == 0 {
		t.Error("no program is left in the kernel after compose down: they were not pinned")
	}
	out, err := exec.Command(filepath.Join(binaries(t), "palisade"), "remove", "--pins", c.pins).CombinedOutput()
	if err != nil || !strings.Contains(string(out), c.directory()) {
		t.Errorf("palisade remove --pins %s: %v: %s", c.pins, err, out)
	}
	if _, err := os.Stat(c.directory()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", c.directory(), err)
	}
	if !eventually(10*time.Second, func() bool { return len(difference(takeInventory(t).programs, before)) == 0 }) {
		t.Errorf("programs are left in the kernel: %v", difference(takeInventory(t).programs, before))
	}
}

// composed is deploy/compose on a Docker of the test's, with a directory of its own for pins.
type composed struct {
	daemon  *dockertest.Daemon
	project *dockertest.Project
	pins    string
}

func layCompose(t *testing.T) *composed {
	t.Helper()
	images := filepath.Join(binaries(t), "image")
	if _, err := os.Stat(filepath.Join(images, "collector.tar")); err != nil {
		t.Skipf("no images: make image: %v", err)
	}
	c := &composed{daemon: dockertest.Start(t), pins: fmt.Sprintf("compose-test-%d", os.Getpid())}
	mountBPFFS(t)
	t.Cleanup(func() { _ = os.RemoveAll(c.directory()) }) // what a failed test has left
	override := filepath.Join(t.TempDir(), "pins.yaml")
	words := "services:\n"
	for _, service := range []string{"pins", "collector"} {
		words += "  " + service + ": {volumes: [\"" + c.directory() + ":/sys/fs/bpf\"]}\n"
	}
	if err := os.WriteFile(override, []byte(words), 0o600); err != nil {
		t.Fatal(err)
	}
	c.project = c.daemon.Compose(t, "palisade", "../../deploy/compose/compose.yaml", override)
	for _, process := range []string{"collector", "correlator", "enforcer"} {
		c.daemon.Docker(t, "build", "--quiet", "--file", "../../deploy/Dockerfile", "--target", process, "--tag", "palisade/"+process+":dev", images)
	}
	return c
}

// binaries is where the built ones are.
func binaries(t *testing.T) string {
	t.Helper()
	path := os.Getenv("PALISADE_BIN")
	if path == "" {
		path = "../../bin"
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return absolute
}

// mountBPFFS gives the host a BPF file system where compose.yaml wants one, for as long as the test runs, if it has none.
func mountBPFFS(t *testing.T) {
	t.Helper()
	const path = "/sys/fs/bpf"
	var at unix.Statfs_t
	if err := unix.Statfs(path, &at); err != nil {
		t.Fatal(err)
	}
	if at.Type == unix.BPF_FS_MAGIC {
		return
	}
	if err := unix.Mount("bpf", path, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
}

func (c *composed) directory() string { return "/sys/fs/bpf/palisade/" + c.pins }

// awaitStart waits until the collector's container has seen so many starts of the collector. All but a first on this host must
// have taken over what was pinned.
func (c *composed) awaitStart(t *testing.T, starts int) {
	t.Helper()
	var resumed []bool
	if !eventually(60*time.Second, func() bool { resumed = c.starts(t); return len(resumed) >= starts }) {
		t.Fatalf("the collector started %d times, want %d:\n%s", len(resumed), starts, tail(c.project.Do(t, "logs", "collector", "pins"), 30))
	}
	for n, resumed := range resumed[1:] {
		if !resumed {
			t.Errorf("start %d of the collector did not take over what was pinned", n+2)
		}
	}
}

// starts are those that the log of the collector's container tells of, and whether each took over what was pinned.
func (c *composed) starts(t *testing.T) (resumed []bool) {
	t.Helper()
	for line := range strings.Lines(c.project.Do(t, "logs", "--no-log-prefix", "collector")) {
		var said struct {
			Msg     string
			Resumed bool
		}
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "Attached probes" {
			resumed = append(resumed, said.Resumed)
		}
	}
	return resumed
}

// kill sends SIGKILL to the collector itself: to Docker's own kill it would stay dead.
func (c *composed) kill(t *testing.T) {
	t.Helper()
	id := c.project.Do(t, "ps", "--quiet", "collector")
	pid, err := strconv.Atoi(c.daemon.Docker(t, "inspect", "--format", "{{.State.Pid}}", id))
	if err != nil || pid == 0 {
		t.Fatalf("the collector's container has pid %d: %v", pid, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// checkPrivileges looks at what Docker gave the containers, and at what the collector has left of it.
func (c *composed) checkPrivileges(t *testing.T) {
	t.Helper()
	for id := range strings.FieldsSeq(c.project.Do(t, "ps", "--quiet")) {
		if got := c.daemon.Docker(t, "inspect", "--format", "{{.HostConfig.Privileged}} {{.HostConfig.CapDrop}}", id); got != "false [ALL]" {
			t.Errorf("container %s: privileged and dropped capabilities are %q, want false and all", id, got)
		}
	}
	var directory unix.Stat_t
	if err := unix.Stat(c.directory(), &directory); err != nil || directory.Uid != 10001 || directory.Mode&0o777 != 0o700 {
		t.Errorf("%s belongs to uid %d with mode %o, want the collector's and 700: %v", c.directory(), directory.Uid, directory.Mode&0o777, err)
	}
}

// recorder is a running `palisade record`, on the host.
type recorder struct {
	cmd  *exec.Cmd
	said *output
	file string
}

func (c *composed) record(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{said: &output{}, file: filepath.Join(t.TempDir(), "compose.rec")}
	r.cmd = exec.Command(filepath.Join(binaries(t), "palisade"), "record", r.file, "--run", c.project.Volume(t, "sockets"))
	r.cmd.Stderr = r.said
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
	})
	if !eventually(30*time.Second, func() bool { info, err := os.Stat(r.file); return err == nil && info.Size() > 16 }) {
		t.Fatalf("nothing is recorded: %s", r.said)
	}
	return r
}

// check waits until the recording has every exec, ends it, and counts: each has one place on a ring, and none was lost.
func (r *recorder) check(t *testing.T, issued int) {
	t.Helper()
	if !eventually(30*time.Second, func() bool { places, _ := r.read(t); return len(places) >= issued }) {
		t.Errorf("some of %d execs are missing for good: %s", issued, r.said)
	}
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("palisade record: %v: %s", err, r.said)
	}
	places, lost := r.read(t)
	var wrong []int
	for number := range issued {
		if len(places[number]) != 1 {
			wrong = append(wrong, number)
		}
	}
	if len(wrong) > 0 {
		t.Errorf("%d of %d execs have not one place on a ring: %v and so on", len(wrong), issued, wrong[:min(len(wrong), 20)])
	}
	if len(lost) > 0 {
		t.Errorf("lost: %v, want nothing", lost)
	}
	t.Logf("%d execs", issued)
}

// execMark is the argument that the load's programs are told by; their number follows.
const execMark = "palisade-compose-load"

// read returns the places of the load's execs, by their number, and what was lost of execs; of a file that is still written, what
// is in it so far.
func (r *recorder) read(t *testing.T) (places map[int]map[string]bool, lost []string) {
	t.Helper()
	file, err := os.Open(r.file)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	in, err := recording.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	places = map[int]map[string]bool{}
	for {
		entry, err := in.Next()
		var damage *recording.DamageError
		if errors.Is(err, io.EOF) || errors.As(err, &damage) {
			return places, lost
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range entry.GetBatch().GetBatch().GetEvents() {
			if loss := event.GetLoss(); loss.GetClass() == "exec" || loss.GetClass() == "any" {
				lost = append(lost, loss.String())
			}
			argv := event.GetExec().GetArgv()
			if len(argv) != 3 || argv[1] != execMark {
				continue
			}
			number, _ := strconv.Atoi(argv[2])
			if places[number] == nil {
				places[number] = map[string]bool{}
			}
			places[number][fmt.Sprint(entry.GetBatch().GetBatch().GetEpoch(), event.GetRing(), event.GetPosition())] = true
		}
	}
}

// execs runs one program after the other, and counts them.
type execs struct {
	halt   context.CancelFunc
	issued chan int
	failed error
}

func startExecs(ctx context.Context) *execs {
	ctx, halt := context.WithCancel(ctx)
	l := &execs{halt: halt, issued: make(chan int, 1)}
	go func() {
		issued := 0
		pace := time.NewTicker(4 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil && l.failed == nil {
			<-pace.C
			l.failed = exec.Command("/bin/true", execMark, strconv.Itoa(issued)).Run() // not with the context: what has begun counts
			issued++
		}
		l.issued <- issued
	}()
	return l
}

func (l *execs) stop(t *testing.T) (issued int) {
	t.Helper()
	l.halt()
	issued = <-l.issued
	if l.failed != nil {
		t.Fatal(l.failed)
	}
	return issued
}
