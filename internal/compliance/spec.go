package compliance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxBytes bounds a spec. Docker's are about 20 KiB, mostly seccomp rules.
const maxBytes = 4 << 20

// Spec is what CEL sees as spec: the OCI runtime spec of a Linux container. Names are those of config.json. A part that is absent
// reads as empty (0, "", false, no items); has(spec.linux.seccomp) says whether it is there.
type Spec struct {
	Version     string            `json:"ociVersion"`
	Process     *specs.Process    `json:"process"`
	Root        *specs.Root       `json:"root"`
	Hostname    string            `json:"hostname"`
	Domainname  string            `json:"domainname"`
	Mounts      []specs.Mount     `json:"mounts"`
	Hooks       *specs.Hooks      `json:"hooks"`
	Annotations map[string]string `json:"annotations"`
	Linux       *specs.Linux      `json:"linux"`
}

// parseSpec reads a config.json with the decoder that runC uses, so that both see the same where a key is there twice or in
// another case. Unlike runC it refuses what follows the object.
func parseSpec(raw []byte) (*Spec, error) {
	if len(raw) > maxBytes {
		return nil, fmt.Errorf("read the OCI spec: larger than %d bytes", maxBytes)
	}
	spec := &Spec{}
	if err := json.Unmarshal(raw, spec); err != nil {
		return nil, fmt.Errorf("read the OCI spec: %w", err)
	}
	if spec.Linux == nil && spec.Process == nil {
		return nil, errors.New("read the OCI spec: it has neither process nor linux: is this a config.json?")
	}
	return spec, nil
}

// hasNamespace says whether the container gets a namespace of the type that is not the host's, as far as a spec can tell: one that
// is new, or one of another container. A namespace that is not listed is the host's. Docker gives the host's network by the path
// of its sandbox default.
func (s *Spec) hasNamespace(kind string) bool {
	if s.Linux == nil {
		return false
	}
	own := false
	for _, namespace := range s.Linux.Namespaces {
		if string(namespace.Type) != kind {
			continue
		}
		if hostPath(namespace.Path) {
			return false
		}
		own = true
	}
	return own
}

// hostPath says whether a namespace's path is known to lead to the host's.
func hostPath(path string) bool {
	if path == "" {
		return false
	}
	path = clean(path)
	return strings.HasSuffix(path, "/netns/default") || strings.HasPrefix(path, "/proc/1/") ||
		strings.HasPrefix(path, "/proc/self/") || strings.HasPrefix(path, "/proc/thread-self/")
}

// capabilities are all that the process has or can get, each once, in order of the sets.
func (s *Spec) capabilities() []string {
	if s.Process == nil || s.Process.Capabilities == nil {
		return nil
	}
	c := s.Process.Capabilities
	seen := map[string]bool{}
	var names []string
	for _, set := range [][]string{c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient} {
		for _, name := range set {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}
