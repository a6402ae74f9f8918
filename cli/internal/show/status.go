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
	// FactOrder is the order in which the process wants its facts shown.
	FactOrder []string `json:"-"`
}

// Statuses writes a block for each process.
func Statuses(w io.Writer, statuses []Status, paint Painter) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range statuses {
		state := paint.paint(green, "healthy")
		if !s.Healthy {
			state = paint.paint(red, "NOT HEALTHY")
		}
		since := ""
		if s.PID != 0 {
			since = fmt.Sprintf("pid %d, up %v", s.PID, time.Since(s.Started).Round(time.Second))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", paint.paint(bold, s.Process), state, since)
		for _, name := range s.FactOrder {
			fmt.Fprintf(table, "  %s\t%s\t\n", Safe(name), Safe(s.Facts[name]))
		}
		for _, warning := range s.Warnings {
			fmt.Fprintf(table, "  %s\t\n", paint.paint(yellow, "! "+Safe(warning)))
		}
	}
	return table.Flush()
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
