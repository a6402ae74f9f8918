package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maxInfoBytes bounds what is read of a runtime's own words about a container: a specification with all its mounts.
	maxInfoBytes = 4 << 20
	// maxPID is the kernel's PID_MAX_LIMIT.
	maxPID = 4 << 20
)

// errNoInfo says that a runtime did not add its own words, in which the pid is.
var errNoInfo = errors.New("no verbose info")

// criInfo is what is read of the JSON that CRI-O and containerd add to a status that is asked for verbosely. The CRI has no field for a
// pid, and both call it so here.
type criInfo struct {
	SandboxID   string          `json:"sandboxID"`
	PID         int64           `json:"pid"`
	Privileged  bool            `json:"privileged"`
	RuntimeSpec json.RawMessage `json:"runtimeSpec"`
}

// parseCRIInfo reads the key "info" of a verbose status. A pid that cannot be one is none.
func parseCRIInfo(words map[string]string) (criInfo, error) {
	raw, ok := words["info"]
	switch {
	case !ok:
		return criInfo{}, errNoInfo
	case len(raw) > maxInfoBytes:
		return criInfo{}, fmt.Errorf("parse info: %d bytes are more than %d", len(raw), maxInfoBytes)
	}
	var info criInfo
	if err := json.Unmarshal([]byte(raw), &info); err != nil {
		return criInfo{}, fmt.Errorf("parse info: %w", err)
	}
	if info.PID < 0 || info.PID > maxPID {
		info.PID = 0
	}
	return info, nil
}

// pid is the first process, 0 if there is none.
func (i criInfo) pid() uint32 { return uint32(i.PID) } //nolint:gosec // parseCRIInfo bounds it

// criImage is a container's image: the reference it was asked for by, and a digest. That is the manifest's, or the image's id where the
// runtime knows no registry that it came from.
func criImage(status *runtimeapi.ContainerStatus) (reference, digest string) {
	reference = status.GetImage().GetImage()
	if asked := status.GetImage().GetUserSpecifiedImage(); asked != "" && imageID(reference) != "" {
		reference = asked // the kubelet asks by id what it has pulled by name
	}
	if reference == "" { // CRI-O knows no name of it
		reference = status.GetImageRef()
	}
	words := []string{status.GetImageRef(), status.GetImageId(), status.GetImage().GetImage()}
	for _, word := range words {
		if _, of, ok := strings.Cut(word, "@"); ok && imageID(of) != "" {
			return reference, of
		}
	}
	for _, word := range words {
		if id := imageID(word); id != "" {
			return reference, id
		}
	}
	return reference, ""
}

// imageID is s as a digest if it is a whole id, with or without its algorithm, else empty.
func imageID(s string) string {
	const digits = 64
	hex := strings.TrimPrefix(s, "sha256:")
	if len(hex) != digits || strings.Trim(hex, "0123456789abcdef") != "" {
		return ""
	}
	return "sha256:" + hex
}
