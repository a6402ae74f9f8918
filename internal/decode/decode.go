// Package decode reads batches of events, and recorded entries with such batches in them, from protobuf's wire format. Data in:
// bytes, which it does not keep; data out: messages. It makes few and larger allocations: an event with all that almost every
// event has is one, what happened is another, and the text of an exec is one string that its paths and arguments are parts of.
// Events of a batch share what is the same: credentials, namespaces, comm. So messages must not be changed in place.
//
// It knows the fields that come with most events. Every other one (a new one too, and whatever is not well-formed) it gives to the
// generated decoder of the message it stands in, so that no field is lost here. Text is not checked to be UTF-8.
package decode

import (
	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// Decodable is a message with a generated decoder, which adds what it reads to what the message holds already.
type Decodable interface{ UnmarshalVT(raw []byte) error }

// Message reads raw into m, which is empty and keeps nothing of raw's memory. Errors are those of the generated decoder.
func Message(raw []byte, m Decodable) error {
	switch m := m.(type) {
	case *collectorv1.StreamEventsResponse:
		return batch(raw, m)
	case *correlatorv1.RecordedEntry:
		return entry(raw, m)
	}
	return m.UnmarshalVT(raw)
}

// Fields that hold batches and events.
const (
	entryBatch    = 3<<3 | bytesType
	recordedBatch = 1<<3 | bytesType
	batchEvents   = 4<<3 | bytesType
)

func entry(raw []byte, m *correlatorv1.RecordedEntry) error {
	return each(raw, m, func(tag, _ uint64, from, behind int) (bool, error) {
		if tag != entryBatch || m.GetKind() != nil {
			return false, nil
		}
		recorded := &correlatorv1.RecordedBatch{}
		m.Kind = &correlatorv1.RecordedEntry_Batch{Batch: recorded}
		return true, recording(raw[from:behind], recorded)
	})
}

func recording(raw []byte, m *correlatorv1.RecordedBatch) error {
	return each(raw, m, func(tag, _ uint64, from, behind int) (bool, error) {
		if tag != recordedBatch || m.GetBatch() != nil {
			return false, nil
		}
		m.Batch = &collectorv1.StreamEventsResponse{}
		return true, batch(raw[from:behind], m.GetBatch())
	})
}

func batch(raw []byte, m *collectorv1.StreamEventsResponse) error {
	if n := count(raw, batchEvents); n > 0 {
		m.Events = make([]*eventv1.Event, 0, n)
	}
	var d decoder
	return each(raw, m, func(tag, _ uint64, from, behind int) (bool, error) {
		if tag != batchEvents {
			return false, nil
		}
		w := &whole{}
		m.Events = append(m.Events, &w.event)
		return true, d.event(raw[from:behind], w)
	})
}
