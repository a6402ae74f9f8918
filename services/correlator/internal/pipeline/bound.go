package pipeline

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// Bounds of what a finding carries, in bytes. Most of it is chosen by who is being watched, and a finding that the
// uplink does not take, because it is larger than 1 MiB, is a finding that nobody sees. Together they stay below 400 KiB.
const (
	// maxAncestors is how many ancestors a finding shows.
	maxAncestors = 32
	// maxArgv is for the process's own arguments; the event of an exec carries more.
	maxArgv         = 4 << 10
	maxAncestorArgv = 512
	maxExe          = 4 << 10
	maxAncestorExe  = 512
	// maxName is for a process's name, which is an argument of busybox.
	maxName   = 512
	maxOutput = 16 << 10
	// maxEventArgv is what a record holds. Decoding may make it longer, and each byte may be an argument.
	maxEventArgv = 32 << 10
	// maxLabels is for a container's labels together, which an image brings along, and for its pod's.
	maxLabels = 16 << 10
	// maxMounts is for a container's mounts together, whose paths are up to its owner.
	maxMounts = 32 << 10
)

// cutMark stands where something was cut.
const cutMark = "[cut]"

// shorten is s, if need be cut to limit bytes with the mark at its end.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit-len(cutMark)], "") + cutMark
}

// head is the first arguments, as many bytes as fit into limit if each is ended by one byte, and then the mark. The
// argument that does not fit is cut and not left out: what a shell runs is one argument.
func head(argv []string, limit int) []string {
	total := 0
	for _, arg := range argv {
		total += len(arg) + 1
	}
	if total <= limit {
		return argv
	}
	left := limit - len(cutMark) - 1
	var kept []string
	for _, arg := range argv {
		if len(arg)+1 > left {
			if left > 1 {
				kept = append(kept, strings.ToValidUTF8(arg[:left-1], ""))
			}
			break
		}
		kept = append(kept, arg)
		left -= len(arg) + 1
	}
	return append(kept, cutMark)
}

// lightEvent is the event, or a copy with less if it is too large. The event itself is others' too.
func lightEvent(event *eventv1.Event) *eventv1.Event {
	started := func(e *eventv1.Event) *eventv1.Exec {
		if exec := e.GetExec(); exec != nil {
			return exec
		}
		return e.GetExisting()
	}
	argv := started(event).GetArgv()
	kept := head(argv, maxEventArgv)
	if len(kept) == len(argv) && (len(argv) == 0 || &kept[0] == &argv[0]) {
		return event
	}
	light := proto.CloneOf(event)
	exec := started(light)
	exec.Argv, exec.ArgvTruncated = kept, true
	return light
}

// lightWorkload is the workload, or a copy with less if it is too large: the first of its labels by name, the first of its mounts, and
// the mark.
func lightWorkload(w *findingv1.Workload) *findingv1.Workload {
	if proto.Size(w) <= maxLabels {
		return w
	}
	light := proto.CloneOf(w)
	light.Labels, light.PodLabels = lightLabels(w.GetLabels()), lightLabels(w.GetPodLabels())
	light.Mounts = lightMounts(light.GetMounts())
	for _, name := range []*string{
		&light.ContainerId, &light.ContainerName, &light.Image, &light.ImageDigest, &light.Runtime,
		&light.PodName, &light.PodNamespace, &light.PodUid,
	} {
		*name = shorten(*name, maxExe)
	}
	return light
}

func lightLabels(labels map[string]string) map[string]string {
	size := 0
	for name, value := range labels {
		size += len(name) + len(value)
	}
	if size <= maxLabels {
		return labels
	}
	left := maxLabels - len(cutMark)
	light := map[string]string{cutMark: ""}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		value := labels[name]
		if left -= len(name) + len(value); left < 0 {
			break
		}
		light[name] = value
	}
	return light
}

func lightMounts(mounts []*findingv1.Mount) []*findingv1.Mount {
	left := maxMounts
	for i, m := range mounts {
		if left -= proto.Size(m); left < 0 {
			return append(mounts[:i:i], &findingv1.Mount{Source: cutMark})
		}
	}
	return mounts
}
