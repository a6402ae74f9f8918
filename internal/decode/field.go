package decode

import (
	"encoding/binary"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// Wire types. A tag is a field's number, shifted by three, and one of these.
const (
	varintType = 0
	bytesType  = 2
	typeMask   = 7
)

// next is the field that begins at at: a number n, or raw[from:behind]; the one after it begins at behind. The tag is 0 if the
// field is not well-formed or of another type, and then it is the generated decoder's, with all that follows.
//
// It is called some forty times for an event, so what it mostly sees is in it: a tag of one byte, and a number of up to eight, which
// it takes at once. Their lowest seven bits move together, two by two, four by four.
func next(raw []byte, at int) (tag, n uint64, from, behind int) {
	if at+9 > len(raw) || raw[at] >= 0x80 {
		return careful(raw, at)
	}
	tag, n = uint64(raw[at]), binary.LittleEndian.Uint64(raw[at+1:])
	if n&0x80 == 0 {
		n, from = n&0x7f, at+2
	} else {
		ends := ^n & 0x8080808080808080
		if ends == 0 {
			return careful(raw, at)
		}
		n &= (ends ^ (ends - 1)) & 0x7f7f7f7f7f7f7f7f
		n = n&0x007f007f007f007f | n>>1&0x3f803f803f803f80
		n = n&0x00003fff00003fff | n>>2&0x0fffc0000fffc000
		n = n&0x000000000fffffff | n>>4&0x00fffffff0000000
		from = at + bits.TrailingZeros64(ends)>>3 + 2
	}
	return bounded(raw, tag, n, from)
}

// bounded is next behind the tag and its number.
func bounded(raw []byte, tag, n uint64, from int) (_, _ uint64, _, behind int) {
	switch {
	case tag&typeMask == varintType:
		return tag, n, from, from
	case tag&typeMask == bytesType && n <= uint64(len(raw)-from): //nolint:gosec // not negative
		return tag, n, from, from + int(n) //nolint:gosec // at most raw's length
	}
	return 0, 0, 0, 0
}

// careful is next for what is left.
func careful(raw []byte, at int) (tag, n uint64, from, behind int) {
	tag, size := protowire.ConsumeVarint(raw[at:])
	if size < 0 {
		return 0, 0, 0, 0
	}
	n, more := protowire.ConsumeVarint(raw[at+size:])
	if more < 0 {
		return 0, 0, 0, 0
	}
	return bounded(raw, tag, n, at+size+more)
}

// each hands over a message's fields; take returns false for one that it does not know. Those, and all from the first that is not
// well-formed on, are the generated decoder's.
func each(raw []byte, m Decodable, take func(tag, n uint64, from, behind int) (bool, error)) error {
	for at := 0; at < len(raw); {
		tag, n, from, behind := next(raw, at)
		if tag == 0 {
			return m.UnmarshalVT(raw[at:])
		}
		known, err := take(tag, n, from, behind)
		if err == nil && !known {
			err = m.UnmarshalVT(raw[at:behind])
		}
		if err != nil {
			return err
		}
		at = behind
	}
	return nil
}

// count is how many fields with that tag raw has, as far as it is well-formed.
func count(raw []byte, tag uint64) int {
	found := 0
	for at := 0; at < len(raw); {
		t, _, _, behind := next(raw, at)
		if t == 0 {
			break
		}
		if t == tag {
			found++
		}
		at = behind
	}
	return found
}

// recent are the messages of a type that were read last, by their bytes. Those of the next event are often the same.
type recent[T any, M interface {
	*T
	Decodable
}] struct {
	raw   [4][]byte
	made  [4]M
	place int
}

// read is the message that these bytes make, or made before.
func (r *recent[T, M]) read(raw []byte) (M, error) {
	for i, m := range r.made {
		if m != nil && string(r.raw[i]) == string(raw) {
			return m, nil
		}
	}
	m := M(new(T))
	r.place = (r.place + 1) % len(r.raw)
	r.raw[r.place], r.made[r.place] = raw, m
	return m, m.UnmarshalVT(raw)
}
