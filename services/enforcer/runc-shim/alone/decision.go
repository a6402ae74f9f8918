package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/palisade-sec/palisade/internal/admission"
	"github.com/palisade-sec/palisade/internal/admission/kept"
)

// decision is one, as far as it has come.
type decision struct {
	store             *kept.Store
	container, bundle string

	mu     sync.Mutex
	policy *admission.Policy // nil until it is read; guarded by mu
	line   *kept.Line        // nil until it is decided; guarded by mu
}

// find decides.
func (d *decision) find(now time.Time) {
	line := &kept.Line{Time: now, Container: d.container, Effect: string(admission.Ignore)}
	policy, err := d.store.Policy()
	if err != nil && !errors.Is(err, kept.ErrNone) {
		line.Effect, line.Fault = string(admission.Alert), err.Error()
	}
	d.mu.Lock()
	d.policy = policy
	d.mu.Unlock()
	if policy != nil {
		d.judge(policy, line, now)
	}
	d.mu.Lock()
	d.line = line
	d.mu.Unlock()
}

// judge asks the policy.
func (d *decision) judge(policy *admission.Policy, line *kept.Line, now time.Time) {
	spec, layers := read(d.bundle)
	q := &admission.Question{
		Container: d.container, Spec: spec, NoReport: "the enforcer does not answer, and has not kept what is known of the image",
		// Only runtimes know them, and only the enforcer asks those.
		Unsure: []admission.Part{admission.PartNamespace, admission.PartLabels},
	}
	if host, err := os.Hostname(); err == nil {
		q.Host = host
	}
	if image, err := d.store.Image(kept.Key(layers)); err == nil && len(layers) > 0 {
		q.Image, q.Digest, q.Layers, q.Report = image.GetImage(), image.GetDigest(), image.GetDiffIds(), image.GetReport()
	}
	if q.Image == "" {
		q.Unsure = append(q.Unsure, admission.PartImage)
	}
	decided := policy.Decide(q, now)
	line.Image, line.Digest, line.Rule, line.Effect = q.Image, q.Digest, decided.Rule, string(decided.Effect)
	line.Denied, line.DryRun, line.Text = decided.Denied, decided.DryRun, decided.Text(q)
}

// conclude leaves the line and returns why the container is refused.
func (d *decision) conclude() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	line := d.line
	if line == nil {
		line = late(d.policy, d.container)
	}
	_ = d.store.Append(*line) // then it is a container of which the enforcer knows nothing, and that is found
	if !line.Denied {
		return ""
	}
	return line.Text
}

// late is what follows if the time is up: nothing is known, so a policy with a rule that refuses what cannot be judged refuses.
func late(policy *admission.Policy, container string) *kept.Line {
	line := &kept.Line{Time: time.Now(), Container: container, Effect: string(admission.Alert), Fault: "the time to decide was up"}
	if policy == nil {
		return line
	}
	line.DryRun = policy.DryRun
	i := slices.IndexFunc(policy.Rules, func(r admission.Rule) bool { return r.DenyOnError })
	if i >= 0 {
		line.Rule, line.Effect, line.Denied = policy.Rules[i].Name, string(admission.Block), !policy.DryRun
		line.Text = fmt.Sprintf("Palisade refuses this container: the enforcer does not answer, there was no time to judge it without, "+
			"and rule %q of the admission policy refuses what cannot be judged\n  try again, and see palisade status enforcer", line.Rule)
	}
	return line
}
