package field

import (
	"slices"
	"strconv"
	"strings"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/glob"
)

// mountFields are container.mount*: what the runtime mounted into the container. A mount is named by its place in the list, from 0
// on, or by a path, which may be a shell pattern; the first that matches is meant.
var mountFields = map[string]Field{
	"container.mounts":       {Doc: "every mount as source:destination:mode:writable:propagation, joined by commas; mode and propagation are empty", Show: showMounts, Str: mountsText},
	"container.mount":        {Doc: "one mount, as in container.mounts, by number or source", arg: requiredKey, strKey: mountStr(bySource, mountText)},
	"container.mount.source": {Doc: "source of a mount by number or destination", arg: requiredKey, strKey: mountStr(byDestination, bySource)},
	"container.mount.dest":   {Doc: "destination of a mount by number or source", arg: requiredKey, strKey: mountStr(bySource, byDestination)},
	"container.mount.rdwr":   {Doc: "true if a mount, by number or source, is writable, else false", arg: requiredKey, strKey: mountStr(bySource, writable)},
}

func bySource(m *findingv1.Mount) string      { return m.GetSource() }
func byDestination(m *findingv1.Mount) string { return m.GetDestination() }
func writable(m *findingv1.Mount) string      { return strconv.FormatBool(!m.GetReadOnly()) }
func mountText(m *findingv1.Mount) string     { return string(appendMount(nil, m)) }

func appendMount(dst []byte, m *findingv1.Mount) []byte {
	dst = append(append(dst, m.GetSource()...), ':')
	dst = append(append(dst, m.GetDestination()...), "::"...)
	return append(strconv.AppendBool(dst, !m.GetReadOnly()), ':')
}

// mountStr reads a part of the mount that is asked for by number, or by another part.
func mountStr(key, part func(*findingv1.Mount) string) func(*Context, string) (string, bool) {
	return func(c *Context, name string) (string, bool) {
		mounts := c.Workload.GetMounts()
		place := slices.IndexFunc(mounts, func(m *findingv1.Mount) bool { return glob.Match(name, key(m)) })
		if !strings.HasPrefix(name, "/") { // a number, if it is one
			if n, err := strconv.ParseUint(name, 10, 16); err == nil {
				place = int(n)
			}
		}
		if place < 0 || place >= len(mounts) {
			return "", false
		}
		return part(mounts[place]), true
	}
}

// mountsText is for people, so it allocates; no condition should use it.
func mountsText(c *Context) (string, bool) {
	raw, ok := showMounts(nil, c)
	return string(raw), ok
}

func showMounts(dst []byte, c *Context) ([]byte, bool) {
	mounts := c.Workload.GetMounts()
	for i, m := range mounts {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendMount(dst, m)
	}
	return dst, len(mounts) > 0
}
