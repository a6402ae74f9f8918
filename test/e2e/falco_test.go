package e2e

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/dockertest"
	"github.com/palisade-sec/palisade/internal/ociimage"
)

// falcoRules is beside the repository, not in it: the file is Falco's.
const falcoRules = "../../../shared/falco/falco_rules.yaml"

// Where a trigger runs: a container of that name, a Docker container, or this machine.
const (
	plain      = "plain"
	privileged = "privileged"
	docker     = "docker"
	host       = ""
)

// trigger does for real what one of Falco's rules is about.
type trigger struct {
	rule  string
	where string
	run   []string
	// says is what the finding's output has, besides being of the rule and the workload.
	says string
	// ours are the built-in rules that it is a case of, too.
	ours []string
}

// outside is an address that is nobody's (RFC 5737), and the privileged container's own.
const outside = "203.0.113.1"

// triggers are one for each rule of Falco's file, sorted as the file is. helper's copies are named as what the rules ask for.
var triggers = []trigger{
	{rule: "Directory traversal monitored file read", where: plain, run: []string{"/bin/app", "read", "/tmp/../bin/../etc/passwd"}, says: "/etc/passwd"},
	{rule: "Read sensitive file trusted after startup", where: plain, run: []string{"/bin/httpd", "readlate", "/etc/shadow"}, says: "/etc/shadow", ours: []string{"Sensitive file read"}},
	{rule: "Read sensitive file untrusted", where: plain, run: []string{"/bin/cat", "/etc/shadow"}, says: "/etc/shadow", ours: []string{"Sensitive file read"}},
	{rule: "Run shell untrusted", where: plain, run: []string{"/bin/mysqld", "run", "/bin/sh", "-c", "exit 0"}, says: "exit 0", ours: []string{"Shell started by a server"}},
	{rule: "System user interactive", where: host, run: []string{"sshd", "runas", "33", "./app", "nothing", "falco25"}, says: "falco25"},
	{rule: "Terminal shell in container", where: docker, run: []string{"/bin/sh", "-c", "sleep 1000"}, says: "A shell was spawned in a container with an attached terminal"},
	{rule: "Contact K8S API Server From Container", where: plain, run: []string{"/bin/app", "resolve", "kubernetes.default.svc.cluster.local", "127.0.0.9", "6443"}, says: "127.0.0.9:6443"},
	{rule: "Netcat Remote Code Execution in Container", where: plain, run: []string{"/bin/nc", "-e", "/bin/sh", "127.0.0.1", "1"}, says: "-e /bin/sh", ours: []string{"Netcat runs a program"}},
	{rule: "Search Private Keys or Passwords", where: plain, run: []string{"/bin/find", "/root", "-name", "id_rsa"}, says: "id_rsa", ours: []string{"Private keys or passwords searched for"}},
	{rule: "Clear Log Activities", where: plain, run: []string{"/bin/sh", "-c", ": >/var/log/auth.log"}, says: "/var/log/auth.log", ours: []string{"Logs emptied or removed"}},
	{rule: "Remove Bulk Data from Disk", where: plain, run: []string{"/bin/shred", "/tmp/nothing"}, says: "/tmp/nothing", ours: []string{"Data destroyed"}},
	{rule: "Create Symlink Over Sensitive Files", where: plain, run: []string{"/bin/ln", "-s", "/etc/shadow", "/tmp/symlink"}, says: "/tmp/symlink", ours: []string{"Link to a secret made"}},
	{rule: "Create Hardlink Over Sensitive Files", where: plain, run: []string{"/bin/ln", "/etc/shadow", "/etc/hardlink"}, says: "/etc/hardlink", ours: []string{"Link to a secret made"}},
	{rule: "Packet socket created in container", where: plain, run: []string{"/bin/app", "packet"}, says: "AF_PACKET", ours: []string{"Packets of the network read in a container"}},
	{rule: "Redirect STDOUT/STDIN to Network Connection in Container", where: privileged, run: []string{"/bin/app", "redirect", outside + ":9001"}, says: outside + ":9001", ours: []string{"Connection becomes a program's input or output"}},
	{rule: "Linux Kernel Module Injection Detected", where: privileged, run: []string{"/bin/app", "module"}, says: "init_module"},
	{rule: "Debugfs Launched in Privileged Container", where: privileged, run: []string{"/bin/debugfs", "nothing"}, says: "/bin/debugfs", ours: []string{"File system debugger started in a container"}},
	{rule: "Detect release_agent File Container Escapes", where: privileged, run: []string{"/bin/sh", "-c", "echo >/tmp/release_agent"}, says: "/tmp/release_agent"},
	{rule: "PTRACE attached to process", where: plain, run: []string{"/bin/app", "attach"}, says: "app attach", ours: []string{"Another process traced"}},
	{rule: "PTRACE anti-debug attempt", where: plain, run: []string{"/bin/app", "traceme"}, says: "app traceme"},
	{rule: "Find AWS Credentials", where: plain, run: []string{"/bin/grep", "-r", "aws_secret_access_key", "/root"}, says: "aws_secret_access_key", ours: []string{"Private keys or passwords searched for"}},
	{rule: "Execution from /dev/shm", where: plain, run: []string{"/bin/sh", "/dev/shm/script"}, says: "/dev/shm/script", ours: []string{"Program executed from shared memory"}},
	{rule: "Drop and execute new binary in container", where: plain, run: []string{"/bin/sh", "-c", "cp /bin/app /tmp/dropped && /tmp/dropped nothing; exit 0"}, says: "/tmp/dropped", ours: []string{"Dropped binary executed"}},
	{rule: "Disallowed SSH Connection Non Standard Port", where: privileged, run: []string{"/bin/ssh", "connect", outside + ":443"}, says: outside + ":443", ours: []string{"SSH server or client in a container", "SSH to an unusual port"}},
	{rule: "Fileless execution via memfd_create", where: plain, run: []string{"/bin/app", "run", "/bin/app", "memfd"}, says: "memfd:payload", ours: []string{"Dropped binary executed"}},
}

