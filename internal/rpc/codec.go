package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/palisade-sec/palisade/internal/decode"
)

// FastCodec is gRPC's codec for protobuf, but for messages that have a decoder without reflection, which it uses: for streams of
// events, where half of the receiver's time would go into decoding. It is for peers that are trusted to send text that is UTF-8,
// which it does not check.
func FastCodec() encoding.CodecV2 { return fastCodec{encoding.GetCodecV2(proto.Name)} }

type fastCodec struct{ encoding.CodecV2 }

// Unmarshal decodes data into v, which keeps nothing of data's memory.
func (c fastCodec) Unmarshal(data mem.BufferSlice, v any) error {
	fast, ok := v.(decode.Decodable)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	return decode.Message(whole.ReadOnlyData(), fast)
}
