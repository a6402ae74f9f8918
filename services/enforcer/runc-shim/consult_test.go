package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
)

// enforcer is the other end of the shim's socket. What the real one answers its own tests say.
type enforcer struct {
	socket string

	mu    sync.Mutex
	asked []*enforcerv1.AdmissionRequest
}

// answerer writes to a shim what it likes to.
type answerer func(e *enforcer, conn net.Conn, q *enforcerv1.AdmissionRequest)

func enforce(t testing.TB, answer answerer) *enforcer {
	t.Helper()
	directory, err := os.MkdirTemp("", "enf") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	e := &enforcer{socket: filepath.Join(directory, "s")}
	listener, err := net.Listen("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close(); _ = os.RemoveAll(directory) })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); e.hear(conn, answer) }()
		}
	}()
	return e
}

func (e *enforcer) hear(conn net.Conn, answer answerer) {
	length := make([]byte, 4)
	if _, err := io.ReadFull(conn, length); err != nil {
		return
	}
	raw := make([]byte, binary.BigEndian.Uint32(length))
	q := &enforcerv1.AdmissionRequest{}
	if _, err := io.ReadFull(conn, raw); err != nil || proto.Unmarshal(raw, q) != nil {
		return
	}
	e.mu.Lock()
	e.asked = append(e.asked, q)
	e.mu.Unlock()
	answer(e, conn, q)
}

func (e *enforcer) heard() []*enforcerv1.AdmissionRequest {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]*enforcerv1.AdmissionRequest(nil), e.asked...)
}

func say(conn net.Conn, verdict enforcerv1.AdmissionVerdict, message string) {
	raw, err := proto.Marshal(&enforcerv1.AdmissionResponse{Verdict: verdict, Message: message})
	if err == nil {
		_, _ = conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))
	}
}

const refusal = "Palisade refuses this container: rule \"prod\"\n  critical CVE-2026-0001 in openssl 1, fixed in 2\n  \"quoted\" & <tagged>"

func allows(_ *enforcer, conn net.Conn, _ *enforcerv1.AdmissionRequest) {
	say(conn, enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_ALLOW, "")
}

func denies(_ *enforcer, conn net.Conn, q *enforcerv1.AdmissionRequest) {
	if q.GetEvent() == enforcerv1.AdmissionEvent_ADMISSION_EVENT_CREATE {
		say(conn, enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY, refusal)
	}
}

// hangs waits for the shim to go.
func hangs(_ *enforcer, conn net.Conn, _ *enforcerv1.AdmissionRequest) {
	_, _ = io.Copy(io.Discard, conn)
}

// installed is a shim in runC's place in a directory, that asks at the socket.
func installed(t testing.TB, directory, socket string) string {
	t.Helper()
	path := program(t, filepath.Join(directory, "runc"), shim(t))
	program(t, filepath.Join(directory, "runc.palisade", "runc"), runcs(t)[0])
	if err := os.Symlink(socket, filepath.Join(directory, "runc.palisade", "socket")); err != nil {
		t.Fatal(err)
	}
	return path
}

// container is a bundle with a program, ready to be created.
func container(t *testing.T) *world {
	t.Helper()
	requireContainers(t)
	directory := t.TempDir()
	w := &world{t: t, directory: directory, bundle: filepath.Join(directory, "bundle"), root: filepath.Join(directory, "root"), id: "palisade-shim-consult"}
	writeRootfs(t, filepath.Join(w.bundle, "rootfs"))
	w.shell("sleep 60")
	t.Cleanup(func() { _ = exec.Command("runc", "--root", w.root, "delete", "--force", w.id).Run() })
	return w
}

func runcExits(path string, args ...string) (code int, stderr string, took time.Duration) {
	command := exec.Cmd{Path: path, Args: append([]string{"runc"}, args...), Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}
	file, err := os.CreateTemp("", "palisade-shim-")
	if err != nil {
		return -1, err.Error(), 0
	}
	defer os.Remove(file.Name())
	defer file.Close()
	command.Stderr = file // a file, because a container that runs on keeps it open
	began := time.Now()
	_ = command.Run() // its exit code says it
	took = time.Since(began)
	raw, _ := os.ReadFile(file.Name())
	return command.ProcessState.ExitCode(), string(raw), took
}

