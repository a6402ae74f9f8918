package kerneltest

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// nobody is a user without any privilege, gifted the one that owns what gives some.
const (
	nobody = 10001
	gifted = 4321
)

// gift is a program whose file gives privilege, and what an exec of it must tell.
type gift struct {
	name     string
	uid, gid int    // of the file
	mode     uint32 // of the file
	caps     uint64 // of the file
	uidOf    uint32 // of who executes it
	nosuid   bool   // on a mount of that kind
	role     string // that executes it, if not the test itself
	root     bool   // of a user namespace of its own, is who executes it
	want     string
}

var gifts = []gift{
	{name: "nothing", mode: 0o755, uidOf: nobody},
	{name: "user", mode: 0o4755, uidOf: nobody, want: "setuid secure"},
	{name: "user who is not root", uid: gifted, mode: 0o4755, uidOf: nobody, want: "setuid secure"},
	{name: "group", gid: gifted, mode: 0o2755, uidOf: nobody, want: "setgid secure"},
	{name: "user and group", gid: gifted, mode: 0o6755, uidOf: nobody, want: "setuid setgid secure"},
	{name: "bit of mandatory locking", gid: gifted, mode: 0o2705, uidOf: nobody},
	{name: "own user", uid: nobody, mode: 0o4755, uidOf: nobody},
	{name: "root's to root", mode: 0o4755},
	{name: "user, mounted nosuid", mode: 0o4755, uidOf: nobody, nosuid: true},
	{name: "user, without new privileges", mode: 0o4755, uidOf: nobody, role: "no-new-privs"},
	{name: "capability", mode: 0o755, caps: 1 << unix.CAP_NET_RAW, uidOf: nobody, want: "capabilities secure"},
	{name: "capability above 31", mode: 0o755, caps: 1 << unix.CAP_BPF, uidOf: nobody, want: "capabilities secure"},
	{name: "capability, mounted nosuid", mode: 0o755, caps: 1 << unix.CAP_NET_RAW, uidOf: nobody, nosuid: true},
	{name: "capability, without new privileges", mode: 0o755, caps: 1 << unix.CAP_NET_RAW, uidOf: nobody, role: "no-new-privs", want: "secure"}, // AT_SECURE all the same
	{name: "capability to root", mode: 0o755, caps: 1 << unix.CAP_NET_RAW},
	{name: "capability to the root of a user namespace", mode: 0o755, caps: 1 << unix.CAP_NET_RAW, uidOf: nobody, root: true},
}

func TestExecTellsWhatTheFileGives(t *testing.T) {
	w := watch(t)
	for _, tt := range gifts {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.wrap(t)
			pid := tt.unwrap(t, path)
			inode := inodeOf(t, path)
			event := w.await(t, "exec", func(e *eventv1.Event) bool { return isExec(pid)(e) && e.GetExec().GetExe().GetInode() == inode })
			if got := given(event.GetExec()); got != tt.want {
				t.Errorf("given = %q, want %q: %v", got, tt.want, event)
			}
			if got := event.GetExec().GetExe().GetMode() & 0o7777; got != tt.mode {
				t.Errorf("mode = %o, want %o", got, tt.mode)
			}
			checkCredentials(t, tt, event)
		})
	}
}

// checkCredentials compares with what the kernel's rules give: the credentials are those after the exec.
func checkCredentials(t *testing.T, tt gift, event *eventv1.Event) {
	t.Helper()
	c := event.GetCredentials()
	if strings.Contains(tt.want, "setuid") && c.GetEffectiveUid() != uint32(tt.uid) {
		t.Errorf("effective uid = %d, want %d", c.GetEffectiveUid(), tt.uid)
	}
	if strings.Contains(tt.want, "capabilities") && c.GetEffectiveCapabilities() != tt.caps {
		t.Errorf("effective capabilities = %#x, want %#x", c.GetEffectiveCapabilities(), tt.caps)
	}
	if c.GetUid() != tt.uidOf {
		t.Errorf("uid = %d, want %d", c.GetUid(), tt.uidOf)
	}
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	if other := fmt.Sprintf("user:[%d]", event.GetNamespaces().GetUser()) != own; other != tt.root {
		t.Errorf("user namespace = %d, ours is %s: another = %v, want %v", event.GetNamespaces().GetUser(), own, other, tt.root)
	}
}

