package field

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/glob"
)

// Answers of container.id that are no id.
const (
	// Host is the workload that is no container.
	Host = "host"
	// Pending is a process whose cgroup nobody has claimed yet. It differs from Host, so a rule
	// that asks for a container sees it: what acts before its metadata comes is not let off.
	Pending = "pending"
)

// shortID is how much of a container id Falco shows.
const shortID = 12

// workloadFields are container.* and k8s.*: whose process it is.
var workloadFields = map[string]Field{
	"container.id":               {Doc: "first 12 characters of the container's id, host, or pending", Str: containerID},
	"container.full_id":          {Doc: "the container's id, host, or pending", Str: containerFullID},
	"container.name":             {Doc: "container's name, host for the host", Str: containerName},
	"container.image":            {Doc: "image reference as the runtime keeps it", Str: workloadStr((*findingv1.Workload).GetImage)},
	"container.image.repository": {Doc: "image reference without tag and digest", Str: imagePart(repository)},
	"container.image.tag":        {Doc: "tag of the image reference", Str: imagePart(tag)},
	"container.image.digest":     {Doc: "digest of the image", Str: workloadStr((*findingv1.Workload).GetImageDigest)},
	"container.type":             {Doc: "runtime that keeps the container, host for the host", Str: containerType},
	"container.info":             {Doc: "container's id, name and image, for outputs", Str: containerInfo},
	"container.label":            {Doc: "a label of the container: container.label[NAME]", arg: requiredKey, strKey: label},
	"container.labels":           {Doc: "labels of the container as name:value, joined by commas", Show: showLabels, Str: labelsText},
	"container.privileged":       {Doc: "the container has all devices and capabilities, and nothing is masked", Type: Bool, Num: privileged},
	"container.start_ts":         {Doc: "when the runtime started the container, nanoseconds since 1970; containerd does not tell", Type: Number, Num: containerStart},
	"k8s.pod.label":              {Doc: "a label of the pod: k8s.pod.label[NAME]", arg: requiredKey, strKey: podLabel},
	"k8s.pod.uid":                {Doc: "pod's unique id", Str: podUID},
	"k8s.pod.id":                 {Doc: "the same as k8s.pod.uid", Str: podUID},
	"k8s.pod.name":               {Doc: "pod's name", Str: workloadStr((*findingv1.Workload).GetPodName)},
	"k8s.ns.name":                {Doc: "pod's namespace", Str: workloadStr((*findingv1.Workload).GetPodNamespace)},
}

// containerFullID answers for every event, so that `container.id != host` is never undecided.
func containerFullID(c *Context) (string, bool) {
	switch id := c.Workload.GetContainerId(); {
	case id != "":
		return id, true
	case isHost(c.Workload):
		return Host, true
	}
	return Pending, true
}

func containerID(c *Context) (string, bool) {
	id, _ := containerFullID(c)
	return id[:min(len(id), shortID)], true
}

// isHost says whether the workload is known to be no container.
func isHost(w *findingv1.Workload) bool {
	return w != nil && w.GetContainerId() == "" && w.GetMetadata() != findingv1.MetadataState_METADATA_STATE_PENDING
}

// workloadStr reads a string of the workload; missing if empty.
func workloadStr(get func(*findingv1.Workload) string) func(*Context) (string, bool) {
	return func(c *Context) (string, bool) { return text(get(c.Workload)) }
}

func containerName(c *Context) (string, bool) {
	if isHost(c.Workload) {
		return Host, true
	}
	return text(c.Workload.GetContainerName())
}

func containerType(c *Context) (string, bool) {
	if isHost(c.Workload) {
		return Host, true
	}
	return text(c.Workload.GetRuntime())
}

// podUIDLabel is what Kubernetes' runtimes put on each container of a pod.
const podUIDLabel = "io.kubernetes.pod.uid"

func podUID(c *Context) (string, bool) {
	if uid := c.Workload.GetPodUid(); uid != "" {
		return uid, true
	}
	return label(c, podUIDLabel)
}

