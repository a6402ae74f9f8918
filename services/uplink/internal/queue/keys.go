package queue

import (
	"encoding/binary"
	"encoding/hex"
	"errors"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// The keys of the database, by their first byte.
//
//	f sequence(8) rank(1) id(16)   the finding, in order of arrival
//	d sequence(8)                  it has reached the console
//	i id(16)                       its sequence(8): this id is known; and, if its container is not, 0x80|rank(1)
//	m "unreported"                 how many were dropped since that was last reported
const (
	findingPrefix   = 'f'
	deliveredPrefix = 'd'
	idPrefix        = 'i'
	findingKeyBytes = 1 + 8 + 1 + idBytes
	idBytes         = 16
)

// unreportedKey counts dropped findings that nobody has been told about.
const unreportedKey = "munreported"

// ErrID says that a finding's id is not 32 lower-case hex digits.
var ErrID = errors.New("id is not 32 lower-case hex digits")

type id [idBytes]byte

// parseID reads the 32 hex digits of a finding's id.
func parseID(text string) (id, error) {
	var out id
	if len(text) != hex.EncodedLen(idBytes) {
		return out, ErrID
	}
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return out, ErrID
		}
	}
	if _, err := hex.Decode(out[:], []byte(text)); err != nil {
		return out, ErrID
	}
	return out, nil
}

func findingKey(sequence uint64, rank uint8, id id) []byte {
	key := make([]byte, 0, findingKeyBytes)
	key = append(key, findingPrefix)
	key = binary.BigEndian.AppendUint64(key, sequence)
	key = append(key, rank)
	return append(key, id[:]...)
}

// splitFindingKey is the reverse of findingKey; ok is false if the key is not one.
func splitFindingKey(key []byte) (sequence uint64, rank uint8, id id, ok bool) {
	if len(key) != findingKeyBytes || key[0] != findingPrefix || key[9] >= ranks {
		return 0, 0, id, false
	}
	copy(id[:], key[10:])
	return binary.BigEndian.Uint64(key[1:9]), key[9], id, true
}

func sequenceKey(prefix byte, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, sequence)
}

func idKey(id id) []byte { return append([]byte{idPrefix}, id[:]...) }

// place is what is kept of an id: where its finding lies, and whether another may take its place.
type place struct {
	sequence uint64
	rank     uint8
	// pending: nobody had claimed its container, so that it may be amended.
	pending bool
}

const (
	placeBytes   = 8
	pendingPlace = 0x80
)

func (p place) bytes() []byte {
	raw := binary.BigEndian.AppendUint64(nil, p.sequence)
	if p.pending {
		raw = append(raw, pendingPlace|p.rank)
	}
	return raw
}

// placeOf is the reverse of bytes. What is not one is of a finding that cannot be amended.
func placeOf(raw []byte) place {
	if len(raw) < placeBytes {
		return place{}
	}
	p := place{sequence: binary.BigEndian.Uint64(raw)}
	if len(raw) > placeBytes && raw[placeBytes]&pendingPlace != 0 {
		p.rank, p.pending = raw[placeBytes]&^pendingPlace, true
	}
	return p
}

// isPending says whether a finding may be amended.
func isPending(finding *findingv1.Finding) bool {
	return finding.GetWorkload().GetMetadata() == findingv1.MetadataState_METADATA_STATE_PENDING
}

// ranks is how many severities are told apart.
const ranks = 8

// rankOf orders priorities: 0 is the most severe. What has no priority counts as debug.
func rankOf(priority findingv1.Priority) uint8 {
	if priority < findingv1.Priority_PRIORITY_EMERGENCY || priority > findingv1.Priority_PRIORITY_DEBUG {
		return ranks - 1
	}
	return uint8(priority - findingv1.Priority_PRIORITY_EMERGENCY) //nolint:gosec // 0 to 7, see above
}
