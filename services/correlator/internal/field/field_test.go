package field_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// events holds one event of each class, and those that no rule sees, with as little in them as can be.
func events() map[string]*eventv1.Event {
	all := map[string]*eventv1.Event{
		"exec":         {Kind: &eventv1.Event_Exec{}},
		"fork":         {Kind: &eventv1.Event_Fork{}},
		"exit":         {Kind: &eventv1.Event_Exit{}},
		"file_open":    {Kind: &eventv1.Event_FileOpen{}},
		"connect":      {Kind: &eventv1.Event_Connect{}},
		"accept":       {Kind: &eventv1.Event_Accept{}},
		"existing":     {Kind: &eventv1.Event_Existing{}},
		"exec_failed":  {Kind: &eventv1.Event_ExecFailed{}},
		"signal":       {Kind: &eventv1.Event_Signal{}},
		"dns_question": {Kind: &eventv1.Event_Dns{}},
		"dns_answer":   {Kind: &eventv1.Event_Dns{Dns: &eventv1.Dns{Response: true}}},
		"io_uring":     {Kind: &eventv1.Event_IoUring{}},
		"duplicate":    {Kind: &eventv1.Event_Duplicate{}},
		"loss":         {Kind: &eventv1.Event_Loss{}},
		"started":      {Kind: &eventv1.Event_Started{}},
		"unknown":      {Kind: &eventv1.Event_Privilege{Privilege: &eventv1.Privilege{Operation: 1000}}},
		"unspecified":  {Kind: &eventv1.Event_FileChange{FileChange: &eventv1.FileChange{}}},
		"none":         nil,
	}
	// The others are named after their operations, which is how the collector names them too.
	for n, name := range eventv1.FileOperation_name {
		all[className(name, "FILE_OPERATION_")] = &eventv1.Event{Kind: &eventv1.Event_FileChange{FileChange: &eventv1.FileChange{Operation: eventv1.FileOperation(n)}}}
	}
	for n, name := range eventv1.MemoryOperation_name {
		all[className(name, "MEMORY_OPERATION_")] = &eventv1.Event{Kind: &eventv1.Event_Memory{Memory: &eventv1.Memory{Operation: eventv1.MemoryOperation(n)}}}
	}
	for n, name := range eventv1.SocketOperation_name {
		all[className(name, "SOCKET_OPERATION_")] = &eventv1.Event{Kind: &eventv1.Event_Socket{Socket: &eventv1.Socket{Operation: eventv1.SocketOperation(n)}}}
	}
	for n, name := range eventv1.PrivilegeOperation_name {
		all[className(name, "PRIVILEGE_OPERATION_")] = &eventv1.Event{Kind: &eventv1.Event_Privilege{Privilege: &eventv1.Privilege{Operation: eventv1.PrivilegeOperation(n)}}}
	}
	return all
}

func className(operation, prefix string) string {
	name := strings.ToLower(strings.TrimPrefix(operation, prefix))
	if prefix == "SOCKET_OPERATION_" && name == "create" {
		return "socket"
	}
	return name
}

// notMatched are those of events that no rule sees.
var notMatched = []string{"loss", "started", "unknown", "unspecified", "none"}

func TestEveryFieldHasOneGetterAndADoc(t *testing.T) {
	for _, name := range field.Names() {
		f, err := lookup(name)
		if err != nil {
			t.Errorf("Lookup(%s) = %v", name, err)
			continue
		}
		count := 0
		if f.AnyStr != nil && f.Show == nil && f.AllNotEqual {
			t.Errorf("%s has several values and no way to show them", name)
		}
		for _, set := range []bool{f.Str != nil, f.Num != nil, f.IP != nil, f.AnyStr != nil, f.AnyNum != nil, f.AnyIP != nil} {
			if set {
				count++
			}
		}
		if count != 1 || f.Doc == "" {
			t.Errorf("%s has %d getters and doc %q, want 1 and some", name, count, f.Doc)
		}
		isNumber := f.Type == field.Number || f.Type == field.Bool
		isAddress := f.Type == field.Address || f.Type == field.Network
		if isNumber != (f.Num != nil || f.AnyNum != nil) || isAddress != (f.IP != nil || f.AnyIP != nil) {
			t.Errorf("%s is %s, but its getter is of another type", name, f.Type)
		}
	}
}

