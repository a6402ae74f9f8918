package admission

import (
	"fmt"
	"slices"
	"time"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/compliance"
)

// Question is what is known of a container that is about to be created.
type Question struct {
	Container string
	// Image is its reference and Digest what it stands for (sha256:…), each as the runtime has it, "" if it is not known.
	Image, Digest string
	// Layers are the diff ids of the image from the bottom up, nil if they are not known.
	Layers []string
	// Namespace is the pod's, "" outside Kubernetes.
	Namespace string
	Labels    map[string]string
	Host      string
	// Spec is the OCI runtime configuration (config.json) that the container gets.
	Spec []byte
	// Unsure are the parts of all this that a selector may ask for and that could not be found out.
	Unsure []Part
	// Report is of the image, nil if there is none. NoReport then says why.
	Report   *scannerv1.Report
	NoReport string
}

// Decision is the answer to a question.
type Decision struct {
	// Rule is the name of the one that matched, "" if none did: then the container is created and there are no reasons.
	Rule string
	// Effect is the strongest of the reasons' effects, Ignore without any.
	Effect Effect
	// Denied says that the container is not to be created. It is false for a Block in a dry run.
	Denied bool
	DryRun bool
	// Message is the rule's own.
	Message string
	// Thresholds are the rule's, for the text.
	Vulnerability *Vulnerability
	// Vulnerabilities, Failures and Untrusted are the reasons, worst first, and Unknown is what could not be judged.
	Vulnerabilities []Weighed
	Failures        []Failure
	Untrusted       string
	Unknown         []string
}

// Weighed is a vulnerability with what the rule makes of it: Alert or Block.
type Weighed struct {
	*scannerv1.Vulnerability
	Effect Effect
	// GraceUntil is when it begins to block, zero if it is not in its grace.
	GraceUntil time.Time
}

// Failure is a failed check with what the rule makes of it: Alert or Block.
type Failure struct {
	compliance.Failure
	Effect Effect
}

// Decide answers a question at a time.
func (p *Policy) Decide(q *Question, now time.Time) Decision {
	r, unsure := p.first(q)
	if r == nil {
		return Decision{Effect: Ignore, DryRun: p.DryRun}
	}
	d := Decision{Rule: r.Name, Effect: Ignore, DryRun: p.DryRun, Message: r.Message, Vulnerability: &r.Vulnerability, Unknown: unsure}
	d.weigh(&r.Vulnerability, q, now)
	d.check(&r.Compliance, q.Spec)
	d.trust(&r.Trusted, q)
	if len(d.Unknown) > 0 {
		d.raise(Alert)
		if r.DenyOnError {
			d.raise(Block)
		}
	}
	d.Denied = d.Effect == Block && !p.DryRun
	return d
}

// first is the rule that counts, nil if there is none, and why that is not certain. A rule that asks for something that is not known
// counts if it is one that denies what cannot be judged; otherwise the next one is looked at.
func (p *Policy) first(q *Question) (*Rule, []string) {
	for i := range p.Rules {
		r := &p.Rules[i]
		matches, lacking := r.Match.matches(q)
		switch {
		case lacking != "" && r.DenyOnError:
			return r, []string{fmt.Sprintf("the container's %s, so whether the rule is meant for it", lacking)}
		case lacking == "" && matches:
			return r, nil
		}
	}
	return nil, nil
}

// raise makes the effect at least this one.
func (d *Decision) raise(effect Effect) {
	if order(effect) > order(d.Effect) {
		d.Effect = effect
	}
}

func order(effect Effect) int { return slices.Index([]Effect{Ignore, Alert, Block}, effect) }

// trust asks whether the image may be used at all.
func (d *Decision) trust(t *Trusted, q *Question) {
	if !t.active() || len(t.Images) > 0 && q.Image != "" && fits(t.Images, q.Image) || slices.Contains(t.Digests, q.Digest) {
		return
	}
	based := func(base []string) bool {
		return len(q.Layers) >= len(base) && slices.Equal(q.Layers[:len(base)], base)
	}
	if slices.ContainsFunc(t.BaseLayers, based) {
		return
	}
	switch {
	case q.Image == "" && q.Digest == "":
		d.Unknown = append(d.Unknown, "which image this is, so whether it is a trusted one")
		return
	case len(t.BaseLayers) > 0 && q.Layers == nil:
		d.Unknown = append(d.Unknown, "which layers the image has, so whether it is built on a trusted one")
		return
	}
	d.Untrusted = fmt.Sprintf("image %s is not a trusted one", nameOf(q))
	d.raise(t.Effect)
}

// nameOf is the image for people.
func nameOf(q *Question) string {
	switch {
	case q.Image == "" && q.Digest == "":
		return "(unknown)"
	case q.Image == "":
		return q.Digest
	}
	return q.Image
}

// effect is what a failure of the check has.
func (c *Compliance) effect(check compliance.Check) Effect {
	if effect, ok := c.Effects[check.ID]; ok {
		return effect
	}
	reaches := func(threshold string) bool {
		return threshold != "" && slices.Index(severityWords, check.Severity) >= slices.Index(severityWords, threshold)
	}
	switch {
	case reaches(c.Block):
		return Block
	case reaches(c.Alert):
		return Alert
	}
	return Ignore
}

// check holds the configuration against the rule's checks.
func (d *Decision) check(c *Compliance, spec []byte) {
	if c.set == nil {
		return
	}
	failures, err := c.set.Evaluate(spec)
	if err != nil {
		d.Unknown = append(d.Unknown, fmt.Sprintf("whether the container's configuration is in order: %v", err))
		return
	}
	for _, failure := range failures {
		d.Failures = append(d.Failures, Failure{Failure: failure, Effect: c.effect(failure.Check)})
		d.raise(c.effect(failure.Check))
	}
	slices.SortStableFunc(d.Failures, func(a, b Failure) int { return order(b.Effect) - order(a.Effect) })
}
