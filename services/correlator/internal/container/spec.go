package container

import (
	"encoding/json"
	"slices"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// maxMounts bounds what is kept of a container's mounts: more than a pod with many volumes has.
const maxMounts = 512

// spec is what is read of an OCI runtime specification.
type spec struct {
	Mounts []struct {
		Destination, Source string
		Options             []string
	}
	Annotations map[string]string
	Process     struct {
		Capabilities struct{ Bounding []string }
	}
	Linux struct {
		MaskedPaths []string
		Resources   struct {
			Devices []struct {
				Allow        bool
				Type, Access string
				Major, Minor *int64
			}
		}
	}
}

// parseSpec reads a specification. One that cannot be read says nothing: it is the runtime's, not the container's, and the
// container has its id and image all the same.
func parseSpec(raw []byte) spec {
	var s spec
	if json.Unmarshal(raw, &s) != nil {
		return spec{}
	}
	return s
}

// mounts are the mounts, read-only ones marked.
func (s spec) mounts() []*findingv1.Mount {
	var out []*findingv1.Mount
	for _, m := range s.Mounts[:min(len(s.Mounts), maxMounts)] {
		out = append(out, &findingv1.Mount{Source: m.Source, Destination: m.Destination, ReadOnly: slices.Contains(m.Options, "ro")})
	}
	return out
}

// privileged says whether the container may do what root may: OCI has no word for it, so it is what every runtime makes of
// its own: every device, CAP_SYS_ADMIN, and no masked path.
func (s spec) privileged() bool {
	devices := false
	for _, d := range s.Linux.Resources.Devices {
		if (d.Type == "" || d.Type == "a") && d.Major == nil && d.Minor == nil {
			devices = d.Allow
		}
	}
	return devices && len(s.Linux.MaskedPaths) == 0 && slices.Contains(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
}