// A getter must not fail on an event that lacks everything: what the kernel could not read is
// empty. And one that is declared for some kinds must answer nothing for the others.
func TestFieldsOfEmptyEvents(t *testing.T) {
	for kind, e := range events() {
		contexts := []*field.Context{
			{Event: e}, {Event: e, Process: &field.Process{}},
			{Event: e, Workload: &findingv1.Workload{}}, {Event: e, Process: &field.Process{}, Workload: &findingv1.Workload{}},
		}
		for _, c := range contexts {
			checkKinds(t, kind, c)
		}
	}
}

// lookup finds a field by its name alone, or one of a label.
func lookup(name string) (field.Field, error) {
	_, err := field.Lookup(name, "", false)
	return field.Lookup(name, "app", errors.Is(err, field.ErrArgument))
}

func checkKinds(t *testing.T, kind string, c *field.Context) {
	t.Helper()
	for _, name := range field.Names() {
		f, _ := lookup(name)
		value, ok := f.AppendText(nil, c)
		if ok && f.Kinds != 0 && !f.Kinds.Has(field.KindOf(c.Event)) {
			t.Errorf("%s of %s = %q, but it is declared for %s only", name, kind, value, f.Kinds)
		}
	}
}

func TestEveryClassHasAnEventAndEveryEventAClass(t *testing.T) {
	seen := field.Kinds(0)
	for name, e := range events() {
		kind := field.KindOf(e)
		if slices.Contains(notMatched, name) {
			if kind != 0 || kind.Index() != -1 || kind.String() != "" {
				t.Errorf("KindOf(%s) = %s, want none", name, kind)
			}
			continue
		}
		if got := kind.Classes(); len(got) != 1 || got[0] != name || !field.IsClass(name) {
			t.Errorf("KindOf(%s) is of class %q", name, got)
		}
		seen |= kind
	}
	if seen != field.AllKinds || len(field.AllKinds.Classes()) != field.NumKinds {
		t.Errorf("%d classes, events of %d, want %d", len(field.AllKinds.Classes()), len(seen.Classes()), field.NumKinds)
	}
	if field.AllKinds != 1<<field.NumKinds-1 || field.IsClass("other") || field.IsClass("") {
		t.Errorf("AllKinds = %b, want NumKinds bits, and no class but these", field.AllKinds)
	}
}

// evt.type answers a name that is the kind's own, or shared with kinds of the same family.
func TestTypeNamesLeadBackToTheirKind(t *testing.T) {
	for name, e := range events() {
		kind := field.KindOf(e)
		if kind != 0 && !field.KindsNamed(func(s string) bool { return s == kind.String() }).Has(kind) {
			t.Errorf("evt.type of %s is %s, which is not its name", name, kind)
		}
	}
	for name, want := range map[string]string{
		"execve": "exec", "connect": "connect,connect_unix", "unlinkat": "unlink,rmdir", "renameat2": "rename", "fchmodat": "chmod",
		"sendmsg": "send", "setresuid": "setuid", "finit_module": "module_load", "tgkill": "signal", "pkey_mprotect": "mprotect_exec",
		"execve_failed": "exec_failed", "dup": "duplicate", "dup3": "duplicate", "read": "",
	} {
		got := field.KindsNamed(func(s string) bool { return s == name }).Classes()
		if strings.Join(got, ",") != want {
			t.Errorf("evt.type = %s stands for %q, want %s", name, got, want)
		}
	}
}

func TestLookupErrors(t *testing.T) {
	tests := []struct {
		name, arg string
		hasArg    bool
		want      error
	}{
		{"proc.nonesuch", "", false, field.ErrUnknown},
		{"", "", false, field.ErrUnknown},
		{"proc.name", "1", true, field.ErrArgument},
		{"proc.aname", "x", true, field.ErrArgument},
		{"proc.aname", "-1", true, field.ErrArgument},
		{"proc.aname", "99999", true, field.ErrArgument},
		{"proc.aname", "2", true, nil},
	}
	for _, tt := range tests {
		if _, err := field.Lookup(tt.name, tt.arg, tt.hasArg); !errors.Is(err, tt.want) {
			t.Errorf("Lookup(%s, %s) = %v, want %v", tt.name, tt.arg, err, tt.want)
		}
	}
}