// A refusal is told as runC tells an error, and nothing of the container is made.
func TestARefusedContainerIsNotCreated(t *testing.T) {
	w := container(t)
	path := installed(t, t.TempDir(), enforce(t, denies).socket)
	for _, command := range []string{"create", "run"} {
		for _, format := range []string{"json", "text"} {
			log := filepath.Join(t.TempDir(), "log")
			code, stderr, _ := runcExits(path, "--root", w.root, "--log", log, "--log-format", format, command, "--bundle", w.bundle, w.id)
			if code != 1 || stderr != refusal+"\n" {
				t.Errorf("%s: exit code %d, standard error %q, want 1 and the refusal", command, code, stderr)
			}
			raw, err := os.ReadFile(log)
			must(t, err)
			if bytes.Count(raw, []byte("\n")) != 1 {
				t.Errorf("%s: log = %q, want one line", command, raw)
			}
			if format == "json" {
				var line struct{ Level, Msg string }
				if err := json.Unmarshal(raw, &line); err != nil || line.Level != "error" || line.Msg != refusal {
					t.Errorf("%s: log = %+v, %v, want the refusal", command, line, err)
				}
			} else if !strings.Contains(string(raw), fmt.Sprintf("msg=%q", refusal)) {
				t.Errorf("%s: log = %q, want the refusal", command, raw)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(w.root, w.id)); !os.IsNotExist(err) {
		t.Errorf("the container's state: %v, want none", err)
	}
}

func TestTheEnforcerHearsWhatRuncIsAskedFor(t *testing.T) {
	w := container(t)
	e := enforce(t, allows)
	path := installed(t, t.TempDir(), e.socket)
	for _, args := range [][]string{{"create", "--bundle", w.bundle, w.id}, {"state", w.id}, {"start", w.id}, {"exec", w.id, "true"}, {"list"}, {"kill", w.id, "KILL"}} {
		if code, stderr, _ := runcExits(path, append([]string{"--root", w.root}, args...)...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		if args[0] != "create" {
			continue
		}
		var state struct {
			CgroupPaths map[string]string `json:"cgroup_paths"`
		}
		raw, err := os.ReadFile(filepath.Join(w.root, w.id, "state.json"))
		must(t, err)
		must(t, json.Unmarshal(raw, &state))
		var stat syscall.Stat_t
		if err := syscall.Stat(state.CgroupPaths[""], &stat); err == nil {
			t.Cleanup(func() {
				if got := e.heard()[1].GetCgroupId(); got != stat.Ino {
					t.Errorf("cgroup id = %d, want %d, the inode of %s", got, stat.Ino, state.CgroupPaths[""])
				}
			})
		}
	}
	spec, err := os.ReadFile(filepath.Join(w.bundle, "config.json"))
	must(t, err)
	asked := e.heard()
	if len(asked) != 2 {
		t.Fatalf("the enforcer was asked %d times, want 2: %v", len(asked), asked)
	}
	create, start := asked[0], asked[1]
	if create.GetEvent() != enforcerv1.AdmissionEvent_ADMISSION_EVENT_CREATE || create.GetContainerId() != w.id || create.GetBundle() != w.bundle ||
		create.GetRuntimeRoot() != w.root || !bytes.Equal(create.GetSpec(), spec) {
		t.Errorf("question of the create = %v", create)
	}
	if start.GetEvent() != enforcerv1.AdmissionEvent_ADMISSION_EVENT_START || start.GetContainerId() != w.id || len(start.GetSpec()) != 0 {
		t.Errorf("question of the start = %v", start)
	}
}

// Whatever becomes of the enforcer, nobody who decides in its place being there, containers are created, and soon.
func TestB20WithoutAnAnswerThereIsRunc(t *testing.T) {
	w := container(t)
	w.shell("exit 0")
	pause := func(d time.Duration) answerer {
		return func(e *enforcer, conn net.Conn, q *enforcerv1.AdmissionRequest) { time.Sleep(d); denies(e, conn, q) }
	}
	dead := enforce(t, allows).socket + ".dead"
	listener, err := net.Listen("unix", dead)
	must(t, err)
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, listener.Close())
	plain := program(t, filepath.Join(t.TempDir(), "runc"), runcs(t)[0])
	_, _, _ = timesOf(t, w, plain) // the first one reads runC from disk
	_, _, base := timesOf(t, w, plain)
	for _, tt := range []struct{ name, socket string }{
		{"the socket is missing", "/nonexistent/socket"},
		{"the enforcer is dead", dead},
		{"the enforcer hangs", enforce(t, hangs).socket},
		{"the enforcer is slow", enforce(t, pause(time.Second)).socket},
		{"the enforcer hangs up", enforce(t, func(*enforcer, net.Conn, *enforcerv1.AdmissionRequest) {}).socket},
		{"the answer is cut off", enforce(t, func(_ *enforcer, conn net.Conn, _ *enforcerv1.AdmissionRequest) {
			_, _ = conn.Write([]byte{0, 0, 0, 9, 8})
		}).socket},
		{"the answer has no verdict", enforce(t, func(_ *enforcer, conn net.Conn, _ *enforcerv1.AdmissionRequest) { say(conn, 0, "") }).socket},
		{"the answer is too long", enforce(t, func(_ *enforcer, conn net.Conn, _ *enforcerv1.AdmissionRequest) {
			_, _ = conn.Write([]byte{0xff, 0, 0, 0})
		}).socket},
	} {
		t.Run(tt.name, func(t *testing.T) {
			create, start, both := timesOf(t, w, installed(t, t.TempDir(), tt.socket))
			t.Logf("create %v, start %v, %v more than with runC alone", create, start, both-base)
			if added := both - base; added > 5*time.Second { // generous: the machine may be busy. make bench-shim measures
				t.Errorf("%v more than with runC alone", added)
			}
		})
	}
}

// timesOf makes, starts and removes a container.
func timesOf(t *testing.T, w *world, path string) (create, start, both time.Duration) {
	t.Helper()
	for _, step := range []struct {
		took *time.Duration
		args []string
	}{{&create, []string{"create", "--bundle", w.bundle, w.id}}, {&start, []string{"start", w.id}}} {
		code, stderr, took := runcExits(path, append([]string{"--root", w.root}, step.args...)...)
		if code != 0 {
			t.Fatalf("%v: exit code %d: %s", step.args, code, stderr)
		}
		*step.took = took
	}
	w.await("stopped")
	if code, stderr, _ := runcExits(path, "--root", w.root, "delete", w.id); code != 0 {
		t.Fatalf("delete: exit code %d: %s", code, stderr)
	}
	return create, start, create + start
}

// Who squats on the socket's path without being root is not believed, whatever he answers.
func TestB20AStrangerIsNotBelieved(t *testing.T) {
	w := container(t)
	busy, err := os.MkdirTemp("", "str")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(busy) })
	must(t, os.Chmod(busy, 0o777))
	self, err := os.Executable()
	must(t, err)
	// The test binary again, as another uid: /tmp may be closed to it, so it runs from an open descriptor.
	file, err := os.Open(self)
	must(t, err)
	defer file.Close()
	stranger := exec.Command("/proc/self/fd/3")
	stranger.ExtraFiles = []*os.File{file}
	stranger.Env = []string{strangerVariable + "=" + filepath.Join(busy, "s")}
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
	must(t, stranger.Start())
	t.Cleanup(func() { _ = stranger.Process.Kill(); _ = stranger.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", filepath.Join(busy, "s")); err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Skip("the test cannot run as another uid here")
		}
	}
	path := installed(t, t.TempDir(), filepath.Join(busy, "s"))
	if code, stderr, _ := runcExits(path, "--root", w.root, "create", "--bundle", w.bundle, w.id); code != 0 {
		t.Errorf("exit code %d: %s: want the container created, for only root refuses one", code, stderr)
	}
}

// strangerVariable makes the test binary a server that refuses every container.
const strangerVariable = "PALISADE_SHIM_TEST_STRANGER"

// refuseAll serves until it is killed.
func refuseAll(path string) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return
	}
	if os.Chmod(path, 0o777) != nil {
		return
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() { defer conn.Close(); (&enforcer{}).hear(conn, denies) }()
	}
}
