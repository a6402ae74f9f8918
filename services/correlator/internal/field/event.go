package field

import (
	"strconv"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/uapi"
)

// Parts of open(2)'s flags, as on every architecture we support (amd64, arm64 differ only above).
const (
	accessMode = 0o3
	writeOnly  = 0o1
	readWrite  = 0o2
	pathOnly   = 0o10000000
	createFile = 0o100
	// temporaryFile is O_TMPFILE without O_DIRECTORY, whose bit depends on the architecture.
	temporaryFile = 0o20000000

	anyExecute = 0o111 // of a mode
)

// eventFields are evt.*: what happened, and how it went.
var eventFields = map[string]Field{
	"evt.type":             {Doc: "kind of event, by the name of a system call", Type: EventType, Str: eventType},
	"syscall.type":         {Doc: "the same as evt.type", Type: EventType, Str: eventType},
	"evt.num":              {Doc: "place in the collector's stream, from 1", Type: Number, Num: eventNumber},
	"evt.time":             {Doc: "time of day, UTC, with nanoseconds", Str: eventClock},
	"evt.time.s":           {Doc: "time of day, UTC, in seconds", Str: eventClockSeconds},
	"evt.datetime":         {Doc: "date and time of day, UTC", Str: eventDateTime},
	"evt.time.iso8601":     {Doc: "date and time, ISO 8601, UTC", Str: eventISO},
	"evt.rawtime":          {Doc: "nanoseconds since 1970", Type: Number, Num: eventRawTime},
	"evt.is_open_read":     {Doc: "a file was opened with read access", Type: Bool, ByAccess: true, Num: isOpenRead},
	"evt.is_open_write":    {Doc: "a file was opened with write access", Type: Bool, ByAccess: true, Num: isOpenWrite},
	"evt.is_open_create":   {Doc: "a file was opened that is created if it is not there (O_CREAT, O_TMPFILE)", Type: Bool, Num: isOpenCreate},
	"evt.is_open_exec":     {Doc: "the same, and the file may be executed", Type: Bool, Num: isOpenExec},
	"evt.category":         {Doc: "file, net, process, memory, signal, user, system or dns", Str: eventCategory},
	"evt.source":           {Doc: "always syscall", Str: func(*Context) (string, bool) { return "syscall", true }},
	"evt.count":            {Doc: "always 1", Type: Number, Num: func(*Context) (int64, bool) { return 1, true }},
	"evt.args":             {Doc: "every evt.arg the event has, as name=value", Str: eventArgs},
	"evt.info":             {Doc: "the same as evt.args", Str: eventArgs},
	"evt.res":              {Doc: "SUCCESS, or the name of the error; missing where it is not known", Kinds: resultKinds, Str: eventResult},
	"evt.rawres":           {Doc: "result of the call; of an open or accept only the sign may be known", Type: Number, Kinds: resultKinds, Num: rawResult, Sign: rawResultSign},
	"evt.failed":           {Doc: "the call returned an error other than EINPROGRESS", Type: Bool, Kinds: resultKinds, Num: eventFailed},
	"evt.dir":              {Doc: "always <, the end of a call", Deprecated: "every event is the end of a call", Str: func(*Context) (string, bool) { return "<", true }},
	"user.uid":             {Doc: "effective user id", Type: Number, Num: userID},
	"user.name":            {Doc: "effective user: root for id 0, of the host what its passwd says, else the id in decimal", Knows: knownAnywhere, Otherwise: ofTheHost, Str: userName},
	"user.loginuid":        {Doc: "audit login user id, -1 if never set", Type: Number, Num: loginID},
	"user.loginname":       {Doc: "who logged in, as the host's passwd says; root for id 0, the id in decimal if it has no name, missing if never set", Str: loginName},
	"group.gid":            {Doc: "effective group id", Type: Number, Num: groupID},
	"group.name":           {Doc: "effective group: root for id 0, of the host what its group file says, else the id in decimal", Knows: knownAnywhere, Otherwise: ofTheHost, Str: groupName},
	"thread.tid":           {Doc: "acting thread, in the initial pid namespace", Type: Number, Num: threadID},
	"thread.ismain":        {Doc: "the acting thread is the process's first", Type: Bool, Num: isMainThread},
	"thread.cap_effective": {Doc: "effective capabilities by name, separated by spaces", Str: effectiveCaps},
}

// resultKinds are the events that can have a result.
const resultKinds = AllKinds &^ (KindExit | KindExisting | KindDNSQuestion | KindDNSAnswer)

// duplicateCalls are the names of evt.type's for a duplicate, by the call that made it. For the others dup stands.
var duplicateCalls = map[eventv1.DuplicateCall]string{
	eventv1.DuplicateCall_DUPLICATE_CALL_DUP2: "dup2", eventv1.DuplicateCall_DUPLICATE_CALL_DUP3: "dup3",
}

func eventType(c *Context) (string, bool) {
	if duplicate := c.Event.GetDuplicate(); duplicate != nil {
		if name := duplicateCalls[duplicate.GetCall()]; name != "" {
			return name, true
		}
		return "dup", true
	}
	return text(typeName(KindOf(c.Event)))
}

func eventNumber(c *Context) (int64, bool) {
	return int64(c.Event.GetSequence()), true //nolint:gosec // 2^63 events take millennia
}

func threadID(c *Context) (int64, bool) { return int64(c.Event.GetTid()), c.Event.GetTid() != 0 }

// formatTime is the event's wall clock in the given layout.
func formatTime(c *Context, layout string) (string, bool) {
	if c.Event.GetTime() == nil {
		return "", false
	}
	return c.Event.GetTime().AsTime().UTC().Format(layout), true
}