// given lists what an exec tells of its file.
func given(x *eventv1.Exec) string {
	var all []string
	for _, fact := range []struct {
		is   bool
		name string
	}{{x.GetSetuid(), "setuid"}, {x.GetSetgid(), "setgid"}, {x.GetFileCapabilities(), "capabilities"}, {x.GetSecure(), "secure"}} {
		if fact.is {
			all = append(all, fact.name)
		}
	}
	return strings.Join(all, " ")
}

// wrap makes the program.
func (g gift) wrap(t *testing.T) string {
	t.Helper()
	dir := publicDirectory(t)
	if g.nosuid {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	path := filepath.Join(dir, "program")
	program(t, path)
	if err := errorsOf(os.Chown(path, g.uid, g.gid), unix.Chmod(path, g.mode)); err != nil { // a chown clears what the chmod sets
		t.Fatal(err)
	}
	if g.caps == 0 {
		return path
	}
	// struct vfs_cap_data of <linux/capability.h>: revision 2 with the effective bit, then permitted and inheritable by halves.
	attribute := make([]byte, 20)
	binary.LittleEndian.PutUint32(attribute, 0x02000001)
	binary.LittleEndian.PutUint32(attribute[4:], uint32(g.caps))
	binary.LittleEndian.PutUint32(attribute[12:], uint32(g.caps>>32))
	if err := unix.Setxattr(path, "security.capability", attribute, 0); err != nil {
		t.Fatal(err)
	}
	return path
}

// unwrap executes it and returns the pid.
func (g gift) unwrap(t *testing.T, path string) uint32 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path)
	if g.role != "" {
		cmd = actor(t, g.role, path)
		cmd.Path = reachable(t, cmd.Path)
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if g.uidOf != 0 && !g.root {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: g.uidOf, Gid: g.uidOf}
	}
	if g.root {
		one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(g.uidOf), Size: 1}}
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = one, one
		cmd.SysProcAttr.Credential = &syscall.Credential{NoSetGroups: true}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return uint32(cmd.Process.Pid)
}

// script writes one that a program interprets.
func script(t *testing.T, path, interpreter string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!"+interpreter+"\n"), 0o700); err != nil { //nolint:gosec // it is executed
		t.Fatal(err)
	}
}

func TestExecTellsTheScript(t *testing.T) {
	w := watch(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	program(t, at("program"))
	script(t, at("one"), at("program")+" -x")
	script(t, at("two"), at("one")+" -y")
	script(t, at("linked"), at("link"))
	if err := os.Symlink("program", at("link")); err != nil {
		t.Fatal(err)
	}
	deep := deepScript(t, dir, at("program"))
	tests := []struct {
		name, path string
		script     string // empty: there is none
		named      string // the interpreter
		argv       []string
	}{
		{name: "a program", path: at("program"), argv: []string{at("program"), "arg"}},
		{name: "a program by another name", path: at("link"), argv: []string{at("link"), "arg"}},
		{name: "a script", path: at("one"), script: at("one"), named: at("program"), argv: []string{at("program"), "-x", at("one"), "arg"}},
		{name: "by a relative path", path: "./one", script: at("one"), named: at("program"), argv: []string{at("program"), "-x", "./one", "arg"}},
		{
			name: "a script of a script", path: at("two"), script: at("two"), named: at("program"),
			argv: []string{at("program"), "-x", at("one"), "-y", at("two"), "arg"},
		},
		{name: "an interpreter by another name", path: at("linked"), script: at("linked"), named: at("link"), argv: []string{at("link"), at("linked"), "arg"}},
		{name: "a path of 4000 bytes", path: deep, script: deep, named: at("program"), argv: []string{at("program"), deep, "arg"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), tt.path, "arg")
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			x := w.await(t, "exec", isExec(uint32(cmd.Process.Pid))).GetExec()
			wrong := differ(x.GetExe().GetPath(), at("program"), x.GetScript().GetPath(), tt.script, x.GetInterpreter(), tt.named,
				x.GetScript().GetPathSource() == eventv1.PathSource_PATH_SOURCE_ARGUMENT, tt.script != "", given(x), "",
				strings.Join(x.GetArgv(), " "), strings.Join(tt.argv, " "))
			if wrong != "" {
				t.Error(wrong)
			}
		})
	}
}

// deepScript writes a script whose path is as long as an exec takes.
func deepScript(t *testing.T, dir, interpreter string) string {
	t.Helper()
	for len(dir) < 3800 {
		dir = filepath.Join(dir, strings.Repeat("d", 199))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, strings.Repeat("s", 199))
	script(t, path, interpreter)
	return path
}
