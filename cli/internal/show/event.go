package show

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf16"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
)

// JSONLine writes a message as one line, fields as in its .proto. What a container chose drives no terminal (THREATS.md B23): JSON
// escapes the control characters below the space, and this also DEL, those of C1 and whatever else shows as nothing, or turns text round.
func JSONLine(w io.Writer, m proto.Message) error {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err
	}
	return writeJSON(w, raw)
}

// IncidentJSON writes an incident as one line.
func IncidentJSON(w io.Writer, i *Incident) error {
	raw, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return writeJSON(w, raw)
}

func writeJSON(w io.Writer, raw []byte) error {
	var line strings.Builder
	for _, r := range string(raw) {
		if r < 0x7f || unicode.IsGraphic(r) {
			line.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&line, `\u%04x`, unit)
		}
	}
	_, err := fmt.Fprintln(w, line.String())
	return err
}

// Event writes one line: time, class, process and what it did.
func Event(w io.Writer, e *eventv1.Event, paint Painter) error {
	who := fmt.Sprintf("%s[%d]", e.GetComm(), e.GetProcess().GetPid())
	if e.GetProcess().GetPid() == 0 && e.GetComm() == "" {
		who = "-"
	}
	detail := detailOf(e)
	if e.GetResultKnown() && e.GetResult() < 0 {
		detail += " = " + errno(e.GetResult())
	}
	if e.GetGuard() != 0 {
		detail += " (denied by a guard)"
	}
	_, err := fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s  %s  %s  %s", paint.paint(dim, e.GetTime().AsTime().Local().Format("15:04:05.000")),
		paint.paint(bold, fmt.Sprintf("%-12s", Class(e))), paint.paint(cyan, Safe(who)), Safe(cutText(detail))), " "))
	return err
}

// cutText keeps an event on a line or two; all of it is in JSON.
func cutText(text string) string {
	const longest = 240
	if runes := []rune(text); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return text
}

// errno is "EPERM" for -1.
func errno(result int64) string {
	if name := unix.ErrnoName(syscall.Errno(-result)); name != "" { //nolint:gosec // of a negative number
		return name
	}
	return strconv.FormatInt(result, 10)
}

// Class is what the collector, rules and counters call the event's class.
func Class(e *eventv1.Event) string {
	lower := func(operation fmt.Stringer) string {
		_, name, _ := strings.Cut(strings.ToLower(operation.String()), "_operation_")
		return name
	}
	switch kind := e.GetKind().(type) {
	case *eventv1.Event_FileChange:
		return lower(kind.FileChange.GetOperation())
	case *eventv1.Event_Memory:
		return lower(kind.Memory.GetOperation())
	case *eventv1.Event_Privilege:
		return lower(kind.Privilege.GetOperation())
	case *eventv1.Event_Socket:
		if kind.Socket.GetOperation() == eventv1.SocketOperation_SOCKET_OPERATION_CREATE {
			return "socket"
		}
		return lower(kind.Socket.GetOperation())
	case *eventv1.Event_Dns:
		if kind.Dns.GetResponse() {
			return "dns_answer"
		}
		return "dns_question"
	}
	if field := kindField(e); field != nil {
		return string(field.Name())
	}
	return "?"
}

// kindField is the field of the event that says what happened, nil if there is none.
func kindField(e *eventv1.Event) protoreflect.FieldDescriptor {
	m := e.ProtoReflect()
	return m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
}

// detailOf is what an event is about.
func detailOf(e *eventv1.Event) string {
	switch kind := e.GetKind().(type) {
	case *eventv1.Event_Exec:
		return execDetail(kind.Exec)
	case *eventv1.Event_Existing:
		return execDetail(kind.Existing)
	case *eventv1.Event_ExecFailed:
		return kind.ExecFailed.GetFile().GetPath()
	case *eventv1.Event_Fork:
		return fmt.Sprintf("child %d", kind.Fork.GetChild().GetPid())
	case *eventv1.Event_Exit:
		if status := kind.Exit.GetWaitStatus(); status&0x7f == 0 {
			return fmt.Sprintf("status %d", status>>8)
		}
		return fmt.Sprintf("signal %d", kind.Exit.GetWaitStatus()&0x7f)
	case *eventv1.Event_FileOpen:
		const accessMode, writeOnly = 3, 1
		mode := [...]string{"read", "write", "read and write", "path"}[kind.FileOpen.GetFlags()&accessMode]
		return kind.FileOpen.GetFile().GetPath() + " (" + mode + ")"
	case *eventv1.Event_FileChange:
		return changeDetail(kind.FileChange)
	case *eventv1.Event_Connect:
		return "to " + address(kind.Connect.GetRemote()) + protocol(kind.Connect.GetProtocol())
	case *eventv1.Event_Accept:
		return "from " + address(kind.Accept.GetRemote()) + " at " + address(kind.Accept.GetLocal())
	case *eventv1.Event_Dns:
		return dnsDetail(kind.Dns)
	case *eventv1.Event_Signal:
		return fmt.Sprintf("%d to %d", kind.Signal.GetNumber(), kind.Signal.GetTarget().GetPid())
	case *eventv1.Event_Loss:
		return fmt.Sprintf("%d records of %s are missing (%s)", kind.Loss.GetCount(), kind.Loss.GetClass(),
			strings.ToLower(strings.TrimPrefix(kind.Loss.GetReason().String(), "LOSS_REASON_")))
	}
	return rest(e)
}

