package field_test

import (
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

func TestGroupFields(t *testing.T) {
	leader := &field.Process{Key: field.Key{PID: 100}, Name: "bash", Exe: "/bin/bash", Argv: []string{"-bash"}, Group: 100, InnerPID: 1, InnerGroup: 1}
	member := &field.Process{Key: field.Key{PID: 107}, Name: "id", Group: 100, InnerPID: 8, InnerGroup: 1, Parent: leader}
	stranger := &field.Process{Key: field.Key{PID: 107}, Group: 55, InnerPID: 8, Parent: leader}
	checkTexts(t, []textCase{
		{"member", "proc.pgid", "", member, "100"}, {"member", "proc.vpgid", "", member, "1"}, {"member", "proc.vpid", "", member, "8"},
		{"member", "proc.pvpid", "", member, "1"}, {"member", "proc.pgid.name", "", member, "bash"}, {"member", "proc.vpgid.exe", "", member, "-bash"},
		{"member", "proc.vpgid.exepath", "", member, "/bin/bash"}, {"member", "proc.is_vpgid_leader", "", member, "false"},
		{"leader", "proc.is_pgid_leader", "", leader, "true"},
		{"leader elsewhere", "proc.pgid.name", "", stranger, missing}, {"leader outside", "proc.vpgid", "", stranger, missing},
		{"nothing known", "proc.is_pgid_leader", "", &field.Process{}, missing}, {"nothing known", "proc.pgid", "", &field.Process{}, missing},
		{"nobody", "proc.is_vpgid_leader", "", nil, missing}, {"nobody", "proc.vpgid.name", "", nil, missing},
	}, nil)
}

// A leader that has ended is no parent any more, but it started the process all the same.
func TestLeadersThatHaveEnded(t *testing.T) {
	leader := &field.Process{Key: field.Key{PID: 100}, Name: "bash", Exe: "/bin/bash"}
	orphan := &field.Process{Key: field.Key{PID: 107}, Session: 100, Group: 100, Parent: &field.Process{Key: field.Key{PID: 1}}, Creator: leader}
	checkTexts(t, []textCase{
		{"session", "proc.sname", "", orphan, "bash"}, {"session", "proc.sexepath", "", orphan, "/bin/bash"},
		{"group", "proc.pgid.name", "", orphan, "bash"}, {"group", "proc.vpgid.exepath", "", orphan, "/bin/bash"},
	}, nil)
}

func TestMountFields(t *testing.T) {
	w := &findingv1.Workload{Mounts: []*findingv1.Mount{
		{Source: "proc", Destination: "/proc"}, {Source: "/etc", Destination: "/host/etc", ReadOnly: true},
		{Source: "/run/docker.sock", Destination: "/run/docker.sock"},
	}}
	checkTexts(t, []textCase{
		{"all", "container.mounts", "", nil, "proc:/proc::true:,/etc:/host/etc::false:,/run/docker.sock:/run/docker.sock::true:"},
		{"by number", "container.mount", "1", nil, "/etc:/host/etc::false:"}, {"by source", "container.mount.dest", "/etc", nil, "/host/etc"},
		{"by pattern", "container.mount.dest", "*docker.sock", nil, "/run/docker.sock"}, {"by destination", "container.mount.source", "/host/*", nil, "/etc"},
		{"writable", "container.mount.rdwr", "/etc*", nil, "false"}, {"no such number", "container.mount", "3", nil, missing},
		{"no such path", "container.mount.dest", "/var*", nil, missing}, {"not by destination", "container.mount.dest", "/host/etc", nil, missing},
	}, w)
	checkTexts(t, []textCase{{"no mounts", "container.mounts", "", nil, missing}, {"no mounts", "container.mount", "0", nil, missing}}, nil)
}

// missing is what a textCase wants where the field has no value.
const missing = "<none>"

// textCase is a field, with what stands in its brackets, and its text for a process.
type textCase struct {
	name, field, arg string
	process          *field.Process
	want             string
}

func checkTexts(t *testing.T, cases []textCase, w *findingv1.Workload) {
	t.Helper()
	for _, tt := range cases {
		f, err := field.Lookup(tt.field, tt.arg, tt.arg != "")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		raw, ok := f.AppendText(nil, &field.Context{Event: &eventv1.Event{}, Process: tt.process, Workload: w})
		if got := string(raw); ok && got != tt.want || !ok && tt.want != missing {
			t.Errorf("%s: %s[%s] = %q, %t, want %q", tt.name, tt.field, tt.arg, got, ok, tt.want)
		}
	}
}
