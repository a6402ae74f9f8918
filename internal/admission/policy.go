// Package admission decides whether a container may be created.
//
// In: a policy, which is a YAML file of people's (docs/admission.md), and a question: what is known of a container that an
// engine is about to create. Out: a decision with its reasons, and the text for who wanted the container. It reads no file, asks nobody
// and looks at no clock, so the same question always has the same answer, whoever asks it: the enforcer, or on a bad day
// the one who stands in for it.
package admission

import (
	"time"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/compliance"
)

// Effect is what follows from a reason.
type Effect string

// The effects, weakest first.
const (
	Ignore Effect = "ignore"
	// Alert creates the container and tells of it.
	Alert Effect = "alert"
	// Block refuses it.
	Block Effect = "block"
)

// Policy is a file's content, checked. It is not changed after Parse, so many may use it at once.
type Policy struct {
	// Serial orders policies of one source: a smaller one never takes a greater one's place. Zero if the file gives none.
	Serial int
	// DryRun creates what would be refused, and says so.
	DryRun bool
	// Rules in their order. The first that matches is the only one that counts; a container that none matches is created.
	Rules []Rule

	checks map[string]compliance.Check
}

// Rule is what is asked of the containers that it matches.
type Rule struct {
	Name    string
	Match   Selector
	Message string
	// DenyOnError refuses what cannot be judged: the image is unknown or has not been scanned, a check fails to evaluate, time is up.
	DenyOnError   bool
	Vulnerability Vulnerability
	Compliance    Compliance
	Trusted       Trusted
}

// Selector matches a container if each of its parts that is not empty does. The words are shell patterns (internal/glob).
type Selector struct {
	Images, Namespaces, Hosts []string
	// Labels are all to be there, with a value that matches.
	Labels map[string]string
	// Not, if it matches, undoes the match.
	Not *Selector
}

// Vulnerability is what a rule says of an image's vulnerabilities. The zero value ignores them.
type Vulnerability struct {
	// Alert and Block are the severities from which on there is an effect; UNSPECIFIED is never.
	Alert, Block scannerv1.Severity
	// OnlyFixed ignores what has no fix.
	OnlyFixed bool
	// Unrated is the severity of what nobody has rated. UNSPECIFIED lets it reach no threshold.
	Unrated scannerv1.Severity
	// GraceDays is how long after the fix is known a vulnerability of a severity does not block yet. It alerts meanwhile.
	GraceDays map[scannerv1.Severity]int
	// NoGrace are risk factors that cancel the grace.
	NoGrace    []string
	Exceptions []Exception
}

// Exception ignores a vulnerability until it expires.
type Exception struct {
	// ID is a CVE or another id of the vulnerability, Package a pattern of names; at least one is set, and all that are set must match.
	ID, Package string
	Reason      string
	Until       time.Time
}

// Compliance is what a rule says of the checks of package compliance. The zero value ignores them.
type Compliance struct {
	// Alert and Block are the severities of checks from which on a failure has an effect; "" is never.
	Alert, Block string
	// Effects are those of single checks, which come before the thresholds.
	Effects map[string]Effect
	set     *compliance.Set
}

// Trusted is which images may be used at all. Without any list, all may.
type Trusted struct {
	Effect Effect
	// Images are patterns of references, Digests and BaseLayers are digests: of the image, and of its lowest layers' content (an OCI image's
	// diff ids), from the bottom up. An image that any of them fits is trusted.
	Images, Digests []string
	BaseLayers      [][]string
}

// active says whether anything is asked for.
func (v *Vulnerability) active() bool {
	return v.Alert != scannerv1.Severity_SEVERITY_UNSPECIFIED || v.Block != scannerv1.Severity_SEVERITY_UNSPECIFIED
}

func (t *Trusted) active() bool {
	return t.Effect != Ignore && t.Effect != "" && len(t.Images)+len(t.Digests)+len(t.BaseLayers) > 0
}