// rest is the part of an event that has no words of its own here, as JSON.
func rest(e *eventv1.Event) string {
	field := kindField(e)
	if field == nil {
		return ""
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(e.ProtoReflect().Get(field).Message().Interface())
	if err != nil {
		return ""
	}
	return string(raw)
}

func execDetail(e *eventv1.Exec) string {
	text := strings.Join(e.GetArgv(), " ")
	if exe := e.GetExe().GetPath(); text == "" {
		text = exe
	} else if exe != e.GetArgv()[0] {
		text += " (" + exe + ")"
	}
	if script := e.GetScript().GetPath(); script != "" {
		text += " for " + script
	}
	return text
}

func changeDetail(c *eventv1.FileChange) string {
	names := []string{c.GetFile().GetPath(), c.GetTarget().GetPath(), c.GetText()}
	text := strings.Join(slices.DeleteFunc(names, func(name string) bool { return name == "" }), " → ")
	operation := c.GetOperation()
	if operation == eventv1.FileOperation_FILE_OPERATION_CHMOD || operation == eventv1.FileOperation_FILE_OPERATION_MKNOD {
		text += fmt.Sprintf(" %04o", c.GetMode())
	}
	if operation == eventv1.FileOperation_FILE_OPERATION_CHOWN {
		text += fmt.Sprintf(" %d:%d", int32(c.GetUid()), int32(c.GetGid())) //nolint:gosec // -1 is: as it was
	}
	return text
}

func dnsDetail(d *eventv1.Dns) string {
	var words []string
	for _, q := range d.GetQuestions() {
		words = append(words, q.GetName())
	}
	for _, a := range d.GetAnswers() {
		words = append(words, a.GetData())
	}
	return strings.Join(words, " ")
}

func address(a *eventv1.SocketAddress) string {
	ip, ok := netip.AddrFromSlice(a.GetIp())
	if !ok {
		return "?"
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(a.GetPort())).String() //nolint:gosec // at most 65535
}

func protocol(number uint32) string {
	if name, ok := map[uint32]string{6: " (tcp)", 17: " (udp)"}[number]; ok {
		return name
	}
	return fmt.Sprintf(" (protocol %d)", number)
}

// gapReasons say in words why events are missing.
var gapReasons = map[correlatorv1.MissedReason]string{
	correlatorv1.MissedReason_MISSED_REASON_RATE:    "more came than recorder.workload_events_per_second or total_events_per_second takes",
	correlatorv1.MissedReason_MISSED_REASON_BEHIND:  "the disk was too slow",
	correlatorv1.MissedReason_MISSED_REASON_DISK:    "the disk was full, or could not be written",
	correlatorv1.MissedReason_MISSED_REASON_CUT:     "the correlator was killed, or the disk was full; what came within the last second before is lost",
	correlatorv1.MissedReason_MISSED_REASON_DAMAGED: "the file is damaged from here on",
	correlatorv1.MissedReason_MISSED_REASON_DELETED: "it was deleted meanwhile, to make room",
	correlatorv1.MissedReason_MISSED_REASON_LIMIT:   "the incident's slice has reached recorder.incidents.bytes",
}

// Gap writes one line: that events are missing, how many and why.
func Gap(w io.Writer, g *correlatorv1.Gap, paint Painter) error {
	count := "events may be missing"
	if g.GetEvents() > 0 {
		count = fmt.Sprintf("%d events are missing", g.GetEvents())
	}
	reason, ok := gapReasons[g.GetReason()]
	if !ok {
		reason = "unknown"
	}
	_, err := fmt.Fprintf(w, "%s  %s\n", paint.paint(dim, g.GetTime().AsTime().Local().Format("15:04:05.000")), paint.Bad("-- "+count+": "+reason))
	return err
}

// Recorded writes a table of what the flight recorder has.
func Recorded(w io.Writer, workloads []*correlatorv1.RecordedWorkload) error {
	if len(workloads) == 0 {
		_, err := fmt.Fprintln(w, "Nothing is recorded yet: events are on disk a second after they happen.")
		return err
	}
	table := &processv1.Table{Name: "workloads", Columns: []*processv1.Column{
		{Name: "workload"}, {Name: "name"}, {Name: "image"}, {Name: "since"}, {Name: "last"}, {Name: "kib", Number: true}, {Name: "set_aside_kib", Number: true},
		{Name: "missed", Number: true},
	}}
	for _, m := range workloads {
		name := m.GetWorkload().GetContainerName()
		if pod := m.GetWorkload().GetPodName(); pod != "" {
			name = m.GetWorkload().GetPodNamespace() + "/" + pod + " " + name
		}
		clock := func(t time.Time) string { return t.Local().Format("01-02 15:04:05") }
		table.Rows = append(table.Rows, &processv1.Row{Cells: []string{
			Selector(m), name, m.GetWorkload().GetImage(), clock(m.GetFirst().AsTime()), clock(m.GetLast().AsTime()),
			number(m.GetBytes() >> 10), number(m.GetPinnedBytes() >> 10), number(m.GetMissed()),
		}})
	}
	writeTable(w, table, false)
	return nil
}

// Selector is the word by which a workload is asked for.
func Selector(m *correlatorv1.RecordedWorkload) string {
	switch id := m.GetWorkload().GetContainerId(); {
	case id != "":
		return ShortID(id)
	case m.GetCgroupId() != 0:
		return fmt.Sprintf("cgroup %d", m.GetCgroupId())
	}
	return "host"
}
