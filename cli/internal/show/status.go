package show

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
)

// Status is what one process says of itself.
type Status struct {
	Process  string            `json:"process"`
	Healthy  bool              `json:"healthy"`
	PID      uint32            `json:"pid"`
	Started  time.Time         `json:"started"`
	Version  string            `json:"version"`
	Warnings []string          `json:"warnings"`
	Facts    map[string]string `json:"facts"`
	Tables   Tables            `json:"tables,omitempty"`
	// FactOrder is the order in which the process wants its facts shown.
	FactOrder []string `json:"-"`
}

// Statuses writes a block for each process.
func Statuses(w io.Writer, statuses []Status, paint Painter) error {
	for _, s := range statuses {
		if err := s.write(w, paint); err != nil {
			return err
		}
	}
	return nil
}

func (s Status) write(w io.Writer, paint Painter) error {
	state := paint.Good("healthy")
	if !s.Healthy {
		state = paint.Bad("NOT HEALTHY")
	}
	line := fmt.Sprintf("%s  %s", paint.paint(bold, fmt.Sprintf("%-10s", s.Process)), state)
	if s.PID != 0 {
		line += paint.Quiet(fmt.Sprintf("  pid %d, up %v", s.PID, time.Since(s.Started).Round(time.Second)))
	}
	fmt.Fprintln(w, line)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range s.FactOrder {
		fmt.Fprintf(table, "  %s\t%s\n", Safe(name), Safe(s.Facts[name]))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, t := range s.Tables {
		writeTable(w, t, paint)
	}
	for _, warning := range s.Warnings {
		fmt.Fprintln(w, "  "+paint.paint(yellow, "! "+Safe(warning)))
	}
	return nil
}

// Rules writes a table of rules.
func Rules(w io.Writer, rules []*correlatorv1.Rule) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RULE\tPRIORITY\tEFFECT\tMATCHES")
	for _, r := range rules {
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\n", Safe(r.GetName()), Safe(r.GetPriority()), Safe(r.GetEffect()), r.GetMatches())
	}
	return table.Flush()
}
