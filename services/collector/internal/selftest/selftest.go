// Package selftest tries, when the collector starts, whether the kernel calls the programs that it took. In: attached
// programs. Out: for each, that a record of it came, that none came, or why it was not tried. It does for real what each
// program waits for, unprivileged and in ways that leave nothing behind: in memory files, in sockets that speak to
// themselves, in a child that is killed at once, in a directory that it makes and removes, and by calls whose arguments the
// kernel refuses.
//
// # Privileges
//
// None. What needs a capability is not tried, and reported as such.
package selftest

import (
	"errors"
	"fmt"
	"time"

	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
	"github.com/palisade-sec/palisade/services/collector/internal/ring"
)

// State is what is known of a program.
type State string

// The states.
const (
	// Fires: it made a record of what was done.
	Fires State = "fires"
	// Silent: what it waits for was done, and it made none.
	Silent State = "silent"
	// NotTried: whether it would is not known.
	NotTried State = "not tried"
)

// Result is a program's.
type Result struct {
	probe.Program
	State State
	// Why it was not tried.
	Why string
}

// Report is what came of a self-test.
type Report struct {
	Results []Result
	Own     ring.Own
	Took    time.Duration
}

// ErrSilent means that a program without which the collector is worthless is attached and never called.
var ErrSilent = errors.New("attached, but the kernel did not call its program")

// attempts are made before a program is called silent: the kernel leaves out one that was preempted just then.
const attempts = 3

// Run tries the programs of a set. No Reader may run meanwhile. It fails if a required hook is silent.
func Run(set *probe.Set, decoder record.Decoder) (report Report, err error) {
	begun := time.Now()
	restore, err := set.WantAll()
	if err != nil {
		return Report{}, err
	}
	window, err := ring.OpenWindow(set.Urgent(), set.Bulk())
	if err != nil {
		return Report{}, errors.Join(err, restore())
	}
	t := &tester{set: set, decoder: decoder, window: window, ground: newGround(set.Pins()),
		family: map[uint32]bool{}, from: ring.Boottime()}
	results, err := t.all()
	err = errors.Join(err, t.ground.remove(), window.Close(), restore())
	report = Report{Results: results, Own: ring.Own{Processes: t.family, From: t.from, To: ring.Boottime()}, Took: time.Since(begun)}
	return report, errors.Join(err, report.failure(set.Release()))
}

// failure is an error for the required hooks that are silent.
func (r Report) failure(release string) error {
	var errs []error
	for _, result := range r.Results {
		if result.State == Silent && result.Hook.Required {
			errs = append(errs, fmt.Errorf("hook %s on Linux %s: %w: another tool may have detached it, or this kernel is not supported: "+
				"boot another one, or choose a tier that works (probes.tier) and report this with the kernel's version",
				result.Hook.Name, release, ErrSilent))
		}
	}
	return errors.Join(errs...)
}

// String says in short what came of it.
func (r Report) String() string {
	return fmt.Sprintf("%d of %d programs fire, %d silent, %d not tried, %v", r.Count(Fires), len(r.Results), r.Count(Silent),
		r.Count(NotTried), r.Took.Round(time.Millisecond))
}

// Hooks makes one result of all programs of each hook, in their order: silent if one of them is, not tried if all are.
func (r Report) Hooks() []Result {
	weight := map[State]int{NotTried: 0, Fires: 1, Silent: 2}
	var hooks []Result
	for _, result := range r.Results {
		last := len(hooks) - 1
		if last < 0 || hooks[last].Hook.Program != result.Hook.Program {
			hooks = append(hooks, result)
		} else if weight[result.State] > weight[hooks[last].State] {
			hooks[last] = result
		}
	}
	return hooks
}

// Names are the hooks in a state.
func (r Report) Names(state State) []string {
	var names []string
	for _, hook := range r.Hooks() {
		if hook.State == state {
			names = append(names, hook.Hook.Name)
		}
	}
	return names
}

// Count says how many programs are in a state.
func (r Report) Count(state State) int {
	n := 0
	for _, result := range r.Results {
		if result.State == state {
			n++
		}
	}
	return n
}

// tester tries one program after the other.
type tester struct {
	set     *probe.Set
	decoder record.Decoder
	window  *ring.Window
	ground  *ground
	// family is this process and its children, by the pids that the kernel's own namespace has for them.
	family map[uint32]bool
	from   uint64 // in boot time
}

// all tries the life cycle of processes first: it tells who we are.
func (t *tester) all() ([]Result, error) {
	life, err := t.live()
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, program := range t.set.Programs() {
		result := Result{Program: program, State: NotTried}
		trial := trialOf(program)
		switch {
		case trial.why != "":
			result.Why = trial.why
		case trial.do == nil:
			result.State, result.Why = life.of(program.Hook.Name)
		case len(t.family) == 0:
			result.Why = life.why
		default:
			if result.State, result.Why, err = t.try(program, trial); err != nil {
				return results, err
			}
		}
		results = append(results, result)
	}
	return results, nil
}

// try does what a program waits for until it makes its record.
func (t *tester) try(program probe.Program, trial trial) (State, string, error) {
	for range attempts {
		if err := t.begin(); err != nil {
			return "", "", err
		}
		done := trial.do(t.ground)
		if t.saw(trial.kindOf(program)) {
			return Fires, "", nil
		}
		if done != nil {
			return NotTried, done.Error(), nil
		}
		if lost, err := t.set.NewShortfalls(); err != nil || lost {
			return NotTried, lostMeanwhile, err
		}
	}
	return Silent, "", nil
}

const lostMeanwhile = "records were lost meanwhile"

// begin makes nothing of what happened until now.
func (t *tester) begin() error {
	t.window.Forget()
	_, err := t.set.NewShortfalls() // who reports them has not begun, and begins by looking at all of them
	return err
}

// saw says whether the family made a record of the kind.
func (t *tester) saw(kind record.Kind) bool {
	for sample := range t.window.Samples() {
		event, of, err := t.decoder.Decode(sample)
		if err == nil && of == kind && t.family[event.GetProcess().GetPid()] {
			return true
		}
	}
	return false
}
