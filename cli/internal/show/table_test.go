package show

import (
	"encoding/json"
	"strings"
	"testing"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
)

func hooks() *processv1.Table {
	return &processv1.Table{
		Name: "hooks",
		Columns: []*processv1.Column{
			{Name: "hook"}, {Name: "mean_ns", Number: true}, {Name: "note"},
		},
		Rows: []*processv1.Row{
			{Cells: []string{"sys_exit", "1234", ""}},
			{Cells: []string{"egress", "", "not\x1b[31m tried"}},
			{Cells: []string{"é"}},
		},
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	if err := Statuses(&out, []Status{{Process: "collector", Tables: Tables{hooks(), {Name: "empty"}}}}, false); err != nil {
		t.Fatal(err)
	}
	want := `collector   NOT HEALTHY

  HOOK      MEAN NS  NOTE
  sys_exit     1234
  egress             not\x1b[31m tried
  é
`
	if out.String() != want {
		t.Errorf("Statuses:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestTablesAsJSON(t *testing.T) {
	got, err := json.Marshal(Tables{hooks(), {Name: "empty"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"empty":[],"hooks":[{"hook":"sys_exit","mean_ns":1234,"note":""},` +
		`{"hook":"egress","mean_ns":null,"note":"not\u001b[31m tried"},{"hook":"é","mean_ns":null,"note":""}]}`
	if string(got) != want {
		t.Errorf("JSON = %s, want %s", got, want)
	}
}
