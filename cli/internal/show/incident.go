package show

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// Incident is findings that belong together.
type Incident struct {
	ID       string    `json:"id"`
	Priority string    `json:"priority"` // of the gravest
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	// Findings counts what repeats stand for, too.
	Findings uint64            `json:"findings"`
	Workload string            `json:"workload"`
	Origin   string            `json:"origin"`
	Rules    map[string]uint64 `json:"rules"`
	// Kinds are what the rules say that it is a sign of.
	Kinds []string `json:"kinds,omitempty"`
	// Actions are by their outcome.
	Actions map[string]uint64 `json:"actions,omitempty"`

	gravest findingv1.Priority
}

// pause ends an incident: what one container does today and did yesterday is not one.
const pause = time.Hour

// Incidents puts findings together, the gravest incident first and of those the latest. Findings that belong to none are left out.
func Incidents(findings []*findingv1.Finding) []*Incident {
	sorted := slices.Clone(findings)
	slices.SortStableFunc(sorted, func(a, b *findingv1.Finding) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	var all []*Incident
	open := map[string]*Incident{}
	for _, f := range sorted {
		id := f.GetIncident().GetId()
		if id == "" {
			continue
		}
		i := open[id]
		if i == nil || f.GetTime().AsTime().Sub(i.Last) > pause {
			i = begin(f)
			open[id], all = i, append(all, i)
		}
		i.add(f)
	}
	slices.SortStableFunc(all, func(a, b *Incident) int {
		return cmp.Or(cmp.Compare(a.gravest, b.gravest), b.Last.Compare(a.Last))
	})
	return all
}

func begin(f *findingv1.Finding) *Incident {
	origin := f.GetIncident().GetOrigin()
	command := strings.Join(origin.GetArgv(), " ")
	if command == "" {
		command = cmp.Or(origin.GetExe(), origin.GetName())
	}
	return &Incident{
		ID: f.GetIncident().GetId(), First: f.GetTime().AsTime(), Workload: workload(f.GetWorkload()),
		Origin: fmt.Sprintf("%s (pid %d)", command, origin.GetKey().GetPid()),
		Rules:  map[string]uint64{}, Actions: map[string]uint64{}, gravest: f.GetPriority(),
	}
}

func (i *Incident) add(f *findingv1.Finding) {
	count := uint64(1)
	if r := f.GetRepeats(); r != nil {
		count = r.GetCount()
	}
	i.Findings += count
	i.Rules[f.GetRule()] += count
	if kind := f.GetIncident().GetKind(); kind != "" && !slices.Contains(i.Kinds, kind) {
		i.Kinds = append(i.Kinds, kind)
	}
	i.Last = f.GetTime().AsTime()
	i.gravest = min(i.gravest, f.GetPriority())
	i.Priority = PriorityName(i.gravest)
	if f.GetWorkload().GetMetadata() == findingv1.MetadataState_METADATA_STATE_KNOWN {
		i.Workload = workload(f.GetWorkload()) // the first findings may have come before it was known
	}
	if a := f.GetAction(); a != nil {
		outcome, _, _ := strings.Cut(ActionText(a), ":")
		i.Actions[outcome]++
	}
}

// WriteIncident writes a few lines: when, how grave, whose, where it began, what was found and what was done.
func WriteIncident(w io.Writer, i *Incident, paint Painter) error {
	span := i.First.Local().Format("15:04:05")
	if last := i.Last.Local().Format("15:04:05"); last != span {
		span += " to " + last
	}
	kinds := ""
	if len(i.Kinds) > 0 {
		kinds = Safe(strings.Join(i.Kinds, ", ")) + "  "
	}
	_, err := fmt.Fprintf(w, "%s  %s  %s  %s  %sbegan with %s\n", paint.paint(dim, span), paint.paint(colourOf(i.gravest), i.Priority),
		paint.paint(bold, i.ID[:min(12, len(i.ID))]), paint.paint(cyan, Safe(i.Workload)), kinds, Safe(i.Origin))
	for _, counts := range []map[string]uint64{i.Rules, i.Actions} {
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			if err == nil {
				_, err = fmt.Fprintf(w, "    %4d  %s\n", counts[name], Safe(name))
			}
		}
	}
	return err
}

// Slice asks for the events between the first and the last of an incident's findings, of which there is one.
func Slice(findings []*findingv1.Finding) *correlatorv1.ReadEventsRequest {
	const most = 100_000
	r := &correlatorv1.ReadEventsRequest{Incident: findings[0].GetIncident().GetId(), Limit: most}
	for _, f := range findings {
		first, last := f.GetTime(), f.GetTime()
		if repeats := f.GetRepeats(); repeats != nil {
			first, last = repeats.GetFirst(), repeats.GetLast()
		}
		if r.GetSince() == nil || first.AsTime().Before(r.GetSince().AsTime()) {
			r.Since = first
		}
		if r.GetUntil() == nil || last.AsTime().After(r.GetUntil().AsTime()) {
			r.Until = last
		}
		switch w := f.GetWorkload(); {
		case w.GetMetadata() == findingv1.MetadataState_METADATA_STATE_HOST:
			r.Workload = "host"
		case w.GetContainerId() != "":
			r.Workload = w.GetContainerId()
		case r.GetWorkload() == "": // the first findings may have come before it was known
			r.Workload = fmt.Sprintf("cgroup %d", f.GetEvent().GetCgroupId())
		}
	}
	return r
}
