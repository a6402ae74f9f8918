package privilege

import (
	"slices"
	"strings"
	"testing"
)

func TestTableIsValid(t *testing.T) {
	table, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table.Processes {
		for _, name := range row.Capabilities {
			if _, err := Parse(name); err != nil {
				t.Errorf("%s: %v", row.Name, err)
			}
		}
		// The whole point of the split: nobody holds what amounts to root.
		if slices.Contains(row.Capabilities, "SYS_ADMIN") {
			t.Errorf("%s holds SYS_ADMIN", row.Name)
		}
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	row := Row{Name: "a", UID: 1, Network: NetworkNone, Limits: Limits{1, 1, 1}}
	tests := []struct {
		name   string
		change func(*Row)
		want   string
	}{
		{"unsorted capabilities", func(r *Row) { r.Capabilities = []string{"KILL", "BPF"} }, "b: capabilities: [KILL BPF] is not sorted"},
		{"keeps what it never had", func(r *Row) { r.Keeps = []string{"KILL"} }, "b: keeps: KILL is not among its capabilities"},
		{"unknown network", func(r *Row) { r.Network = "all" }, `b: network: "all" is not none, egress or serve`},
		{"no limit", func(r *Row) { r.Limits.PIDs = 0 }, "b: limits: memory, cpu and pids must be positive"},
		{"shared uid", func(r *Row) { r.UID = 1 }, "b: uid: 1 is a's"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			other := row
			other.Name, other.UID = "b", 2
			tt.change(&other)
			err := Table{Processes: []Row{row, other}}.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate() = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestRequireNamesWhatIsMissing(t *testing.T) {
	if err := Require("collector", "NO_SUCH_CAPABILITY"); err == nil {
		t.Error("Require(unknown capability) = nil, want an error")
	}
}
