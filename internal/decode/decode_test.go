package decode_test

import (
	"bytes"
	"runtime"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/decode"
)

// fill sets every field of a message, and of those below it; of a oneof, the one whose turn it is.
func fill(m protoreflect.Message, turn int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if of := f.ContainingOneof(); of != nil && of.Fields().Get(turn%of.Fields().Len()) != f {
			continue
		}
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(scalar(f.MapKey(), i).MapKey(), scalar(f.MapValue(), i))
		case f.IsList() && f.Message() != nil:
			fill(m.Mutable(f).List().AppendMutable().Message(), turn)
		case f.IsList():
			m.Mutable(f).List().Append(scalar(f, i))
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), turn)
		default:
			m.Set(f, scalar(f, i))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor, i int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("text ü")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{1, 2, 3})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(-int32(i) - 1) //nolint:gosec // few fields
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(-int64(i) - 1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1<<31 + uint32(i)) //nolint:gosec // as above
	default:
		return protoreflect.ValueOfUint64(1<<63 + uint64(i)) //nolint:gosec // as above
	}
}

// A field that was added to a message, and not to the generated decoder, would be lost without a word.
func TestMessageHasEveryField(t *testing.T) {
	kinds := (&eventv1.Event{}).ProtoReflect().Descriptor().Oneofs().Get(0).Fields().Len()
	for turn := range 2 * kinds {
		for _, m := range []proto.Message{&collectorv1.StreamEventsResponse{}, &correlatorv1.RecordedEntry{}} {
			fill(m.ProtoReflect(), turn)
			raw, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			got := m.ProtoReflect().New().Interface()
			input := bytes.Clone(raw)
			if err := decode.Message(input, got.(decode.Decodable)); err != nil {
				t.Fatalf("turn %d: Message(%T) = %v", turn, m, err)
			}
			clear(input)
			if !proto.Equal(got, m) {
				t.Errorf("turn %d: Message(%T)\n got %v\nwant %v", turn, m, got, m)
			}
			again, err := proto.MarshalOptions{Deterministic: true}.Marshal(got)
			if want, _ := (proto.MarshalOptions{Deterministic: true}).Marshal(m); err != nil || !bytes.Equal(again, want) {
				t.Errorf("turn %d: %T is another one once it is decoded: an unknown field?", turn, m)
			}
		}
	}
}

// sample is a batch of events of one process that has several kinds of credentials and namespaces, and of others in between.
func sample(t testing.TB, events int) (*collectorv1.StreamEventsResponse, []byte) {
	m := &collectorv1.StreamEventsResponse{BootId: "boot", Instance: "one", Batch: 7, Epoch: "rings"}
	for i := range events {
		one := &collectorv1.StreamEventsResponse{}
		fill(one.ProtoReflect(), i)
		e := one.GetEvents()[0]
		e.Comm = [...]string{"sh", "cat", "sh"}[i%3]
		e.Credentials.Uid, e.Namespaces.Mnt = uint32(i/2%6), uint32(i/3%7) //nolint:gosec // small
		if i%5 == 0 {
			e.Namespaces = nil
		}
		m.Events = append(m.Events, e)
	}
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return m, raw
}

// What events of a batch share is what each of them said.
func TestMessageSharesWhatIsTheSame(t *testing.T) {
	want, raw := sample(t, 400)
	got := &collectorv1.StreamEventsResponse{}
	if err := decode.Message(raw, got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("Message()\n got %v\nwant %v", got, want)
	}
}

// Protobuf lets a field come again: a message then adds to what was there. That must not reach the events that share it.
func TestMessageAddsToItsOwnOnly(t *testing.T) {
	event := func(uids ...uint32) []byte {
		var raw []byte
		for _, uid := range uids {
			raw = protowire.AppendTag(raw, 9, protowire.BytesType)
			raw = protowire.AppendBytes(raw, append(protowire.AppendTag(nil, 1, protowire.VarintType), byte(uid)))
		}
		return append(protowire.AppendTag(nil, 4, protowire.BytesType), protowire.AppendBytes(nil, raw)...)
	}
	raw := slices.Concat(event(1), event(1, 2), event(1))
	for _, tail := range [][]byte{nil, protowire.AppendFixed32(protowire.AppendTag(nil, 4000, protowire.Fixed32Type), 1)} {
		got := &collectorv1.StreamEventsResponse{}
		if err := decode.Message(append(slices.Clip(raw), tail...), got); err != nil {
			t.Fatal(err)
		}
		var uids []uint32
		for _, e := range got.GetEvents() {
			uids = append(uids, e.GetCredentials().GetUid())
		}
		if !slices.Equal(uids, []uint32{1, 2, 1}) {
			t.Errorf("uids = %v, want 1 2 1", uids)
		}
	}
}

// What comes again and again must not have what the event shares copied each time: a message is at most some MiB, the copies were not.
func TestMessageCopiesWhatIsSharedOnce(t *testing.T) {
	const times = 1000
	shared := protowire.AppendBytes(protowire.AppendTag(nil, 4000, protowire.BytesType), make([]byte, 64<<10)) // not known, and kept
	credentials := protowire.AppendBytes(protowire.AppendTag(nil, 9, protowire.BytesType), shared)
	for name, again := range map[string][]byte{
		"unknown": protowire.AppendVarint(protowire.AppendTag(nil, 4001, protowire.VarintType), 1),
		"kind":    protowire.AppendBytes(protowire.AppendTag(nil, 22, protowire.BytesType), nil),
		"shared":  protowire.AppendBytes(protowire.AppendTag(nil, 9, protowire.BytesType), nil),
	} {
		event := slices.Concat(credentials, protowire.AppendBytes(protowire.AppendTag(nil, 22, protowire.BytesType), nil), bytes.Repeat(again, times))
		raw := protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), event)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := decode.Message(raw, &collectorv1.StreamEventsResponse{}); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 16*uint64(len(raw)) {
			t.Errorf("%s, %d times: %d bytes allocated for a message of %d", name, times, allocated, len(raw))
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	m, raw := sample(b, 300)
	b.Run("here", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := decode.Message(raw, &collectorv1.StreamEventsResponse{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(m.GetEvents())), "events/op")
	})
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := (&collectorv1.StreamEventsResponse{}).UnmarshalVT(raw); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(m.GetEvents())), "events/op")
	})
}

// Whatever the bytes, the answer is the generated decoder's.
func FuzzMessage(f *testing.F) {
	for turn := range 30 {
		m := &collectorv1.StreamEventsResponse{}
		fill(m.ProtoReflect(), turn)
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(raw[:len(raw)/2])
		f.Add(slices.Concat(raw, raw))
	}
	_, raw := sample(f, 40)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, want := &collectorv1.StreamEventsResponse{}, &collectorv1.StreamEventsResponse{}
		gotErr, wantErr := decode.Message(raw, got), want.UnmarshalVT(raw)
		if (gotErr != nil) != (wantErr != nil) {
			t.Fatalf("Message() = %v, and the generated decoder says %v", gotErr, wantErr)
		}
		if wantErr == nil && !proto.Equal(got, want) {
			t.Errorf("Message()\n got %v\nwant %v", got, want)
		}
	})
}
