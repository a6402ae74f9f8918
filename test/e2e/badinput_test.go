package e2e

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestBadInput starts a node or a process with something wrong: one line that names it and says what to do, an exit
// code that is not 0, and nothing half-started.
func TestBadInput(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := []struct {
		name string
		args func(n *node) []string
		want []string // all in the last line
	}{
		{"port for people in use", func(n *node) []string { return append(n.upArguments(), "--people-listen", taken.Addr().String()) },
			[]string{taken.Addr().String(), "in use"}},
		{"port for nodes in use", func(n *node) []string { return append(n.upArguments(), "--nodes-listen", taken.Addr().String()) },
			[]string{taken.Addr().String(), "in use"}},
		{"rule file with a mistake", func(n *node) []string {
			path := filepath.Join(filepath.Dir(n.run), "bad.yaml")
			rule := "- rule: r\n  desc: d\n  condition: evt.type = execve and (\n  output: o\n  priority: INFO\n"
			if err := os.WriteFile(path, []byte(rule), 0o644); err != nil {
				n.t.Fatal(err)
			}
			return append(n.upArguments(), "--rules", path)
		}, []string{"bad.yaml:3:"}},
		{"relative state directory", func(n *node) []string { return append(n.upArguments(), "--state", "here") }, []string{"--state", `"here"`}},
		{"somebody else's run-time directory", func(*node) []string { return []string{"up", "--run", "/etc"} }, []string{"--run", "/etc"}},
		{"no such flag", func(*node) []string { return []string{"up", "--nonsense"} }, []string{"--nonsense", "--help"}},
		{"address without port", func(n *node) []string { return append(n.upArguments(), "--console", "example") }, []string{"--console", "HOST:PORT"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := layNode(t)
			n.t = t
			cmd := exec.Command(filepath.Join(n.bin, "palisade"), tt.args(n)...)
			checkRefusal(t, cmd, tt.want)
			if pid := n.childRunning("palisade-collector"); pid != 0 {
				t.Errorf("the collector runs (pid %d)", pid)
			}
			if _, err := os.Stat(n.run); err == nil {
				t.Errorf("%s was left behind", n.run)
			}
		})
	}
}

// checkRefusal wants the command to fail and its last line to hold the words.
func checkRefusal(t *testing.T, cmd *exec.Cmd, want []string) {
	t.Helper()
	var diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr = &diagnostics, &diagnostics
	err := cmd.Run()
	if err == nil || cmd.ProcessState.ExitCode() <= 0 {
		t.Errorf("%v: %v, want an exit code above 0", cmd.Args, err)
	}
	last := tail(diagnostics.String(), 1)
	for _, word := range want {
		if !strings.Contains(last, word) {
			t.Errorf("last line %q does not name %q; all of it:\n%s", last, word, diagnostics.String())
		}
	}
	if strings.Contains(diagnostics.String(), "goroutine ") {
		t.Errorf("it panicked:\n%s", diagnostics.String())
	}
}

// TestBadConfigurationFile gives every process a key it does not know.
func TestBadConfigurationFile(t *testing.T) {
	n := layNode(t)
	for _, process := range []string{"collector", "correlator", "gate", "enforcer", "scanner", "uplink", "console"} {
		t.Run(process, func(t *testing.T) {
			path := filepath.Join(filepath.Dir(n.run), process+".yaml")
			if err := os.WriteFile(path, []byte("\nsokcets: {}\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			binary := filepath.Join(n.bin, "palisade-"+process)
			for _, args := range [][]string{{"-config", path}, {"-check", "-config", path}} {
				checkRefusal(t, exec.Command(binary, args...), []string{"palisade-" + process, path + ":2", `"sokcets"`})
			}
			checkRefusal(t, exec.Command(binary, "-config", path+".absent"), []string{path + ".absent", "no such file"})
		})
	}
}

// TestCollectorSaysWhatItLacks takes away capabilities, then BTF.
func TestCollectorSaysWhatItLacks(t *testing.T) {
	n := layNode(t)
	if err := os.MkdirAll(n.run, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(n.run, 0o777); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(n.run), "collector.yaml")
	if err := os.WriteFile(path, []byte("sockets: {directory: "+n.run+", group: 65534}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(n.bin, "palisade-collector")
	unprivileged := exec.Command(binary, "-config", path)
	unprivileged.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	checkRefusal(t, unprivileged, []string{"CAP_BPF", "palisade up"})

	// An empty file over the kernel's BTF, in a mount namespace of its own, is a kernel without BTF.
	hidden := exec.Command("unshare", "--mount", "sh", "-c",
		`mount -t tmpfs none /sys/kernel/btf && exec "$0" "$@"`, binary, "-config", path)
	checkRefusal(t, hidden, []string{"/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"})
	for _, left := range []string{"collector.sock"} {
		if _, err := os.Stat(filepath.Join(n.run, left)); err == nil {
			t.Errorf("%s was left behind", left)
		}
	}
}

// TestUnreadableCertificate breaks the node's certificate: the uplink's check names the file.
func TestUnreadableCertificate(t *testing.T) {
	n := startNode(t)
	broken := filepath.Join(n.state, "enroll", "node.crt")
	if err := os.WriteFile(broken, []byte("not a certificate\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(n.run, "config", "uplink.yaml")
	checkRefusal(t, exec.Command(filepath.Join(n.bin, "palisade-uplink"), "-check", "-config", config), []string{broken})
}
