// Package kill ends one process, and never another one.
//
// In: who is to be killed (boot, pid, start time) and why. Out: what happened, and a record of it in the audit log,
// on disk before the signal is sent. A request is an accusation, not an order: it is refused if the pid is another
// process by now, if the never-kill list covers the process, or if the budget is spent.
package kill

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/palisade-sec/palisade/services/enforcer/internal/audit"
)

// Config is what may be killed, and how many of it.
type Config struct {
	// AllowHost also kills processes in the host's pid namespace: the host's own, and those of containers that
	// share it.
	AllowHost bool `yaml:"allow_host"`
	// PerRule bounds the kills a minute that one rule has in one container; what is in no container counts as one.
	PerRule int `yaml:"per_rule_per_minute"`
	// Total bounds the kills a minute on the node, whatever the rule and container.
	Total int `yaml:"total_per_minute"`
	// Confirm is how long to wait for the process to end, for the answer.
	Confirm time.Duration `yaml:"confirm"`
}

// DefaultConfig leaves the host alone.
func DefaultConfig() Config {
	return Config{PerRule: 60, Total: 300, Confirm: 500 * time.Millisecond}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	const most = 60_000 // one a millisecond
	if c.PerRule < 1 || c.PerRule > most {
		errs = append(errs, fmt.Errorf("kill.per_rule_per_minute: %d is not within 1 and %d", c.PerRule, most))
	}
	if c.Total < 1 || c.Total > most {
		errs = append(errs, fmt.Errorf("kill.total_per_minute: %d is not within 1 and %d", c.Total, most))
	}
	if c.Confirm < 0 || c.Confirm > 10*time.Second {
		errs = append(errs, fmt.Errorf("kill.confirm: %v is not within 0s and 10s", c.Confirm))
	}
	return errors.Join(errs...)
}

// Request accuses a process.
type Request struct {
	BootID          string
	PID             uint32
	StartBoottimeNs uint64
	// The rest is for the audit log; Rule and ContainerID are also whose budget is spent.
	Rule, Effect, FindingID, ContainerID string
	PeerUID, PeerPID                     uint32
}

// Outcome is how it went.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"
	Refused Outcome = "refused"
	Gone    Outcome = "gone"
	Failed  Outcome = "failed"
)

// Reason says why not, in a closed set for metrics; empty if it was done.
type Reason string

// The reasons.
const (
	ReasonRequest   Reason = "request"   // incomplete, or of another boot
	ReasonIdentity  Reason = "identity"  // the pid is another process's by now
	ReasonProtected Reason = "protected" // on the never-kill list
	ReasonBudget    Reason = "budget"
	ReasonGone      Reason = "gone"
	ReasonAudit     Reason = "audit" // the record could not be written
	ReasonKernel    Reason = "kernel"
)

// Result is what happened.
type Result struct {
	Outcome Outcome
	Reason  Reason
	// Detail is one line for people.
	Detail string
	Time   time.Time
}

// Auditor keeps records. Append returns once the record is on disk.
type Auditor interface {
	Append(audit.Record) error
}

// Killer kills. It is safe for concurrent use.
type Killer struct {
	cfg    Config
	audit  Auditor
	log    *slog.Logger
	bootID string
	budget *budget
	now    func() time.Time

	// refusals bounds the records of what was not done, so that a flood of them does not push acts out of the log.
	refusals   *rate.Limiter
	suppressed atomic.Uint64
}

// Option is a seam for tests.
type Option func(*Killer)

// WithClock replaces the clock that budgets and records go by.
func WithClock(now func() time.Time) Option { return func(k *Killer) { k.now = now } }

// New returns a Killer for this boot.
func New(cfg Config, auditor Auditor, log *slog.Logger, options ...Option) (*Killer, error) {
	bootID, err := readBootID()
	if err != nil {
		return nil, err
	}
	k := &Killer{
		cfg: cfg, audit: auditor, log: log, bootID: bootID, budget: newBudget(cfg), now: time.Now,
		refusals: rate.NewLimiter(10, 100),
	}
	for _, option := range options {
		option(k)
	}
	return k, nil
}

// Kill judges the request, records the act, acts, and records how it went.
func (k *Killer) Kill(req Request) Result {
	trial := trial{fd: noPidfd}
	defer func() { _ = trial.fd.Close() }() // nothing depends on it
	result := k.judge(req, &trial)
	if trial.accepted {
		result = k.act(trial.fd)
	}
	result.Time = k.now()
	record := k.record(req, trial.comm)
	record.Phase, record.Outcome, record.Detail = audit.PhaseAfter, string(result.Outcome), result.Detail
	if !trial.accepted {
		record.Phase = audit.PhaseRefused
		if !k.refusals.AllowN(result.Time, 1) {
			k.suppressed.Add(1)
			return result
		}
	}
	record.Suppressed = k.suppressed.Swap(0)
	if err := k.audit.Append(record); err != nil {
		k.suppressed.Add(record.Suppressed)
		k.log.Error("Audit log cannot be written", "err", err, "rule", audit.Clean(req.Rule, 64), "pid", req.PID)
	}
	return result
}

