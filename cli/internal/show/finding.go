// Package show writes findings and statuses for people and for programs.
package show

import (
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// Colours of a terminal (ECMA-48 SGR).
const (
	reset  = "\x1b[0m"
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	green  = "\x1b[32m"
	cyan   = "\x1b[36m"
)

// Painter colours text, or leaves it alone.
type Painter bool

func (p Painter) paint(colour, text string) string {
	if !p {
		return text
	}
	return colour + text + reset
}

// Good is for what is as it should be.
func (p Painter) Good(text string) string { return p.paint(green, text) }

// Bad is for what somebody should look at.
func (p Painter) Bad(text string) string { return p.paint(red, text) }

// Quiet is for what may be skipped.
func (p Painter) Quiet(text string) string { return p.paint(dim, text) }

// Finding writes one line: time, priority, rule, workload, process and its ancestors, what was done, and the id.
func Finding(w io.Writer, f *findingv1.Finding, paint Painter) error {
	parts := []string{
		paint.paint(dim, f.GetTime().AsTime().Local().Format("15:04:05.000")),
		paint.paint(colourOf(f.GetPriority()), fmt.Sprintf("%-8s", PriorityName(f.GetPriority()))),
		paint.paint(bold, Safe(f.GetRule())),
		paint.paint(cyan, Safe(workload(f.GetWorkload()))),
		Safe(lineage(f)),
	}
	if r := f.GetRepeats(); r != nil {
		parts = append(parts, paint.paint(bold, fmt.Sprintf("×%d", r.GetCount())))
	}
	if f.GetAmended() {
		parts = append(parts, paint.Quiet("(told before, when its container was not known)"))
	}
	if action := f.GetAction(); action != nil {
		parts = append(parts, paint.paint(actionColour(action), Safe(ActionText(action))))
	}
	_, err := fmt.Fprintln(w, strings.Join(parts, "  "))
	return err
}

// PriorityName is a priority in capitals, as Falco writes it.
func PriorityName(p findingv1.Priority) string {
	name := strings.TrimPrefix(p.String(), "PRIORITY_")
	if p == findingv1.Priority_PRIORITY_INFORMATIONAL {
		return "INFO"
	}
	return name
}

func colourOf(p findingv1.Priority) string {
	switch {
	case p <= findingv1.Priority_PRIORITY_ERROR:
		return red
	case p <= findingv1.Priority_PRIORITY_NOTICE:
		return yellow
	default:
		return dim
	}
}

func workload(w *findingv1.Workload) string {
	if w.GetMetadata() == findingv1.MetadataState_METADATA_STATE_HOST {
		return "host"
	}
	id := w.GetContainerId()
	if id == "" {
		return "container ? (metadata: pending)"
	}
	text := ShortID(id)
	if w.GetContainerName() != "" && w.GetContainerName() != id {
		text = w.GetContainerName() + " " + text
	}
	if w.GetImage() != "" {
		text += " (" + w.GetImage() + ")"
	}
	return text
}

// ShortID is the part of a container id that people use: the first twelve digits of a long hexadecimal one.
func ShortID(id string) string {
	if len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:12]
	}
	return id
}

// lineage is the command line, then who started whom.
func lineage(f *findingv1.Finding) string {
	const longest = 80
	command := strings.Join(f.GetProcess().GetArgv(), " ")
	if command == "" {
		command = f.GetProcess().GetExe()
	}
	if runes := []rune(command); len(runes) > longest {
		command = string(runes[:longest]) + "…"
	}
	for i, p := range f.GetAncestry() {
		if i == 4 {
			return command + " ← …"
		}
		name := p.GetName()
		if name == "" {
			name = path.Base(p.GetExe())
		}
		command += " ← " + name
	}
	return command
}

// ActionText says in a few words what was done.
func ActionText(a *findingv1.Action) string {
	outcome := map[findingv1.ActionOutcome]string{
		findingv1.ActionOutcome_ACTION_OUTCOME_DONE:    "KILLED",
		findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED: "NOT KILLED (refused)",
		findingv1.ActionOutcome_ACTION_OUTCOME_GONE:    "ALREADY GONE",
		findingv1.ActionOutcome_ACTION_OUTCOME_FAILED:  "NOT KILLED (failed)",
	}[a.GetOutcome()]
	if a.GetKind() == findingv1.ActionKind_ACTION_KIND_REFUSE {
		outcome = map[findingv1.ActionOutcome]string{
			findingv1.ActionOutcome_ACTION_OUTCOME_DONE:    "CONTAINER REFUSED",
			findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED: "CONTAINER NOT REFUSED",
			findingv1.ActionOutcome_ACTION_OUTCOME_FAILED:  "CONTAINER NOT REFUSED (failed)",
		}[a.GetOutcome()]
	}
	if a.GetDetail() == "" {
		return outcome
	}
	return outcome + ": " + a.GetDetail()
}

func actionColour(a *findingv1.Action) string {
	if a.GetOutcome() == findingv1.ActionOutcome_ACTION_OUTCOME_DONE {
		return green
	}
	return red
}

// Safe escapes control characters: what a container chose must not drive the terminal (THREATS.md B23).
func Safe(text string) string {
	clean := strconv.QuoteToGraphic(text)
	clean = strings.ReplaceAll(clean[1:len(clean)-1], `\"`, `"`)
	return strings.ReplaceAll(clean, `\\`, `\`)
}