func eventClock(c *Context) (string, bool)        { return formatTime(c, "15:04:05.000000000") }
func eventClockSeconds(c *Context) (string, bool) { return formatTime(c, "15:04:05") }
func eventDateTime(c *Context) (string, bool)     { return formatTime(c, "2006-01-02 15:04:05.000000000") }
func eventISO(c *Context) (string, bool)          { return formatTime(c, time.RFC3339Nano) }

func eventRawTime(c *Context) (int64, bool) {
	if c.Event.GetTime() == nil {
		return 0, false
	}
	return c.Event.GetTime().AsTime().UnixNano(), true
}

// isOpenRead is false, not missing, for events that open nothing; so is isOpenWrite.
func isOpenRead(c *Context) (int64, bool) {
	open := c.Event.GetFileOpen()
	if open == nil || open.GetFlags()&pathOnly != 0 {
		return 0, true
	}
	return flag(open.GetFlags()&accessMode != writeOnly)
}

func isOpenWrite(c *Context) (int64, bool) {
	open := c.Event.GetFileOpen()
	if open == nil || open.GetFlags()&pathOnly != 0 {
		return 0, true
	}
	mode := open.GetFlags() & accessMode
	return flag(mode == writeOnly || mode == readWrite)
}

// creates says whether an open's flags create a file. Falco looks at the mode that the call asks for, which says no more than this
// whether the file was there before.
func creates(open *eventv1.FileOpen) bool {
	return open.GetFlags()&createFile != 0 || open.GetFlags()&temporaryFile == temporaryFile
}

func isOpenCreate(c *Context) (int64, bool) {
	open := c.Event.GetFileOpen()
	return flag(open != nil && creates(open))
}

func isOpenExec(c *Context) (int64, bool) {
	open := c.Event.GetFileOpen()
	return flag(open != nil && creates(open) && open.GetFile().GetMode()&anyExecute != 0)
}

// eventCategory follows Falco's words as far as it has them.
func eventCategory(c *Context) (string, bool) {
	switch kind := KindOf(c.Event); {
	case kind == 0:
		return "", false
	case kind.Has(pathKinds&^(KindExecFailed|KindModuleLoad) | pairKinds):
		return "file", true
	case kind.Has(socketKinds):
		return "net", true
	case kind.Has(dnsKinds):
		return "dns", true
	case kind.Has(LifeCycle | KindExisting | KindExecFailed):
		return "process", true
	case kind.Has(protKinds | KindMemfd):
		return "memory", true
	case kind == KindSignal:
		return "signal", true
	case kind.Has(KindSetuid | KindSetgid | KindSetgroups):
		return "user", true
	}
	return "system", true
}

func isMainThread(c *Context) (int64, bool) {
	tid, ok := threadID(c)
	pid, known := processID(c)
	if !ok || !known {
		return 0, false
	}
	return flag(tid == pid)
}

// rawResult is the result, if the event's hook knows it. An exec or fork that is reported has succeeded. An open or accept
// has too, but with a descriptor that the record does not carry.
func rawResult(c *Context) (int64, bool) {
	if c.Event.GetResultKnown() {
		return c.Event.GetResult(), true
	}
	switch kind := c.Event.GetKind().(type) {
	case *eventv1.Event_Exec:
		return 0, true
	case *eventv1.Event_Fork:
		return int64(kind.Fork.GetChild().GetPid()), true
	case *eventv1.Event_Connect:
		return int64(kind.Connect.GetResult()), true
	}
	return 0, false
}

// SignOnly is the events whose result, or descriptor, may be known only to be 0 or more.
const SignOnly = KindFileOpen | KindAccept

// rawResultSign adds that an open or accept that is reported has succeeded.
func rawResultSign(c *Context) (int64, bool) {
	n, ok := rawResult(c)
	return n, ok || KindOf(c.Event).Has(SignOnly)
}

func eventResult(c *Context) (string, bool) {
	n, ok := rawResultSign(c)
	switch {
	case !ok:
		return "", false
	case n >= 0:
		return "SUCCESS", true
	}
	if name := uapi.Errno(uint64(-n)); name[0] == 'E' {
		return name, true
	}
	return strconv.FormatInt(n, 10), true
}

func eventFailed(c *Context) (int64, bool) {
	n, ok := rawResultSign(c)
	if !ok {
		return 0, false
	}
	return flag(n < 0 && n != -inProgress)
}

const inProgress = 115 // EINPROGRESS

func userID(c *Context) (int64, bool) {
	if cred := c.Event.GetCredentials(); cred != nil {
		return int64(cred.GetEffectiveUid()), true
	}
	if c.Process == nil {
		return 0, false
	}
	return int64(c.Process.EUID), true
}

func groupID(c *Context) (int64, bool) {
	if cred := c.Event.GetCredentials(); cred != nil {
		return int64(cred.GetEffectiveGid()), true
	}
	if c.Process == nil {
		return 0, false
	}
	return int64(c.Process.GID), true
}

func loginID(c *Context) (int64, bool) {
	var login uint32
	switch cred := c.Event.GetCredentials(); {
	case cred != nil:
		login = cred.GetLoginUid()
	case c.Process != nil:
		login = c.Process.LoginUID
	default:
		return 0, false
	}
	if login == NoLogin {
		return -1, true
	}
	return int64(login), true
}

// effectiveCaps is present and empty for a process that has none.
func effectiveCaps(c *Context) (string, bool) {
	cred := c.Event.GetCredentials()
	return c.spelled(capabilities, cred.GetEffectiveCapabilities()), cred != nil
}
