package ask

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// Event is what the engine wants of runC, with the numbers of AdmissionEvent.
type Event uint64

// The events.
const (
	Create Event = 1
	Start  Event = 2
)

// Question is an AdmissionRequest. TestMessages holds its numbers against the generated code.
type Question struct {
	Container, Bundle, Root string
	Spec                    []byte
	Event                   Event
	CgroupID                uint64
	Layers                  []string
}

// Numbers of AdmissionRequest's fields.
const (
	fieldContainer = 1
	fieldBundle    = 2
	fieldSpec      = 3
	fieldRoot      = 4
	fieldEvent     = 5
	fieldCgroup    = 6
	fieldLayers    = 7
)

func (q Question) marshal() []byte {
	out := make([]byte, 0, len(q.Spec)+4096)
	text := func(number protowire.Number, value string) {
		if value != "" {
			out = protowire.AppendString(protowire.AppendTag(out, number, protowire.BytesType), value)
		}
	}
	whole := func(number protowire.Number, value uint64) {
		if value != 0 {
			out = protowire.AppendVarint(protowire.AppendTag(out, number, protowire.VarintType), value)
		}
	}
	text(fieldContainer, q.Container)
	text(fieldBundle, q.Bundle)
	if len(q.Spec) > 0 {
		out = protowire.AppendBytes(protowire.AppendTag(out, fieldSpec, protowire.BytesType), q.Spec)
	}
	text(fieldRoot, q.Root)
	whole(fieldEvent, uint64(q.Event))
	whole(fieldCgroup, q.CgroupID)
	for _, layer := range q.Layers {
		text(fieldLayers, layer)
	}
	return out
}

// Answer is an AdmissionResponse.
type Answer struct {
	Denied bool
	// Message is for the user of the engine, several lines.
	Message string
}

// Refusal is what the user of the engine is told, never "".
func (a Answer) Refusal() string {
	if a.Message == "" {
		return "Palisade refuses this container"
	}
	return a.Message
}

// Numbers of AdmissionResponse's fields, and of AdmissionVerdict.
const (
	fieldVerdict = 1
	fieldMessage = 2

	verdictAllow = 1
	verdictDeny  = 2
)

var errNoVerdict = errors.New("the answer has no verdict that is known")

// parse reads an answer. One that says neither yes nor no is none.
func parse(raw []byte) (Answer, error) {
	var a Answer
	var verdict uint64
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return Answer{}, protowire.ParseError(n)
		}
		raw = raw[n:]
		switch {
		case number == fieldVerdict && kind == protowire.VarintType:
			verdict, n = protowire.ConsumeVarint(raw)
		case number == fieldMessage && kind == protowire.BytesType:
			a.Message, n = protowire.ConsumeString(raw)
		default:
			n = protowire.ConsumeFieldValue(number, kind, raw)
		}
		if n < 0 {
			return Answer{}, protowire.ParseError(n)
		}
		raw = raw[n:]
	}
	a.Denied = verdict == verdictDeny
	if verdict != verdictAllow && verdict != verdictDeny {
		return Answer{}, errNoVerdict
	}
	return a, nil
}
