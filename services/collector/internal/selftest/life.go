package selftest

import (
	"crypto/rand"
	"fmt"
	"os/exec"
	"slices"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// life is what was seen of a child's.
type life struct {
	seen map[string]bool // by hook
	// why nothing can be said of what was not seen; empty if it is silent.
	why string
}

func (l life) of(hook string) (State, string) {
	switch {
	case l.seen[hook]:
		return Fires, ""
	case l.why != "":
		return NotTried, l.why
	}
	return Silent, ""
}

// live starts children until all of their life was seen. The records of their execs say which process this one is, whatever
// pid namespace it lives in.
func (t *tester) live() (life, error) {
	all := life{seen: map[string]bool{}}
	for range attempts {
		if err := t.begin(); err != nil {
			return all, err
		}
		if _, err := t.set.TakeSign(probe.SignExecChecked); err != nil {
			return all, err
		}
		mark := rand.Text()
		if err := startAndKill(mark); err != nil {
			all.why = fmt.Sprintf("no process could be started: %v", err)
			return all, nil
		}
		t.watchLife(mark, all.seen)
		checked, err := t.set.TakeSign(probe.SignExecChecked)
		if err != nil {
			return all, err
		}
		all.seen["bprm_check_security"] = all.seen["bprm_check_security"] || checked
		lost, err := t.set.NewShortfalls()
		if err != nil {
			return all, err
		}
		if all.why = ""; lost {
			all.why = lostMeanwhile
		}
		if all.seen["sched_process_exec"] && all.seen["sched_process_fork"] && all.seen["sched_process_exit"] && all.seen["signal_generate"] {
			break
		}
	}
	if len(t.family) == 0 && all.why == "" {
		all.why = "who this process is could not be learned, because its child's exec was not seen"
	}
	return all, nil
}

// startAndKill runs this program once more, as long as it takes to kill it. It would not get far: there is no such flag.
func startAndKill(mark string) error {
	child := exec.Command("/proc/self/exe", "-self-test-"+mark)
	child.Env = []string{}
	if err := child.Start(); err != nil { // which returns once it has become the program
		return err
	}
	if err := child.Process.Kill(); err != nil {
		return err
	}
	_ = child.Wait() // it was killed
	return nil
}

// watchLife notes what was seen of the child with the mark.
func (t *tester) watchLife(mark string, seen map[string]bool) {
	var self, child uint32
	var events []*eventv1.Event
	for sample := range t.window.Samples() {
		event, kind, err := t.decoder.Decode(sample)
		if err != nil || kind != record.Exec && kind != record.Fork && kind != record.Exit && kind != record.Signal {
			continue
		}
		events = append(events, event)
		if slices.Contains(event.GetExec().GetArgv(), "-self-test-"+mark) {
			self, child = event.GetParent().GetPid(), event.GetProcess().GetPid()
		}
	}
	if child == 0 {
		return
	}
	t.family[self], t.family[child] = true, true
	for _, event := range events {
		pid := event.GetProcess().GetPid()
		switch {
		case event.GetExec() != nil && pid == child:
			seen["sched_process_exec"] = true
		case event.GetFork().GetChild().GetPid() == child:
			seen["sched_process_fork"] = true
		case event.GetExit() != nil && pid == child:
			seen["sched_process_exit"] = true
		case event.GetSignal().GetTarget().GetPid() == child:
			seen["signal_generate"] = true
		}
	}
}