// TestFalcosRules triggers each rule of Falco's own file, unchanged, beside the built-in ones: the finding has Falco's name for it, and
// is about the container, or the host, where it was done.
func TestFalcosRules(t *testing.T) {
	rules, err := filepath.Abs(falcoRules)
	if err != nil {
		t.Fatal(err)
	}
	everyRuleHasATrigger(t, rules)
	daemon := dockertest.Start(t)
	daemon.Image(t, dockertest.ImageName)
	n := layNodeOn(t, daemon.Containerd)
	n.docker, n.words = daemon.Socket, []string{"--rules", rules}
	n.start()
	t.Cleanup(n.stop)
	places := startPlaces(t, n, daemon)
	places.pull()
	found := places.findings()
	for _, want := range triggers {
		t.Run(want.rule, func(t *testing.T) { want.check(t, found, places.ids[want.where]) })
	}
	places.nothingElse(found)
}

// nothingElse is that no rule sees in a container what was not done there.
func (p places) nothingElse(found []finding) {
	p.t.Helper()
	for _, f := range found {
		meant := slices.ContainsFunc(triggers, func(tr trigger) bool {
			return p.ids[tr.where] == f.Workload.ContainerID && (tr.rule == f.Rule || slices.Contains(tr.ours, f.Rule))
		})
		if f.Workload.ContainerID != "" && !meant { // the host has other things to do
			p.t.Errorf("a finding of %q in %s that nothing was done for: %s", f.Rule, f.Workload.ContainerID, f.Output)
		}
	}
}