// privileged is missing for the host, and while nobody has described the container.
func privileged(c *Context) (int64, bool) {
	if c.Workload.GetContainerId() == "" || c.Workload.GetMetadata() != findingv1.MetadataState_METADATA_STATE_KNOWN {
		return 0, false
	}
	return flag(c.Workload.GetPrivileged())
}

func containerStart(c *Context) (int64, bool) {
	start := c.Workload.GetStartTime()
	if start == nil {
		return 0, false
	}
	return start.AsTime().UnixNano(), true
}

// podLabel is present and may be empty.
func podLabel(c *Context, name string) (string, bool) {
	value, ok := c.Workload.GetPodLabels()[name]
	return value, ok
}

// label is present and may be empty.
func label(c *Context, name string) (string, bool) {
	value, ok := c.Workload.GetLabels()[name]
	return value, ok
}

// labelsText is for people, so it allocates; no condition should use it.
func labelsText(c *Context) (string, bool) {
	raw, ok := showLabels(nil, c)
	return string(raw), ok
}

func showLabels(dst []byte, c *Context) ([]byte, bool) {
	labels := c.Workload.GetLabels()
	for i, name := range slices.Sorted(maps.Keys(labels)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, name...), ':'), labels[name]...)
	}
	return dst, len(labels) > 0
}

// imagePart reads a part of the image reference; missing if empty.
func imagePart(part func(string) string) func(*Context) (string, bool) {
	return func(c *Context) (string, bool) { return text(part(c.Workload.GetImage())) }
}

// repository cuts digest and tag off. A colon before the last slash is a registry's port.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		return image[:colon]
	}
	return image
}

func tag(image string) string {
	image, _, _ = strings.Cut(image, "@")
	return strings.TrimPrefix(image[len(repository(image)):], ":")
}

// containerInfo is for people, so it allocates; no condition should use it.
func containerInfo(c *Context) (string, bool) {
	id, _ := containerID(c)
	info := "container_id=" + id
	if name, ok := containerName(c); ok {
		info += " container_name=" + name
	}
	if image := c.Workload.GetImage(); image != "" {
		info += " image=" + image
	}
	if pod := c.Workload.GetPodName(); pod != "" {
		info += " k8s_pod=" + c.Workload.GetPodNamespace() + "/" + pod
	}
	return info, true
}

// ofTheHost is which processes have users and groups with names of their own.
const ofTheHost = "of the host's processes only: in a container it is root, or the id in decimal"

// userName looks up the host's users for the host's processes. The ids of a container are not the host's: who they are stands in
// the container's own /etc/passwd, which is the attacker's to write, so only root is named there.
func userName(c *Context) (string, bool) {
	id, ok := userID(c)
	return c.account(id, ok, isHost(c.Workload), Accounts.User)
}

func groupName(c *Context) (string, bool) {
	id, ok := groupID(c)
	return c.account(id, ok, isHost(c.Workload), Accounts.Group)
}

// loginName is a user of the host's, whatever was entered since: one logs in to the host.
func loginName(c *Context) (string, bool) {
	id, ok := loginID(c)
	return c.account(id, ok, true, Accounts.User)
}

// account names an id. Root is called root, whatever the files say.
func (c *Context) account(id int64, ok, host bool, name func(Accounts, uint32) (string, bool)) (string, bool) {
	switch {
	case !ok || id < 0:
		return "", false
	case id == 0:
		return "root", true
	}
	if host && c.Accounts != nil {
		if known, ok := name(c.Accounts, uint32(id)); ok { //nolint:gosec // a uid or gid, which is 32 bits wide
			return known, true
		}
	}
	return strconv.FormatInt(id, 10), true
}

// knownAnywhere says whether an account of any workload can be called this: root, or a number.
func knownAnywhere(name string) bool {
	if name == "root" {
		return true
	}
	_, err := strconv.ParseUint(name, 10, 32)
	return err == nil
}

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