func TestNameOf(t *testing.T) {
	tests := []struct {
		exe, comm string
		argv      []string
		want      string
	}{
		{"/usr/bin/cat", "x", []string{"sshd"}, "cat"},
		{"/usr/bin/cat (deleted)", "x", nil, "cat"},
		{"", "kworker/0:1", nil, "kworker/0:1"},
		{"/bin/busybox", "sh", []string{"-sh"}, "sh"},
		{"/bin/busybox", "busybox", []string{"/bin/busybox", "nc", "-l"}, "nc"},
		{"/bin/busybox", "busybox", []string{"busybox"}, "busybox"},
		{"/bin/busybox", "busybox", nil, "busybox"},
	}
	for _, tt := range tests {
		if got := field.NameOf(tt.exe, tt.comm, tt.argv); got != tt.want {
			t.Errorf("NameOf(%q, %q, %q) = %q, want %q", tt.exe, tt.comm, tt.argv, got, tt.want)
		}
	}
}

func TestImageParts(t *testing.T) {
	tests := []struct{ image, repository, tag string }{
		{"nginx", "nginx", ""},
		{"nginx:1.27", "nginx", "1.27"},
		{"localhost:5000/a/b", "localhost:5000/a/b", ""},
		{"localhost:5000/a/b:c@sha256:dd", "localhost:5000/a/b", "c"},
		{"a/b@sha256:dd", "a/b", ""},
	}
	for _, tt := range tests {
		c := &field.Context{Workload: &findingv1.Workload{ContainerId: "x", Image: tt.image}}
		for name, want := range map[string]string{"container.image.repository": tt.repository, "container.image.tag": tt.tag} {
			f, _ := field.Lookup(name, "", false)
			if got, ok := f.AppendText(nil, c); string(got) != want || ok != (want != "") {
				t.Errorf("%s of %s = %q, %t, want %q", name, tt.image, got, ok, want)
			}
		}
	}
}

// A tree that is damaged into a ring, or a very deep one, must not stop the correlator.
func TestAncestorsAreBounded(t *testing.T) {
	ring := &field.Process{Name: "a"}
	ring.Parent = ring
	c := &field.Context{Event: events()["exec"], Process: ring}
	any, _ := field.Lookup("proc.aname", "", false)
	asked := 0
	any.AnyStr(c, func(string) bool { asked++; return false })
	if asked == 0 || asked > 1000 {
		t.Errorf("ancestors asked = %d, want some, not endless", asked)
	}
	far, _ := field.Lookup("proc.aname", "65535", true)
	if _, ok := far.Str(c); ok {
		t.Error("proc.aname[65535] of a ring has a value")
	}
	leader, _ := field.Lookup("proc.sname", "", false)
	ring.Session = 1
	if _, ok := leader.Str(c); ok {
		t.Error("proc.sname of a ring without a leader has a value")
	}
}

func TestCacheIsOfOneEvent(t *testing.T) {
	f, _ := field.Lookup("proc.cmdline", "", false)
	c := &field.Context{Event: &eventv1.Event{}, Process: &field.Process{Name: "a", Argv: []string{"a", "1", "2"}}}
	first, _ := f.Str(c)
	c.Event, c.Process = &eventv1.Event{}, &field.Process{Name: "b", Argv: []string{"b", "3"}}
	if second, _ := f.Str(c); first != "a 1 2" || second != "b 3" {
		t.Errorf("proc.cmdline = %q, then %q, want \"a 1 2\", then \"b 3\"", first, second)
	}
}

func TestOpenFlags(t *testing.T) {
	f, _ := field.Lookup("evt.arg.flags", "", false)
	c := &field.Context{Event: &eventv1.Event{Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{
		Flags: 0o1101, File: &eventv1.File{UpperLayer: true},
	}}}}
	if got, _ := f.Str(c); got != "O_WRONLY|O_CREAT|O_TRUNC|FD_UPPER_LAYER" {
		t.Errorf("evt.arg.flags = %q", got)
	}
	if !strings.Contains(f.Doc, "O_") {
		t.Errorf("Doc = %q", f.Doc)
	}
}
