package rpc_test

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
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
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("key").MapKey(), protoreflect.ValueOfString("value"))
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
func TestFastCodecDecodesEveryField(t *testing.T) {
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
			if err := rpc.FastCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(input[:len(raw)/2]), mem.SliceBuffer(input[len(raw)/2:])}, got); err != nil {
				t.Fatalf("turn %d: Unmarshal(%T) = %v", turn, m, err)
			}
			clear(input)
			if !proto.Equal(got, m) {
				t.Errorf("turn %d: Unmarshal(%T)\n got %v\nwant %v", turn, m, got, m)
			}
			again, err := proto.MarshalOptions{Deterministic: true}.Marshal(got)
			if want, _ := (proto.MarshalOptions{Deterministic: true}).Marshal(m); err != nil || !bytes.Equal(again, want) {
				t.Errorf("turn %d: %T is another one once it is decoded: an unknown field?", turn, m)
			}
		}
	}
}

func FuzzFastCodec(f *testing.F) {
	for turn := range 30 {
		m := &collectorv1.StreamEventsResponse{}
		fill(m.ProtoReflect(), turn)
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(raw[:len(raw)/2])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, want := &collectorv1.StreamEventsResponse{}, &collectorv1.StreamEventsResponse{}
		if proto.Unmarshal(raw, want) != nil {
			_ = rpc.FastCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, got) // ends, whatever it says
			return
		}
		if err := rpc.FastCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, got); err != nil {
			t.Errorf("Unmarshal() = %v, and protobuf's own takes it", err)
		}
	})
}
