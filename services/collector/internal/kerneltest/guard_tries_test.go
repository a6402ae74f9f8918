package kerneltest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/guard"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

// tries is how often a forbidden thing is tried.
func tries() int { return scaled(10_000) }

// counted are the attempts that are made many times, and what tells of their denial.
var counted = []struct {
	attempt, class string
	guard          uint32
}{{"exec by identity", "exec_failed", 11}, {"write", "file_open", 14}, {"connect", "connect", 15}}

// TestGuardsHoldUnderManyTries counts: nothing gets through, every denial is told or counted, and another workload that does the
// same meanwhile succeeds each time.
func TestGuardsHoldUnderManyTries(t *testing.T) {
	w, dir := guarded(t)
	if !w.set.Tier().CanDeny() {
		t.Skipf("tier %s kills instead", w.set.Tier())
	}
	acceptAll(t, "127.66.0.1:4444")
	guilty, neighbour := newWorkload(t), newWorkload(t)
	w.guards(t, only(guilty, forbidden(t, dir))...)
	for _, tt := range counted {
		t.Run(tt.attempt, func(t *testing.T) {
			beside := w.startBeside(t, neighbour, tt.attempt, dir)
			pid, through := performIn(t, guilty.directory, "forbidden", tt.attempt, dir, strconv.Itoa(tries()))
			beside.check(t)
			if through != "0" {
				t.Errorf("%s of %d got through", through, tries())
			}
			ours := denialOf(pid, tt.class, tt.guard)
			w.awaitDenials(t, tt.class, ours)
			denial := w.await(t, "denial", ours)
			if denial.GetResult() != -int64(unix.EPERM) || !denial.GetResultKnown() || denial.GetKilled() {
				t.Errorf("denial = %v, want EPERM", denial)
			}
		})
	}
}

// only makes guards on everybody guards on one workload.
func only(w workload, guards []*collectorv1.Guard) []*collectorv1.Guard {
	for _, g := range guards {
		g.CgroupId = w.id
	}
	return guards
}

// denialOf matches what tells of a process's denied attempt. An exec is denied to the child that was forked for it.
func denialOf(pid uint32, class string, guard uint32) func(*eventv1.Event) bool {
	return func(e *eventv1.Event) bool {
		child := (class == "exec_failed" || class == "exec") && e.GetParent().GetPid() == pid
		return e.GetGuard() == guard && classOf(e) == class && (e.GetProcess().GetPid() == pid || child)
	}
}

// awaitDenials waits until all tries have been told, or counted as lost or dropped.
func (w *watcher) awaitDenials(t *testing.T, class string, ours func(*eventv1.Event) bool) {
	t.Helper()
	got := func() int { return w.count(ours) + int(short(t, w, class)) }
	for deadline := time.Now().Add(patience); got() < tries() && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("%s: %d denials told, %d counted, of %d", class, w.count(ours), short(t, w, class), tries())
	if got() != tries() {
		t.Errorf("%d denials told or counted, want %d", got(), tries())
	}
}

// acceptAll accepts connections until the test ends.
func acceptAll(t *testing.T, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
}

// beside is another workload that does what is forbidden to one, again and again.
type beside struct{ talker *talker }

func (w *watcher) startBeside(t *testing.T, in workload, attempt, dir string) beside {
	t.Helper()
	b := beside{talk(t, actor(t, "try-on", attempt, dir))}
	b.talker.expect(t, "ready")
	in.add(t, b.talker.pid)
	b.talker.say(t, "go")
	return b
}

// check ends it; it must have succeeded each time.
func (b beside) check(t *testing.T) {
	t.Helper()
	b.talker.say(t, "enough")
	var succeeded, tried int
	if _, err := fmt.Fscanf(b.talker.output, "%d of %d\n", &succeeded, &tried); err != nil {
		t.Fatal(err)
	}
	b.talker.end(t)
	if succeeded != tried || tried == 0 {
		t.Errorf("another workload succeeded %d times of %d, want each time", succeeded, tried)
	}
	t.Logf("another workload did the same %d times", succeeded)
}

// tryOn is its role: args are an attempt and a directory.
func tryOn(args []string) error {
	input := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err := input.ReadString('\n'); err != nil {
		return err
	}
	enough := make(chan error, 1)
	go func() {
		_, err := input.ReadString('\n')
		enough <- err
	}()
	// No faster than that: each connection keeps its port for a minute.
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for succeeded, tried := 0, 0; ; {
		select {
		case err := <-enough:
			fmt.Printf("%d of %d\n", succeeded, tried)
			return err
		case <-pace.C:
			tried++
			if attempts[args[0]](args[1]) == nil {
				succeeded++
			}
		}
	}
}

// guardAndWait is a collector that nobody reads from: args are a directory for pins, the one that the guards are about.
func guardAndWait(args []string) error {
	set, err := probe.Load(pinned(args[0]))
	if err != nil {
		return err
	}
	guards, err := forbiddenIn(args[1])
	if err != nil {
		return err
	}
	if _, err := guard.NewTable(set.Guards()).Apply(guards); err != nil {
		return err
	}
	return waitForInput(nil)
}

func pinned(directory string) probe.Config {
	cfg := unbounded()
	cfg.UrgentBytes, cfg.Pins = 16<<20, directory
	return cfg
}

// A collector is killed; what it guarded stays denied, and the next one tells what happened in between.
func TestGuardsHoldWhileTheCollectorIsDead(t *testing.T) {
	dir, pins := guardedFiles(t), mountPins(t)
	acceptAll(t, "127.66.0.1:4444")
	collector := talk(t, actor(t, "guard-and-wait", pins, dir))
	collector.expect(t, "ready")
	if err := collector.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = collector.cmd.Wait() // says that it was killed
	collector.ended = true
	made := tryWhileDead(t, dir)
	w := loadWith(t, pinned(pins))
	t.Cleanup(func() {
		// The kernel lets go of programs some time later, and the directory is to be removed now.
		if _, err := guard.NewTable(w.set.Guards()).Apply(nil); err != nil {
			t.Error(err)
		}
		if err := w.set.Remove(); err != nil {
			t.Error(err)
		}
	})
	if !w.set.Resumed() {
		t.Fatal("resumed = false, want the programs that guarded")
	}
	w.start(t)
	for _, m := range made {
		if m.class == "exec_failed" && !w.set.Tier().CanDeny() {
			m.class = "exec" // and then killed
		}
		event := w.await(t, m.class+" that was denied", denialOf(m.pid, m.class, m.guard))
		denies := w.set.Tier().CanDeny() || m.class == "dns_question"
		if event.GetKilled() == denies || denies != (event.GetResult() == -int64(unix.EPERM)) || event.GetRing() != 1 {
			t.Errorf("event = %v, want denied = %v, on the urgent ring", event, denies)
		}
	}
}

// attempted is a try that must not have succeeded.
type attempted struct {
	pid   uint32
	class string
	guard uint32
}

func tryWhileDead(t *testing.T, dir string) (made []attempted) {
	t.Helper()
	for _, try := range append(counted, struct {
		attempt, class string
		guard          uint32
	}{"lookup", "dns_question", 16}) {
		cmd := actor(t, "forbidden", try.attempt, dir, "1")
		out, err := cmd.CombinedOutput()
		if err == nil && string(out) != "0" {
			t.Errorf("%s: %s, want denied, or killed", try.attempt, out)
		}
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); err != nil && (!ok || status.Signal() != unix.SIGKILL) {
			t.Errorf("%s: %v: %s", try.attempt, err, out)
		}
		made = append(made, attempted{uint32(cmd.Process.Pid), try.class, try.guard})
	}
	return made
}
