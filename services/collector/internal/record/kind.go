// Package record turns the bytes that the BPF programs put on the ring into events. In: one record, laid out as
// bpf/event.h says. Out: one palisade.event.v1.Event. Every length is checked before it is used; the kernel side
// is ours, but a decoder that trusts it turns one bug there into two.
package record

// Kind says what a record tells. The numbers are bpf/event.h's enum record_kind.
type Kind uint32

// The kinds of record.
const (
	Exec     Kind = 1
	Fork     Kind = 2
	Exit     Kind = 3
	FileOpen Kind = 4
	Connect  Kind = 5
	Accept   Kind = 6
	Existing Kind = 7 // only from the task iterator, never on the ring
)

// Kinds is one more than the greatest kind.
const Kinds = 8

// Class is the name losses and counts are reported under, or "unknown".
func (k Kind) Class() string {
	switch k {
	case Exec:
		return "exec"
	case Fork:
		return "fork"
	case Exit:
		return "exit"
	case FileOpen:
		return "file_open"
	case Connect:
		return "connect"
	case Accept:
		return "accept"
	case Existing:
		return "existing"
	}
	return "unknown"
}
