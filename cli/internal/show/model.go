package show

import (
	"fmt"
	"io"
	"strconv"
	"time"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
)

// Models writes a table of models.
func Models(w io.Writer, models []*correlatorv1.Model) error {
	if len(models) == 0 {
		_, err := fmt.Fprintln(w, "No models yet: no container of an image with a digest has been seen.")
		return err
	}
	table := &processv1.Table{Name: "models", Columns: []*processv1.Column{
		{Name: "digest"}, {Name: "state"}, {Name: "observed", Number: true}, {Name: "starts", Number: true}, {Name: "running", Number: true},
		{Name: "facts", Number: true}, {Name: "anomalies", Number: true}, {Name: "image"},
	}}
	for _, m := range models {
		state, facts, anomalies := m.GetState(), uint64(0), uint64(0)
		if m.GetFrozen() {
			state += ", frozen"
		}
		for _, f := range m.GetFamilies() {
			facts += uint64(f.GetFacts())
			anomalies += f.GetAnomalies()
		}
		table.Rows = append(table.Rows, &processv1.Row{Cells: []string{
			short(m.GetImageDigest()), state, observed(m), number(m.GetStarts()), number(uint64(m.GetContainers())), number(facts), number(anomalies), m.GetImage(),
		}})
	}
	writeTable(w, table, false)
	return nil
}

// Model writes how one model was learned, by family, and what was met that it does not have.
func Model(w io.Writer, answer *correlatorv1.ExportModelResponse) error {
	m := answer.GetModel()
	fmt.Fprintf(w, "image      %s\ndigest     %s\nstate      %s", Safe(m.GetImage()), Safe(m.GetImageDigest()), m.GetState())
	if m.GetFrozen() {
		fmt.Fprint(w, ", frozen")
	}
	fmt.Fprintf(w, "\nobserved   %s, %d starts, %d containers run\n", observed(m), m.GetStarts(), m.GetContainers())
	if m.GetSuspected() > 0 || m.GetSkipped() > 0 {
		fmt.Fprintf(w, "suspected  %d containers have a finding of priority error or above and are not learned from; %d events skipped\n",
			m.GetSuspected(), m.GetSkipped())
	}
	if m.GetLost() > 0 {
		fmt.Fprintf(w, "lost       %d events while it learned; %v did not count\n", m.GetLost(), m.GetExtended().AsDuration())
	}
	families := &processv1.Table{Name: "families", Columns: []*processv1.Column{{Name: "family"}, {Name: "facts", Number: true}, {Name: "anomalies", Number: true}, {Name: "judged"}}}
	for _, f := range m.GetFamilies() {
		judged := "yes"
		if f.GetOverflowed() {
			judged = "no: there was more than a model holds"
		}
		families.Rows = append(families.Rows, &processv1.Row{Cells: []string{f.GetName(), number(uint64(f.GetFacts())), number(f.GetAnomalies()), judged}})
	}
	writeTable(w, families, false)
	unusual := &processv1.Table{Name: "anomalies", Columns: []*processv1.Column{{Name: "family"}, {Name: "count", Number: true}, {Name: "last"}, {Name: "not_learned"}}}
	for _, a := range answer.GetAnomalies() {
		unusual.Rows = append(unusual.Rows, &processv1.Row{Cells: []string{
			a.GetFamily(), number(a.GetCount()), a.GetLast().AsTime().Format(time.RFC3339), a.GetFact(),
		}})
	}
	writeTable(w, unusual, false)
	return nil
}

// observed is how long, and how long that must be.
func observed(m *correlatorv1.Model) string {
	text := m.GetObserved().AsDuration().Round(time.Second).String()
	if needed := m.GetNeeded().AsDuration(); needed > 0 {
		text += " of " + needed.String()
	}
	return text
}

// short is a digest as people pass it on: twelve of its digits.
func short(digest string) string {
	for i := range len(digest) {
		if digest[i] == ':' {
			return digest[i+1 : min(len(digest), i+13)]
		}
	}
	return digest
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
