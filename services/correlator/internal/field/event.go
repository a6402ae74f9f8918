package field

import (
	"strconv"
	"strings"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// Parts of open(2)'s flags, as on every architecture we support (amd64, arm64 differ only above).
const (
	accessMode = 0o3
	writeOnly  = 0o1
	readWrite  = 0o2
	pathOnly   = 0o10000000
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
	"evt.is_open_read":     {Doc: "a file was opened with read access", Type: Bool, Num: isOpenRead},
	"evt.is_open_write":    {Doc: "a file was opened with write access", Type: Bool, Num: isOpenWrite},
	"evt.arg.flags":        {Doc: "flags of an open (O_...) or properties of an executable (EXE_...)", Kinds: KindFileOpen | KindExec, Str: eventFlags},
	"evt.res":              {Doc: "SUCCESS, or the name of the error", Kinds: resultKinds, Str: eventResult},
	"evt.rawres":           {Doc: "result of the call; of an open or accept only the sign is known", Type: Number, Kinds: resultKinds, Num: rawResult, Sign: rawResultSign},
	"evt.failed":           {Doc: "the call returned an error other than EINPROGRESS", Type: Bool, Kinds: resultKinds, Num: eventFailed},
	"evt.dir":              {Doc: "always <, the end of a call", Deprecated: "every event is the end of a call", Str: func(*Context) (string, bool) { return "<", true }},
	"user.uid":             {Doc: "effective user id", Type: Number, Num: userID},
	"user.name":            {Doc: "root for user id 0, else the id in decimal", Knows: knownUser, Str: func(c *Context) (string, bool) { return accountName(userID(c)) }},
	"user.loginuid":        {Doc: "audit login user id, -1 if never set", Type: Number, Num: loginID},
	"user.loginname":       {Doc: "root for login user id 0, else the id in decimal, missing if never set", Knows: knownUser, Str: func(c *Context) (string, bool) { return accountName(loginID(c)) }},
	"group.gid":            {Doc: "effective group id", Type: Number, Num: groupID},
	"group.name":           {Doc: "root for group id 0, else the id in decimal", Knows: knownUser, Str: func(c *Context) (string, bool) { return accountName(groupID(c)) }},
	"thread.tid":           {Doc: "acting thread, in the initial pid namespace", Type: Number, Num: threadID},
	"thread.cap_effective": {Doc: "effective capabilities by name, separated by spaces", Str: effectiveCaps},
}

// resultKinds are the events with a result of their own.
const resultKinds = KindExec | KindFork | KindFileOpen | KindConnect | KindAccept

func eventType(c *Context) (string, bool) { return text(typeName(KindOf(c.Event))) }

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

// rawResult is missing for an open and an accept: their result is a descriptor, which the record
// does not carry.
func rawResult(c *Context) (int64, bool) {
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

// rawResultSign adds that an open or accept that is reported has succeeded.
func rawResultSign(c *Context) (int64, bool) {
	switch c.Event.GetKind().(type) {
	case *eventv1.Event_FileOpen, *eventv1.Event_Accept:
		return 0, true
	}
	return rawResult(c)
}

func eventResult(c *Context) (string, bool) {
	n, ok := rawResultSign(c)
	if !ok {
		return "", false
	}
	if n >= 0 {
		return "SUCCESS", true
	}
	if name, ok := errnoNames[-n]; ok {
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

const inProgress = 115

// errnoNames are the errors that connect(2) is documented to return.
var errnoNames = map[int64]string{
	1: "EPERM", 4: "EINTR", 9: "EBADF", 11: "EAGAIN", 13: "EACCES", 14: "EFAULT", 22: "EINVAL",
	88: "ENOTSOCK", 91: "EPROTOTYPE", 97: "EAFNOSUPPORT", 98: "EADDRINUSE", 99: "EADDRNOTAVAIL",
	100: "ENETDOWN", 101: "ENETUNREACH", 103: "ECONNABORTED", 104: "ECONNRESET", 105: "ENOBUFS",
	106: "EISCONN", 110: "ETIMEDOUT", 111: "ECONNREFUSED", 113: "EHOSTUNREACH", 114: "EALREADY",
	inProgress: "EINPROGRESS",
}

// bitName names one bit of a mask.
type bitName struct {
	bit  uint32
	name string
}

// openFlags are open(2)'s flags as amd64 and arm64 agree on them. O_SYNC holds the bit of O_DSYNC.
var openFlags = [...]bitName{
	{0o100, "O_CREAT"}, {0o200, "O_EXCL"}, {0o400, "O_NOCTTY"}, {0o1000, "O_TRUNC"},
	{0o2000, "O_APPEND"}, {0o4000, "O_NONBLOCK"}, {0o10000, "O_DSYNC"}, {0o4000000, "O_SYNC"},
	{0o2000000, "O_CLOEXEC"}, {pathOnly, "O_PATH"}, {0o20000000, "O_TMPFILE"},
}

// eventFlags are names joined by |, as Falco writes them.
func eventFlags(c *Context) (string, bool) {
	cache := c.cached()
	if cache.flags != "" {
		return cache.flags, true
	}
	var names []string
	switch kind := c.Event.GetKind().(type) {
	case *eventv1.Event_FileOpen:
		names = openFlagNames(kind.FileOpen)
	case *eventv1.Event_Exec:
		names = exeFlagNames(kind.Exec.GetExe())
	}
	cache.flags = strings.Join(names, "|")
	return text(cache.flags)
}

func openFlagNames(open *eventv1.FileOpen) []string {
	names := []string{[...]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[open.GetFlags()&accessMode]}
	for _, f := range openFlags {
		if open.GetFlags()&f.bit == f.bit {
			names = append(names, f.name)
		}
	}
	if open.GetFile().GetUpperLayer() {
		names = append(names, "FD_UPPER_LAYER")
	}
	return names
}

func exeFlagNames(exe *eventv1.File) []string {
	var names []string
	if exe.GetUpperLayer() {
		names = append(names, "EXE_UPPER_LAYER")
	}
	if exe.GetMemfd() {
		names = append(names, "EXE_FROM_MEMFD")
	}
	if exe.GetUnlinked() {
		names = append(names, "EXE_UNLINKED")
	}
	return names
}
