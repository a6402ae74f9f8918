package stream

import (
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

const (
	// batchOverhead is a batch's own memory beyond its events.
	batchOverhead = 256
	// eventOverhead is what an event takes in memory beyond what it takes encoded: a dozen structs. A test measures it.
	eventOverhead = 768
	// argOverhead is a string's header: an argument may be empty, and a process may have 32 Ki of them.
	argOverhead = 16
)

// footprint is about how much memory a batch takes. The encoded size alone would be several times too low, and the
// collector's control group has room for tens of MiB only.
func footprint(events []*eventv1.Event) int {
	size := batchOverhead
	for _, event := range events {
		size += eventOverhead + proto.Size(event) + argOverhead*len(event.GetExec().GetArgv())
	}
	return size
}
