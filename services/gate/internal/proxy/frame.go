package proxy

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// frame is one message whose bytes are passed on unread. The zero frame is an empty message.
type frame struct{ data mem.BufferSlice }

// codec passes frames through as they are, and everything else (health, status, metrics) to the proto codec. It
// answers to the proto codec's name, so that neither side of the window sees a difference.
type codec struct{ proto encoding.CodecV2 }

func newCodec() codec { return codec{proto: encoding.GetCodecV2(proto.Name)} }

// Marshal hands the frame's buffers to the transport, which frees them.
func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	f, ok := message.(*frame)
	if !ok {
		return c.proto.Marshal(message)
	}
	data := f.data
	f.data = nil
	return data, nil
}

// Unmarshal keeps the buffers beyond the call, hence the reference.
func (c codec) Unmarshal(data mem.BufferSlice, message any) error {
	f, ok := message.(*frame)
	if !ok {
		return c.proto.Unmarshal(data, message)
	}
	if f.data != nil {
		return fmt.Errorf("read into a frame that still holds %d bytes", f.data.Len())
	}
	data.Ref()
	f.data = data
	return nil
}

// Name is the content subtype on the wire.
func (codec) Name() string { return proto.Name }