// everyRuleHasATrigger skips the test if the file is not there.
func everyRuleHasATrigger(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("Falco's rules are not at %s", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	var names, triggered []string
	for _, m := range regexp.MustCompile(`(?m)^- rule: (.+)$`).FindAllStringSubmatch(string(raw), -1) {
		names = append(names, m[1])
	}
	for _, tr := range triggers {
		triggered = append(triggered, tr.rule)
	}
	slices.Sort(names)
	slices.Sort(triggered)
	if len(names) == 0 || !slices.Equal(names, triggered) {
		t.Fatalf("triggers are for %q, the file's rules are %q", triggered, names)
	}
}

// found is whether the finding is there, and is the workload's.
func (want trigger) found(all []finding, container string) bool {
	return slices.ContainsFunc(all, func(f finding) bool {
		return f.Rule == want.rule && f.Workload.ContainerID == container && strings.Contains(f.Output, want.says)
	})
}

// check is whether the finding is there, and whose it is.
func (want trigger) check(t *testing.T, found []finding, container string) {
	t.Helper()
	for _, rule := range want.ours {
		if !slices.ContainsFunc(found, func(f finding) bool { return f.Rule == rule && f.Workload.ContainerID == container }) {
			t.Errorf("no finding of the built-in rule %q", rule)
		}
	}
	if want.found(found, container) {
		return
	}
	t.Errorf("no finding of %v in %q that says %q; of this rule there are:", want.run, want.where, want.says)
	for _, f := range found {
		if f.Rule == want.rule {
			t.Logf("%s: %s", f.Workload.ContainerID, f.Output)
		}
	}
}

// places are where triggers run.
type places struct {
	t      *testing.T
	node   *node
	docker *dockertest.Daemon
	// programs is a directory with the helper's copies, for the host.
	programs string
	// ids are the containers', by place.
	ids map[string]string
}

// names are what the helper is called.
var names = []string{"app", "debugfs", "httpd", "mysqld", "ssh", "sshd"}

func startPlaces(t *testing.T, n *node, daemon *dockertest.Daemon) places {
	t.Helper()
	helper := buildTrigger(t)
	p := places{t: t, node: n, docker: daemon, programs: filepath.Join(filepath.Dir(n.bin), "programs"), ids: map[string]string{plain: plain, privileged: privileged}}
	if err := os.Mkdir(p.programs, 0o755); err != nil { // another uid runs them
		t.Fatal(err)
	}
	files, err := ociimage.Busybox()
	if err != nil {
		t.Skipf("%v: install Debian's package busybox-static", err)
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(p.programs, name), helper, 0o755); err != nil {
			t.Fatal(err)
		}
		files = append(files, ociimage.File{Path: "bin/" + name, Mode: 0o755, Content: helper})
	}
	for _, tool := range []string{"find", "grep", "ip", "ln", "shred"} {
		files = append(files, ociimage.File{Path: "bin/" + tool, Mode: 0o777, Link: "busybox"})
	}
	files = append(files, ociimage.File{Path: "var/", Mode: 0o755}, ociimage.File{Path: "var/log/", Mode: 0o755})
	n.containerd.Import(t, containerdtest.ImageName, files)
	// overlayfs: a file is not of the image where it is in the upper layer.
	idle := []string{"/bin/sleep", "1000"}
	n.containerd.RunWith(t, []string{"--snapshotter", "overlayfs"}, plain, idle...)
	n.containerd.RunWith(t, []string{"--snapshotter", "overlayfs", "--privileged"}, privileged, idle...)
	p.exec(privileged, "address", "/bin/ip", "address", "add", outside+"/32", "dev", "lo")
	p.exec(plain, "script", "/bin/sh", "-c", "echo exit 0 >/dev/shm/script")
	return p
}

// buildTrigger is the helper, static.
func buildTrigger(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trigger")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./testdata/trigger")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the triggers: %v: %s", err, out)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// exec runs a program in a container of containerd's. That it fails may be what it is for: the test is about what was seen.
func (p places) exec(container, id string, args ...string) {
	out, err := p.node.containerd.TryCtr(append([]string{"tasks", "exec", "--exec-id", id, container}, args...)...)
	if err != nil {
		p.t.Logf("%s: %q: %v: %s", container, args, err, out)
	}
}

// pull runs every trigger, side by side: one of them waits for seconds.
func (p places) pull() {
	p.t.Helper()
	var running sync.WaitGroup
	for i, tr := range triggers {
		switch tr.where {
		case docker:
			p.ids[docker] = p.docker.Docker(p.t, append([]string{"run", "--detach", "--tty", "--network", "none", dockertest.ImageName}, tr.run...)...)
		case host:
			cmd := exec.Command(filepath.Join(p.programs, tr.run[0]), tr.run[1:]...)
			cmd.Dir = p.programs
			if out, err := cmd.CombinedOutput(); err != nil {
				p.t.Errorf("%q: %v: %s", tr.run, err, out)
			}
		default:
			running.Go(func() { p.exec(tr.where, "trigger-"+strconv.Itoa(i), tr.run...) })
		}
	}
	running.Wait()
}

// findings are the node's, as soon as there is one for each trigger, or in the end.
func (p places) findings() (found []finding) {
	p.t.Helper()
	eventually(15*time.Second, func() bool {
		found = p.node.findings()
		return !slices.ContainsFunc(triggers, func(tr trigger) bool { return !tr.found(found, p.ids[tr.where]) })
	})
	return found
}
