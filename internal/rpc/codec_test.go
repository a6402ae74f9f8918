package rpc_test

import (
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// A message comes in any number of pieces, and gRPC uses their memory again.
func TestFastCodecKeepsNothingOfItsInput(t *testing.T) {
	want := &collectorv1.StreamEventsResponse{BootId: "boot", Events: []*eventv1.Event{
		{Comm: "sh", Kind: &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: "/bin/sh"}, Argv: []string{"sh", "-c", "id"}}}},
		{Comm: "id", Kind: &eventv1.Event_Accept{Accept: &eventv1.Accept{Remote: &eventv1.SocketAddress{Ip: []byte{127, 0, 0, 1}, Port: 80}}}},
	}}
	input, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range input {
		raw, got := append([]byte(nil), input...), &collectorv1.StreamEventsResponse{}
		if err := rpc.FastCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw[:cut]), mem.SliceBuffer(raw[cut:])}, got); err != nil {
			t.Fatalf("Unmarshal() = %v", err)
		}
		clear(raw)
		if !proto.Equal(got, want) {
			t.Fatalf("Unmarshal()\n got %v\nwant %v", got, want)
		}
	}
}

// Other messages than those of streams are decoded too.
func TestFastCodecDecodesOtherMessages(t *testing.T) {
	want := &collectorv1.StreamEventsRequest{AcknowledgedBatch: 7}
	raw, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := &collectorv1.StreamEventsRequest{}
	if err := rpc.FastCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, got); err != nil || !proto.Equal(got, want) {
		t.Errorf("Unmarshal() = %v, %v, want %v", got, err, want)
	}
}
