package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// Uids of callers, as in deploy/privileges.yaml, and of nobody.
const (
	correlatorUID = 10002
	socketGroup   = 10000
	nobodyUID     = 65534
)

const (
	// helperVariable makes the test binary something else: a caller of the socket it names, or a victim.
	helperVariable = "PALISADE_ENFORCER_TEST"
	victimMode     = "victim"
)

func TestMain(m *testing.M) {
	switch mode := os.Getenv(helperVariable); mode {
	case "":
		os.Exit(m.Run())
	case victimMode:
		os.Stdout.WriteString("ready\n")
		select {}
	default:
		call(mode, os.Args[1:])
	}
}

// call asks the enforcer for everything it serves and prints one code a line.
func call(socket string, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := rpc.Dial(socket, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	pid, _ := strconv.ParseUint(args[1], 10, 32)
	start, _ := strconv.ParseUint(args[2], 10, 64)
	answer, err := enforcerv1.NewActionServiceClient(conn).Kill(ctx, &enforcerv1.KillRequest{
		BootId: args[0], Process: &eventv1.ProcessKey{Pid: uint32(pid), StartBoottimeNs: start}, Rule: "test", FindingId: "f",
	})
	fmt.Println("kill", status.Code(err), answer.GetAction().GetOutcome(), answer.GetAction().GetDetail())
	_, err = enforcerv1.NewActionServiceClient(conn).Kill(ctx, &enforcerv1.KillRequest{})
	fmt.Println("empty", status.Code(err))
	state, err := processv1.NewProcessServiceClient(conn).GetStatus(ctx, &processv1.GetStatusRequest{})
	fmt.Println("status", status.Code(err), state.GetProcess(), state.GetFacts())
}

// callAs runs call as another uid, in the sockets' group, and returns what it printed.
func callAs(t *testing.T, uid uint32, socket string, args ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), helperVariable+"="+socket)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: socketGroup}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("caller with uid %d: %v: %s", uid, err, out)
	}
	return string(out)
}

// start runs an enforcer with its own directories and returns its socket and audit log.
func start(t *testing.T) (socket, audit string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the enforcer runs as root")
	}
	directory, err := os.MkdirTemp("", "enforcer") // t.TempDir's parent is closed to other uids
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	// As the kubelet makes it; the enforcer is to close it.
	if err := os.Chmod(directory, 0o777); err != nil {
		t.Fatal(err)
	}
	audit = filepath.Join(directory, "state", "audit.log")
	config := writeConfig(t, fmt.Sprintf("sockets:\n  directory: %s\naudit:\n  path: %s\n", directory, audit))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, environment("-config", config)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run = %v, want an orderly stop", err)
		}
		if _, err := os.Stat(socket); err == nil {
			t.Error("the socket is still there after the stop")
		}
	})
	socket = filepath.Join(directory, "enforcer.sock")
	t.Cleanup(func() { checkClosed(t, directory) })
	waitFor(t, "the socket", func() bool { _, err := os.Stat(socket); return err == nil })
	return socket, audit
}

// checkClosed wants the directory as palisade up makes it.
func checkClosed(t *testing.T, directory string) {
	info, err := os.Stat(directory)
	if err != nil {
		t.Fatal(err)
	}
	gid := info.Sys().(*syscall.Stat_t).Gid
	if got, want := info.Mode(), os.ModeDir|os.ModeSticky|0o770; got != want || gid != socketGroup {
		t.Errorf("sockets' directory is %v of group %d, want %v of %d", got, gid, want, socketGroup)
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "enforcer.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func environment(args ...string) daemon.Env {
	return daemon.Env{Name: "enforcer", Args: args, Log: slog.New(slog.DiscardHandler), Stdout: new(bytes.Buffer)}
}

// victim is a process in its own pid namespace, as boot id, pid and start time.
func victim(t *testing.T) (*exec.Cmd, []string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperVariable+"="+victimMode)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: unix.CLONE_NEWPID}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	ticks := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[19]
	return cmd, []string{strings.TrimSpace(string(boot)), strconv.Itoa(cmd.Process.Pid), ticks + "0000000"}
}

func TestOnlyTheCorrelatorMayKill(t *testing.T) {
	socket, audit := start(t)
	target, args := victim(t)
	for _, uid := range []uint32{nobodyUID, 0, 10001, 10004} {
		got := callAs(t, uid, socket, args...)
		if !strings.Contains(got, "kill PermissionDenied") || !strings.Contains(got, "empty PermissionDenied") {
			t.Errorf("uid %d: %s, want PermissionDenied", uid, got)
		}
		wantStatus := "status PermissionDenied"
		if uid == 0 {
			wantStatus = "status OK enforcer"
		}
		if !strings.Contains(got, wantStatus) {
			t.Errorf("uid %d: %s, want %s", uid, got, wantStatus)
		}
	}
	if raw, err := os.ReadFile(audit); err != nil || len(raw) != 0 {
		t.Errorf("audit log = %q, %v, want nothing yet", raw, err)
	}
	got := callAs(t, correlatorUID, socket, args...)
	for _, want := range []string{"kill OK ACTION_OUTCOME_DONE killed\n", "empty InvalidArgument\n", "status PermissionDenied"} {
		if !strings.Contains(got, want) {
			t.Errorf("correlator: %s, want %s", got, want)
		}
	}
	_ = target.Wait()
	if signal := target.ProcessState.Sys().(syscall.WaitStatus).Signal(); signal != syscall.SIGKILL {
		t.Errorf("victim ended with signal %v, want %v", signal, syscall.SIGKILL)
	}
	raw, err := os.ReadFile(audit)
	if err != nil || bytes.Count(raw, []byte("\n")) != 2 || !bytes.Contains(raw, []byte(`"peer_uid":10002`)) {
		t.Errorf("audit log = %s, %v, want two records that name the caller", raw, err)
	}
}

func TestCheckStartsNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the enforcer runs as root")
	}
	directory := t.TempDir()
	config := writeConfig(t, fmt.Sprintf("sockets:\n  directory: %s\naudit:\n  path: %s/audit.log\n", directory, directory))
	if err := run(t.Context(), environment("-check", "-config", config)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(directory, "enforcer.sock")); err == nil {
		t.Error("-check made a socket")
	}
}

func TestBadConfigurationIsNamed(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"unknown key", "kill:\n  allow_hosts: true\n", []string{"enforcer.yaml:2:", `unknown key "allow_hosts"`}},
		{"every fault at once", "grace: 0s\nkill:\n  per_rule_per_minute: 0\n  total_per_minute: -1\n  confirm: 1m\naudit:\n  path: x\n", []string{
			"grace:", "kill.per_rule_per_minute:", "kill.total_per_minute:", "kill.confirm:", "audit.path:",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := run(t.Context(), environment("-config", writeConfig(t, tt.text)))
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("run = %v, want it to say %s", err, want)
				}
			}
		})
	}
}
