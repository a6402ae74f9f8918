package web

import (
	"fmt"
	"strings"
	"unicode"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

const (
	// shortID is how much of a container's id tells it apart.
	shortID = 12
	// maxShown bounds one field on the page, in characters; the JSON endpoint has all of it.
	maxShown = 4096
	// maxAncestors bounds the ancestry in the table; the details have all of it.
	maxAncestors = 4
)

// row is a finding as the page shows it. Its strings are visible text: control characters are escaped already, HTML is
// the template's job.
type row struct {
	Key       string
	Stamp     string // RFC 3339, for machines
	Date      string
	Clock     string
	Priority  string // lower case, also the badge's class
	Rule      string
	Workload  string
	Image     string
	Node      string
	Process   string
	Ancestry  []string
	Action    string
	Outcome   string // class of the action's mark
	Details   []detail
	Lineage   []string
	Tags      []string
	Output    string
	Effect    string
	Truncated bool
}

type detail struct{ Name, Value string }

// newRow prepares a finding for the page.
func newRow(f *findingv1.Finding) row {
	at := f.GetTime().AsTime().UTC()
	r := row{
		Key:      visible(f.GetNode() + "/" + f.GetId()),
		Stamp:    at.Format("2006-01-02T15:04:05.000Z"),
		Date:     at.Format("2006-01-02"),
		Clock:    at.Format("15:04:05.000"),
		Priority: word(f.GetPriority().String(), "PRIORITY_"),
		Effect:   word(f.GetEffect().String(), "EFFECT_"),
		Rule:     visible(f.GetRule()),
		Node:     visible(f.GetNode()),
		Process:  visible(processName(f.GetProcess())),
		Output:   visible(f.GetOutput()),
	}
	r.Workload, r.Image = workload(f.GetWorkload())
	for i, ancestor := range f.GetAncestry() {
		if i < maxAncestors {
			r.Ancestry = append(r.Ancestry, visible(processName(ancestor)))
		}
		r.Lineage = append(r.Lineage, visible(describe(ancestor)))
	}
	r.Truncated = len(f.GetAncestry()) > maxAncestors
	for _, tag := range f.GetTags() {
		r.Tags = append(r.Tags, visible(tag))
	}
	r.Action, r.Outcome = action(f.GetAction())
	r.Details = details(f)
	return r
}

func workload(w *findingv1.Workload) (name, image string) {
	if w.GetContainerId() == "" {
		if w.GetMetadata() == findingv1.MetadataState_METADATA_STATE_PENDING {
			return "unknown container", ""
		}
		return "host", ""
	}
	id := w.GetContainerId()
	name = id[:min(len(id), shortID)]
	if w.GetContainerName() != "" && w.GetContainerName() != id {
		name = w.GetContainerName() + " · " + name
	}
	if w.GetPodName() != "" {
		name = w.GetPodNamespace() + "/" + w.GetPodName() + " · " + name
	}
	return visible(name), visible(w.GetImage())
}

// action says in a word what was done.
func action(a *findingv1.Action) (text, class string) {
	if a == nil {
		return "", ""
	}
	if a.GetKind() == findingv1.ActionKind_ACTION_KIND_REFUSE {
		return refusal(a.GetOutcome())
	}
	switch a.GetOutcome() {
	case findingv1.ActionOutcome_ACTION_OUTCOME_DONE:
		return "killed", "done"
	case findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED:
		return "kill refused", "refused"
	case findingv1.ActionOutcome_ACTION_OUTCOME_GONE:
		return "had ended", "gone"
	case findingv1.ActionOutcome_ACTION_OUTCOME_FAILED:
		return "kill failed", "failed"
	case findingv1.ActionOutcome_ACTION_OUTCOME_UNSPECIFIED:
	}
	return "unknown", "failed"
}

// refusal is action of a container that was not to be created.
func refusal(outcome findingv1.ActionOutcome) (text, class string) {
	switch outcome {
	case findingv1.ActionOutcome_ACTION_OUTCOME_DONE:
		return "container refused", "done"
	case findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED:
		return "not refused: dry run", "refused"
	default:
		return "refusal failed", "failed"
	}
}

func details(f *findingv1.Finding) []detail {
	w, p := f.GetWorkload(), f.GetProcess()
	all := []detail{
		{"Command line", strings.Join(p.GetArgv(), " ")},
		{"Executable", p.GetExe()},
		{"Process", processKey(p)},
		{"Working directory", f.GetEvent().GetExec().GetCwd()},
		{"File", f.GetEvent().GetFileOpen().GetFile().GetPath()},
		{"Action", f.GetAction().GetDetail()},
		{"Container", w.GetContainerId()},
		{"Image", w.GetImage()},
		{"Image digest", w.GetImageDigest()},
		{"Runtime", w.GetRuntime()},
		{"Finding", f.GetId()},
		{"Node", f.GetNode()},
		{"Trace", f.GetTraceparent()},
	}
	out := all[:0]
	for _, one := range all {
		if one.Value != "" {
			out = append(out, detail{one.Name, visible(one.Value)})
		}
	}
	return out
}

func processName(p *findingv1.Process) string {
	if p.GetName() != "" {
		return p.GetName()
	}
	return p.GetExe()[strings.LastIndexByte(p.GetExe(), '/')+1:]
}

func processKey(p *findingv1.Process) string {
	if p.GetKey().GetPid() == 0 {
		return ""
	}
	return fmt.Sprintf("pid %d, uid %d, started %d ns after boot",
		p.GetKey().GetPid(), p.GetUid(), p.GetKey().GetStartBoottimeNs())
}

func describe(p *findingv1.Process) string {
	command := strings.Join(p.GetArgv(), " ")
	if command == "" {
		command = p.GetExe()
	}
	if command == "" {
		command = p.GetName()
	}
	return fmt.Sprintf("%d  %s", p.GetKey().GetPid(), command)
}

func word(name, prefix string) string {
	name = strings.ToLower(strings.TrimPrefix(name, prefix))
	if name == "unspecified" {
		return ""
	}
	return visible(name)
}

// visible escapes what a reader could not see or would see wrongly: control characters, and the marks that turn text
// around or take no room. A long text is cut, and says so.
func visible(text string) string {
	var out strings.Builder
	n := 0
	for _, r := range text {
		if n++; n > maxShown {
			out.WriteString("… (cut)")
			break
		}
		switch {
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\t':
			out.WriteString(`\t`)
		case r == '\r':
			out.WriteString(`\r`)
		case r == unicode.ReplacementChar || unicode.IsGraphic(r):
			out.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&out, `\x%02x`, r)
		case r > 0xffff:
			fmt.Fprintf(&out, `\U%08x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}
