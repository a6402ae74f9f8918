package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

var (
	// ErrShort means that the record ends before a field it must have.
	ErrShort = errors.New("record too short")
	// ErrKind means that the record's kind is none of ours.
	ErrKind = errors.New("unknown kind of record")
)

// Decoder decodes records. It is a value and safe for concurrent use.
type Decoder struct {
	// boot is the wall clock time at which boottime was zero.
	boot time.Time
}

// NewDecoder returns a decoder that gives events wall clock time counted from boot.
func NewDecoder(boot time.Time) Decoder { return Decoder{boot: boot} }

// Stamp gives an event that no record stands for its time, and returns it.
func (d Decoder) Stamp(event *eventv1.Event, boottimeNs uint64) *eventv1.Event {
	event.BoottimeNs = boottimeNs
	event.Time = timestamppb.New(d.boot.Add(time.Duration(boottimeNs))) //nolint:gosec // 292 years
	return event
}

// facts is an event with what every kind has, in one allocation instead of six.
type facts struct {
	event       eventv1.Event
	time        timestamppb.Timestamp
	process     eventv1.ProcessKey
	parent      eventv1.ProcessKey
	namespaces  eventv1.Namespaces
	credentials eventv1.Credentials
}

// Decode makes an event of one record and keeps nothing of raw. Errors are ErrShort and ErrKind.
func (d Decoder) Decode(raw []byte) (*eventv1.Event, Kind, error) {
	if len(raw) < headerSize {
		return nil, 0, fmt.Errorf("header of %d bytes: %w", len(raw), ErrShort)
	}
	kind := Kind(u32(raw, headerKind))
	event := d.header(raw)
	if err := decodeKind(event, kind, raw); err != nil {
		return nil, kind, err
	}
	return event, kind, nil
}

// decodeKind adds what only the event's kind has: first the kinds that are alone in their message, then the families.
func decodeKind(event *eventv1.Event, kind Kind, raw []byte) (err error) {
	switch kind { //nolint:exhaustive // the others are in decodeFamily
	case Exec:
		var exec *eventv1.Exec
		exec, err = decodeExec(raw)
		event.Kind = &eventv1.Event_Exec{Exec: exec}
	case Existing:
		var exec *eventv1.Exec
		exec, err = decodeExec(raw)
		event.Kind = &eventv1.Event_Existing{Existing: exec}
	case Fork:
		event.Kind, err = decodeFork(raw)
	case Exit:
		event.Kind, err = decodeExit(raw)
	case FileOpen:
		event.Kind, err = decodeFileOpen(raw)
	case Connect:
		event.Kind, err = decodeConnect(raw)
	case Accept:
		event.Kind, err = decodeAccept(raw)
	case Signal:
		event.Kind, err = decodeSignal(raw)
	case DNSQuestion, DNSAnswer:
		event.Kind, err = decodeDNS(raw)
	case Duplicate:
		event.Kind, err = decodeDuplicate(raw)
	case IOUring:
		event.Kind, err = decodeIOUring(raw)
	case ExecFailed:
		var change *eventv1.FileChange
		change, err = decodeChange(raw, 0)
		event.Kind = &eventv1.Event_ExecFailed{ExecFailed: &eventv1.ExecFailed{File: change.GetFile()}}
	default:
		return decodeFamily(event, kind, raw)
	}
	return err
}

func decodeFamily(event *eventv1.Event, kind Kind, raw []byte) (err error) {
	if operation, ok := changes[kind]; ok {
		var change *eventv1.FileChange
		change, err = decodeChange(raw, operation)
		event.Kind = &eventv1.Event_FileChange{FileChange: change}
	} else if operation, ok := memories[kind]; ok {
		event.Kind, err = decodeMemory(raw, operation)
	} else if operation, ok := sockets[kind]; ok {
		event.Kind, err = decodeSocket(raw, operation)
	} else if operation, ok := privileges[kind]; ok {
		event.Kind, err = decodePrivilege(raw, operation)
	} else {
		err = fmt.Errorf("kind %d: %w", kind, ErrKind)
	}
	return err
}

// header fills what all kinds have; raw holds at least headerSize bytes.
func (d Decoder) header(raw []byte) *eventv1.Event {
	f := &facts{}
	boottime := u64(raw, headerBoottime)
	at := d.boot.Add(time.Duration(boottime))                        //nolint:gosec // nanoseconds since boot
	f.time.Seconds, f.time.Nanos = at.Unix(), int32(at.Nanosecond()) //nolint:gosec // below 1e9
	f.process.Pid = u32(raw, headerTGID)
	f.process.StartBoottimeNs = u64(raw, headerStart)
	f.parent.Pid = u32(raw, headerParentTGID)
	f.parent.StartBoottimeNs = u64(raw, headerParentStart)
	f.namespaces.Mnt = u32(raw, headerMountNS)
	f.namespaces.Pid = u32(raw, headerPIDNS)
	f.namespaces.Net = u32(raw, headerNetNS)
	f.namespaces.User = u32(raw, headerUserNS)
	f.credentials.Uid = u32(raw, headerUID)
	f.credentials.Gid = u32(raw, headerGID)
	f.credentials.EffectiveUid = u32(raw, headerEffectiveUID)
	f.credentials.EffectiveGid = u32(raw, headerEffectiveGID)
	f.credentials.LoginUid = u32(raw, headerLoginUID)
	f.credentials.EffectiveCapabilities = u64(raw, headerCapabilities)
	e := &f.event
	e.BoottimeNs = boottime
	e.Time, e.Process, e.Parent = &f.time, &f.process, &f.parent
	e.Namespaces, e.Credentials = &f.namespaces, &f.credentials
	e.Tid = u32(raw, headerTID)
	e.CgroupId = u64(raw, headerCgroup)
	comm, _, _ := bytes.Cut(raw[headerComm:headerComm+commSize], []byte{0})
	e.Comm = text(comm)
	flags := u32(raw, headerFlags)
	e.Abi = ABI(flags)
	e.Guard, e.Killed = u32(raw, headerGuard), flags&headerKilled != 0
	if flags&headerResultKnown != 0 {
		e.Result, e.ResultKnown = int64(u64(raw, headerResult)), true //nolint:gosec // the C field is signed
	}
	return e
}

// ABI is what the flags of a record say of the table that a system call came through.
func ABI(flags uint32) eventv1.Abi {
	switch {
	case flags&headerCompat32 != 0:
		return eventv1.Abi_ABI_COMPAT_32
	case flags&headerX32 != 0:
		return eventv1.Abi_ABI_X32
	}
	return eventv1.Abi_ABI_NATIVE
}

// text is raw as a string that protobuf accepts.
func text(raw []byte) string { return strings.ToValidUTF8(string(raw), "\uFFFD") }

// take cuts n bytes off the front of raw.
func take(raw []byte, n uint32, what string) (head, tail []byte, err error) {
	if uint64(n) > uint64(len(raw)) {
		return nil, nil, fmt.Errorf("%s of %d bytes in %d: %w", what, n, len(raw), ErrShort)
	}
	return raw[:n], raw[n:], nil
}

func u16(raw []byte, at int) uint16 { return binary.LittleEndian.Uint16(raw[at:]) }
func u32(raw []byte, at int) uint32 { return binary.LittleEndian.Uint32(raw[at:]) }
func u64(raw []byte, at int) uint64 { return binary.LittleEndian.Uint64(raw[at:]) }