// trial is what judging a request found out.
type trial struct {
	fd   pidfd
	comm string
	// accepted means that the record of the act is on disk.
	accepted bool
}

// judge goes as far as the record that announces the act. The result counts only if the request is not accepted.
func (k *Killer) judge(req Request, t *trial) Result {
	if detail := k.incomplete(req); detail != "" {
		return Result{Outcome: Refused, Reason: ReasonRequest, Detail: detail}
	}
	fd, err := openPidfd(int(req.PID))
	if err != nil {
		return failure(err)
	}
	t.fd = fd
	target, err := k.identify(fd, req)
	if err != nil {
		return failure(err)
	}
	t.comm = target.comm
	if target.startTicks != req.StartBoottimeNs/tickNs {
		return Result{Outcome: Refused, Reason: ReasonIdentity, Detail: "the pid is another process by now"}
	}
	// Read anew each time, since a parent may die and its pid be given to a process in a container.
	self, err := readIdentity(unix.Getpid())
	if err != nil {
		return Result{Outcome: Failed, Reason: ReasonKernel, Detail: "not killed: read own identity: " + err.Error()}
	}
	judged := subject{identity: target, self: self, callerPID: req.PeerPID, allowHost: k.cfg.AllowHost}
	if reason := refusal(judged); reason != "" {
		return Result{Outcome: Refused, Reason: ReasonProtected, Detail: "never killed: " + reason}
	}
	if spent := k.budget.take(share{req.Rule, req.ContainerID}, k.now()); spent != "" {
		return Result{Outcome: Refused, Reason: ReasonBudget, Detail: spent}
	}
	record := k.record(req, target.comm)
	record.Phase = audit.PhaseBefore
	if err := k.audit.Append(record); err != nil {
		return Result{Outcome: Failed, Reason: ReasonAudit, Detail: "not killed: " + err.Error()}
	}
	t.accepted = true
	return Result{}
}

// incomplete says what a request lacks, or "".
func (k *Killer) incomplete(req Request) string {
	switch {
	case req.BootID != k.bootID:
		return "the request is of another boot"
	case req.PID == 0 || req.PID > math.MaxInt32:
		return "the request names no process"
	case req.StartBoottimeNs == 0:
		return "the request has no start time: a pid alone is no identity"
	case req.Rule == "":
		return "the request names no rule"
	}
	return ""
}

// identify reads who the process is. The order matters: the pid cannot be given to another process before this one is
// dead, so if it is alive after the reading, then what was read is about it.
func (k *Killer) identify(fd pidfd, req Request) (identity, error) {
	target, err := readIdentity(int(req.PID))
	if err != nil {
		return identity{}, err
	}
	dead, err := fd.exited(0)
	if err != nil {
		return identity{}, err
	}
	if dead {
		return identity{}, unix.ESRCH
	}
	return target, nil
}

func (k *Killer) act(fd pidfd) Result {
	if err := fd.kill(); err != nil {
		return failure(err)
	}
	dead, err := fd.exited(k.cfg.Confirm)
	switch {
	case err != nil:
		return Result{Outcome: Done, Detail: "killed; not confirmed: " + err.Error()}
	case !dead:
		// A process with SIGKILL pending runs no further instruction of its own; the kernel may still hold it.
		return Result{Outcome: Done, Detail: fmt.Sprintf("killed; not ended after %v", k.cfg.Confirm)}
	}
	return Result{Outcome: Done, Detail: "killed"}
}

// failure tells a process that has ended by itself from a kernel that says no.
func failure(err error) Result {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
		return Result{Outcome: Gone, Reason: ReasonGone, Detail: "the process had ended"}
	}
	return Result{Outcome: Failed, Reason: ReasonKernel, Detail: err.Error()}
}

func (k *Killer) record(req Request, comm string) audit.Record {
	return audit.Record{
		Time: k.now().UTC(), Act: "kill", Comm: comm,
		PID: req.PID, StartBoottimeNs: req.StartBoottimeNs,
		Rule: req.Rule, Effect: req.Effect, FindingID: req.FindingID, ContainerID: req.ContainerID,
		PeerUID: req.PeerUID, PeerPID: req.PeerPID,
	}
}
