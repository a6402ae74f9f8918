package sample

import (
	"path"
	"time"

	"go.yaml.in/yaml/v3"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/account"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/uapi"
)

const (
	// now is when a sample happens, nanoseconds since boot.
	now = uint64(100 * time.Hour)
	// firstPID is the acting process's; its ancestors have those below.
	firstPID = 1000
	// terminal is the device of pts/1.
	terminal = 0x8801
	// defaultExe is what a process runs that no sample says more of.
	defaultExe = "/usr/local/bin/app"
)

func wallClock() time.Time { return time.Unix(1_700_000_000, 0) }

// process reads who acts, and sets the event's part of it.
func (d *decoder) process(event *eventv1.Event) *field.Process {
	p := d.program(firstPID)
	event.Process = &eventv1.ProcessKey{Pid: p.Key.PID, StartBoottimeNs: p.Key.StartBoottimeNs}
	event.Tid, event.Comm = p.Key.PID, p.Name[:min(len(p.Name), 15)]
	event.Credentials = &eventv1.Credentials{
		Uid: p.UID, EffectiveUid: p.EUID, Gid: p.GID, EffectiveGid: p.GID, LoginUid: p.LoginUID,
		EffectiveCapabilities: d.bits("capabilities", uapi.Capabilities),
	}
	child := p
	if node := d.get("parents"); node != nil {
		if node.Kind != yaml.SequenceNode {
			d.fail(node, "parents must be a sequence, the nearest first")
			return p
		}
		for i, item := range node.Content {
			child.Parent = d.ancestor(item, uint32(firstPID-1-i)) //nolint:gosec // a list of a rule file is not that long
			if child.Parent.Key.StartBoottimeNs > child.Key.StartBoottimeNs {
				child.Parent.Key.StartBoottimeNs = child.Key.StartBoottimeNs - 1
			}
			child = child.Parent
		}
	}
	if d.boolean("leads_session") {
		p.Session = p.Key.PID
	} else {
		p.Session = child.Key.PID
	}
	p.Group = p.Session
	return p
}

// ancestor is the path of an executable, or a mapping as for the process itself.
func (d *decoder) ancestor(node *yaml.Node, pid uint32) *field.Process {
	if node.Kind == yaml.ScalarNode {
		return &field.Process{
			Key: field.Key{PID: pid, StartBoottimeNs: now - uint64(time.Hour)}, Name: field.NameOf(node.Value, "", nil), Exe: node.Value,
			Argv: []string{node.Value}, LoginUID: field.NoLogin, Cwd: "/",
		}
	}
	if node.Kind != yaml.MappingNode {
		d.fail(node, "parent must be a path or a mapping")
		return &field.Process{}
	}
	in := d.inner(node)
	p := in.program(pid)
	in.done("parent")
	return p
}

// program reads what a process runs, and as whom.
func (d *decoder) program(pid uint32) *field.Process {
	exe, argv := d.str("exe"), d.strs("argv")
	if exe == "" {
		exe = defaultExe
	}
	if argv == nil {
		argv = []string{path.Base(exe)}
	}
	age := time.Second
	if s := d.str("age"); s != "" {
		t, err := time.ParseDuration(s)
		if err != nil || t < 0 || t > 99*time.Hour {
			d.fail(d.values["age"], "age must be a time, as in 5s or 2h, not %q", s)
		} else {
			age = t
		}
	}
	uid := d.number32("uid", 0)
	p := &field.Process{
		Key: field.Key{PID: pid, StartBoottimeNs: now - uint64(age)}, Exe: exe, Argv: argv, Cwd: d.directory("cwd"), //nolint:gosec // not negative
		Name: field.NameOf(exe, d.str("comm"), argv), UID: uid, EUID: uid, GID: d.number32("gid", uid), LoginUID: d.number32("login_uid", field.NoLogin),
	}
	if d.boolean("tty") {
		p.TTY = terminal
	}
	for _, s := range d.strs("exe_is") {
		switch s {
		case "upper_layer":
			p.ExeUpperLayer = true
		case "memfd":
			p.ExeMemfd = true
		case "unlinked":
			p.ExeUnlinked = true
		default:
			d.fail(d.values["exe_is"], "exe_is must be among upper_layer, memfd and unlinked, not %q", s)
		}
	}
	return p
}

// accounts are the host's, which have the names that the sample gives the process's ids.
func (d *decoder) accounts(p *field.Process) *account.Table {
	n := &correlatorv1.Accounts{Users: map[uint32]string{}, Groups: map[uint32]string{}}
	for key, to := range map[string]struct {
		names map[uint32]string
		id    uint32
	}{"user": {n.GetUsers(), p.EUID}, "login": {n.GetUsers(), p.LoginUID}, "group": {n.GetGroups(), p.GID}} {
		if name := d.str(key); name != "" {
			to.names[to.id] = name
		}
	}
	return account.Of(n)
}

// directory is a path with a slash at its end, / if it is absent.
func (d *decoder) directory(key string) string {
	s := d.str(key)
	if s == "" || s[len(s)-1] != '/' {
		s += "/"
	}
	return s
}

// workload is container (as if absent), host or pending, or a mapping that describes a container.
func (d *decoder) workload() *findingv1.Workload {
	w := &findingv1.Workload{
		ContainerId: "0123456789abcdef0123456789abcdef", ContainerName: "app", Image: "registry.example/team/app:1.0",
		ImageDigest: "sha256:ab", Runtime: "containerd", Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN,
	}
	node := d.get("workload")
	switch {
	case node == nil || node.Value == "container":
		return w
	case node.Value == "host":
		return &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_HOST}
	case node.Value == "pending":
		return &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_PENDING}
	case node.Kind != yaml.MappingNode:
		d.fail(node, "workload must be container, host, pending or a mapping, not %q", node.Value)
		return w
	}
	in := d.inner(node)
	for key, to := range map[string]*string{
		"id": &w.ContainerId, "name": &w.ContainerName, "image": &w.Image, "digest": &w.ImageDigest, "runtime": &w.Runtime,
		"pod": &w.PodName, "namespace": &w.PodNamespace,
	} {
		if s := in.str(key); s != "" {
			*to = s
		}
	}
	w.Privileged = in.boolean("privileged")
	if labels := in.get("labels"); labels != nil {
		w.Labels = map[string]string{}
		for i := 0; i+1 < len(labels.Content); i += 2 {
			w.Labels[labels.Content[i].Value] = labels.Content[i+1].Value
		}
	}
	in.done("workload")
	return w
}
