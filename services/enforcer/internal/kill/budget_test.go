package kill

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// A container that burns its budget with offenders of no worth does not save the offender in another.
func TestBudgetIsPerRuleAndContainer(t *testing.T) {
	now := time.Now()
	k := newKiller(t, &memory{}, func(c *Config) { c.PerRule, c.Total = 2, 4 }, WithClock(func() time.Time { return now }))
	steps := []struct{ container, spent string }{
		{container: "noisy"}, {container: "noisy"},
		{container: "noisy", spent: "of the rule in this container"},
		{container: "quiet"}, {container: "quiet"},
		{container: "third", spent: "of the node"},
	}
	for i, step := range steps {
		target, start := victim(t, "sleep", true)
		req := k.accuse(target.Process.Pid, start)
		req.ContainerID = step.container
		got := k.Kill(req)
		if !strings.Contains(got.Detail, step.spent) || (got.Reason == ReasonBudget) != (step.spent != "") {
			t.Errorf("step %d, container %s: Kill = %+v, want spent %q", i, step.container, got, step.spent)
		}
		if alive(t, target.Process.Pid) != (step.spent != "") {
			t.Errorf("step %d, container %s: the process's life says otherwise than %+v", i, step.container, got)
		}
	}
}

func TestBudgetIsBoundedAndForgets(t *testing.T) {
	now := time.Now()
	b := newBudget(Config{PerRule: 1, Total: 60_000})
	for i := range maxShares + 100 {
		b.take(share{rule: "r", container: strconv.Itoa(i)}, now)
	}
	if got := len(b.shares); got != maxShares+1 {
		t.Errorf("%d limiters, want %d and the shared one", got, maxShares)
	}
	if spent := b.take(share{rule: "r", container: "beyond"}, now); spent == "" {
		t.Error("take beyond the bound succeeded, want the shared budget spent")
	}
	if spent := b.take(share{rule: "r", container: "0"}, now.Add(time.Second)); spent == "" {
		t.Error("take from a spent budget succeeded")
	}
	b.take(share{rule: "r", container: "late"}, now.Add(idle))
	if got := len(b.shares); got != 1 {
		t.Errorf("%d limiters after a minute of rest, want the one just used", got)
	}
}

// What kills nothing leaves nothing behind, so names alone cannot fill the map.
func TestBudgetRemembersOnlyKills(t *testing.T) {
	now := time.Now()
	b := newBudget(Config{PerRule: 1, Total: 1})
	for i := range 100 {
		b.take(share{rule: strconv.Itoa(i)}, now)
	}
	if got := len(b.shares); got != 1 {
		t.Errorf("%d limiters after one kill, want 1", got)
	}
}
