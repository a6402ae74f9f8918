package handover

// state is what entry, which runs before the Go runtime, finds. The assembly knows the places of its fields.
type state struct {
	known   uint64    // 1 if entry ran: the linker was told to begin there
	ignored uint64    // signals, of which number n is bit n-1
	blocked uint64    // signals
	closed  uint64    // standard descriptors, of which number n is bit n
	scratch [4]uint64 //nolint:unused // where the kernel tells entry a signal's action
}

// inherited is written by entry, before there is anything that could read it.
var inherited state //nolint:gochecknoglobals // entry runs before there is a stack to put it on
