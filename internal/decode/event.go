package decode

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// Fields of an event.
const (
	eventSequence    = 1<<3 | varintType
	eventBoottime    = 2<<3 | varintType
	eventTime        = 3<<3 | bytesType
	eventProcess     = 4<<3 | bytesType
	eventTid         = 5<<3 | varintType
	eventParent      = 6<<3 | bytesType
	eventCgroup      = 7<<3 | varintType
	eventNamespaces  = 8<<3 | bytesType
	eventCredentials = 9<<3 | bytesType
	eventComm        = 10<<3 | bytesType
	eventAbi         = 11<<3 | varintType
	eventResult      = 12<<3 | varintType
	eventResultKnown = 13<<3 | varintType
	eventRing        = 14<<3 | varintType
	eventPosition    = 15<<3 | varintType
	eventWorkload    = 18<<3 | varintType

	eventExec       = 20<<3 | bytesType
	eventFork       = 21<<3 | bytesType
	eventExit       = 22<<3 | bytesType
	eventFileOpen   = 23<<3 | bytesType
	eventConnect    = 24<<3 | bytesType
	eventExisting   = 26<<3 | bytesType
	eventFileChange = 31<<3 | bytesType
	eventMemory     = 32<<3 | bytesType
	eventSocket     = 33<<3 | bytesType
)

// whole is an event and what is each event's own.
type whole struct {
	event           eventv1.Event
	time            timestamppb.Timestamp
	process, parent eventv1.ProcessKey
}

// decoder is for the events of a batch.
type decoder struct {
	comm        string
	namespaces  recent[eventv1.Namespaces, *eventv1.Namespaces]
	credentials recent[eventv1.Credentials, *eventv1.Credentials]
}

// event reads one. Numbers are cut to their fields' sizes, as the generated decoder does.
func (d *decoder) event(raw []byte, w *whole) error { //nolint:funlen // one line for each field
	e := &w.event
	for at := 0; at < len(raw); {
		tag, n, from, behind := next(raw, at)
		var err error
		switch tag {
		case 0:
			return alone(raw[at:], e)
		case eventSequence:
			e.Sequence = n
		case eventBoottime:
			e.BoottimeNs = n
		case eventTime:
			if e.Time = &w.time; !stamp(raw[from:behind], e.GetTime()) {
				err = e.UnmarshalVT(raw[at:behind])
			}
		case eventProcess:
			e.Process = &w.process
			err = key(raw[from:behind], e.GetProcess())
		case eventTid:
			e.Tid = uint32(n) //nolint:gosec // as said above, and below
		case eventParent:
			e.Parent = &w.parent
			err = key(raw[from:behind], e.GetParent())
		case eventCgroup:
			e.CgroupId = n
		case eventComm:
			e.Comm = d.name(raw[from:behind])
		case eventAbi:
			e.Abi = eventv1.Abi(n) //nolint:gosec // as above
		case eventResult:
			e.Result = int64(n) //nolint:gosec // as above
		case eventResultKnown:
			e.ResultKnown = n != 0
		case eventRing:
			e.Ring = uint32(n) //nolint:gosec // as above
		case eventPosition:
			e.Position = n
		case eventWorkload:
			e.WorkloadCgroupId = n
		case eventNamespaces:
			if e.GetNamespaces() != nil {
				return alone(raw[at:], e)
			}
			e.Namespaces, err = d.namespaces.read(raw[from:behind])
		case eventCredentials:
			if e.GetCredentials() != nil {
				return alone(raw[at:], e)
			}
			e.Credentials, err = d.credentials.read(raw[from:behind])
		default:
			err = kind(tag, raw[at:behind], raw[from:behind], e)
		}
		if err != nil {
			return err
		}
		at = behind
	}
	return nil
}

// name is comm as a string, which is that of the event before if it is the same.
func (d *decoder) name(raw []byte) string {
	if string(raw) != d.comm {
		d.comm = string(raw)
	}
	return d.comm
}

// alone reads the rest of an event with the generated decoder, which may add to what is there: the event first gets its own of what it
// shares.
func alone(rest []byte, e *eventv1.Event) error {
	if e.GetNamespaces() != nil {
		e.Namespaces = proto.CloneOf(e.GetNamespaces())
	}
	if e.GetCredentials() != nil {
		e.Credentials = proto.CloneOf(e.GetCredentials())
	}
	return e.UnmarshalVT(rest)
}

// Fields of a time, and of a process's key.
const (
	timeSeconds = 1<<3 | varintType
	timeNanos   = 2<<3 | varintType
	keyPID      = 1<<3 | varintType
	keyStart    = 2<<3 | varintType
)

// stamp reads a time, and returns false if there is more to it than is known here.
func stamp(raw []byte, t *timestamppb.Timestamp) bool {
	for at := 0; at < len(raw); {
		tag, n, _, behind := next(raw, at)
		switch tag {
		case timeSeconds:
			t.Seconds = int64(n) //nolint:gosec // as above
		case timeNanos:
			t.Nanos = int32(n) //nolint:gosec // as above
		default:
			return false
		}
		at = behind
	}
	return true
}

func key(raw []byte, k *eventv1.ProcessKey) error {
	for at := 0; at < len(raw); {
		tag, n, _, behind := next(raw, at)
		switch tag {
		case keyPID:
			k.Pid = uint32(n) //nolint:gosec // as above
		case keyStart:
			k.StartBoottimeNs = n
		default:
			return k.UnmarshalVT(raw[at:])
		}
		at = behind
	}
	return nil
}
