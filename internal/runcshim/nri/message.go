package nri

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
)

// HookName is the hook's (services/enforcer/runc-shim/hook), as the build calls it and as it is started.
const HookName = "palisade-runc-hook"

// lengthBytes are before a message (docs/adr/0015), big-endian.
const lengthBytes = 4

// started is the word that a container starts, behind its length.
func started(id string) ([]byte, error) {
	raw, err := proto.Marshal(&enforcerv1.AdmissionRequest{ContainerId: id, Event: enforcerv1.AdmissionEvent_ADMISSION_EVENT_START})
	if err != nil {
		return nil, fmt.Errorf("write what starts: %w", err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...), nil //nolint:gosec // an id
}
