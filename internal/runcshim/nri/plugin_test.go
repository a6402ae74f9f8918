package nri

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/proto"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
)

// world is a plugin, and what it meets. The runtime is NRI's own code, which containerd and CRI-O link (pkg/adaptation).
type world struct {
	t       *testing.T
	plugin  *Plugin
	states  chan State
	runtime *adaptation.Adaptation
	socket  string // the runtime's; the plugin's is a link to it
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a runtime is root's")
	}
	directory, err := os.MkdirTemp("", "nri") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	w := &world{t: t, states: make(chan State, 16), socket: filepath.Join(directory, "n")}
	w.plugin = &Plugin{
		Socket: filepath.Join(directory, "link"), HookFile: filepath.Join(directory, HookName), Hook: "/on/the/host/" + HookName,
		Enforcer: func() string { return filepath.Join(directory, "e") }, Changed: func(s State) { w.states <- s },
	}
	w.must(os.WriteFile(w.plugin.HookFile, []byte("#!/bin/sh\n"), 0o755)) //nolint:gosec // a program
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = w.plugin.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// up starts a runtime in this process.
func (w *world) up() {
	w.t.Helper()
	var err error
	w.runtime, err = serve(w.socket)
	w.must(err)
	w.t.Cleanup(w.runtime.Stop)
}

// runtimeSocket has the test's own program be a runtime until it is killed: only so does it hang up as one that restarts.
const runtimeSocket = "PALISADE_TEST_NRI_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(runtimeSocket); socket != "" {
		if _, err := serve(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// started is a runtime in a process of its own.
func (w *world) started() (kill func()) {
	w.t.Helper()
	runtime := exec.Command(os.Args[0])
	runtime.Env = append(os.Environ(), runtimeSocket+"="+w.socket)
	w.must(runtime.Start())
	kill = sync.OnceFunc(func() { _ = runtime.Process.Kill(); _ = runtime.Wait() })
	w.t.Cleanup(kill)
	return kill
}

func serve(socket string) (*adaptation.Adaptation, error) {
	sync := func(ctx context.Context, callback adaptation.SyncCB) error {
		_, err := callback(ctx, nil, nil)
		return err
	}
	update := func(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) { return nil, nil }
	runtime, err := adaptation.New("test", "1", sync, update, adaptation.WithSocketPath(socket), adaptation.WithPluginPath("/nonexistent"),
		adaptation.WithPluginConfigPath("/nonexistent"))
	if err != nil {
		return nil, err
	}
	return runtime, runtime.Start()
}

// becomes waits for a state.
func (w *world) becomes(want string, is func(State) bool) {
	w.t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		select {
		case state := <-w.states:
			if is(state) {
				return
			}
		case <-deadline:
			w.t.Fatalf("the plugin never was %s", want)
		}
	}
}

func connected(s State) bool    { return s.Installed && s.Connected && s.Err == nil }
func disconnected(s State) bool { return s.Installed && !s.Connected && s.Err != nil }
func absent(s State) bool       { return !s.Installed }

// hooks are those that a new container gets.
func (w *world) hooks() []*api.Hook {
	w.t.Helper()
	answer, err := w.runtime.CreateContainer(w.t.Context(), &api.CreateContainerRequest{
		Pod: &api.PodSandbox{Id: "p"}, Container: &api.Container{Id: "c", PodSandboxId: "p", Linux: &api.LinuxContainer{}},
	})
	w.must(err)
	return answer.GetAdjust().GetHooks().GetCreateRuntime()
}

func TestContainersGetTheHook(t *testing.T) {
	w := newWorld(t)
	w.up()
	w.must(os.Symlink(w.socket, w.plugin.Socket))
	w.becomes("connected", connected)
	hooks := w.hooks()
	if len(hooks) != 1 || hooks[0].GetPath() != w.plugin.Hook || len(hooks[0].GetArgs()) != 1 || hooks[0].GetArgs()[0] != HookName {
		t.Fatalf("hooks = %v, want one that runs %s", hooks, w.plugin.Hook)
	}
	// A hook that is gone would keep every container from being created.
	w.must(os.Remove(w.plugin.HookFile))
	if hooks := w.hooks(); len(hooks) != 0 {
		t.Errorf("hooks = %v without the hook's file, want none", hooks)
	}
	w.becomes("taken out", absent)
}

func TestAPluginThatWasTakenOutGivesNoHook(t *testing.T) {
	w := newWorld(t)
	w.up()
	w.must(os.Symlink(w.socket, w.plugin.Socket))
	w.becomes("connected", connected)
	w.must(os.Remove(w.plugin.Socket))
	if hooks := w.hooks(); len(hooks) != 0 {
		t.Errorf("hooks = %v, want none", hooks)
	}
	w.becomes("taken out", absent)
}

// A runtime that restarts, or is upgraded, is found again; one that was never there is told of.
func TestRuntimesComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.must(os.Symlink(w.socket, w.plugin.Socket))
	w.becomes("without a runtime", disconnected)
	kill := w.started()
	w.becomes("connected", connected)
	kill()
	w.becomes("without a runtime again", disconnected)
	w.started()
	w.becomes("connected again", connected)
}

// The enforcer hears of sandboxes, and a runtime does not wait for one that is not there.
func TestSandboxesAreRegistered(t *testing.T) {
	w := newWorld(t)
	w.up()
	w.must(os.Symlink(w.socket, w.plugin.Socket))
	w.becomes("connected", connected)
	run := func() {
		t.Helper()
		w.must(w.runtime.RunPodSandbox(t.Context(), &api.RunPodSandboxRequest{Pod: &api.PodSandbox{Id: "sandbox"}}))
	}
	run()
	listener, err := net.Listen("unix", w.plugin.Enforcer())
	w.must(err)
	defer listener.Close()
	heard := make(chan *enforcerv1.AdmissionRequest, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		q, err := receive(conn)
		if err == nil {
			_, _ = conn.Write(binary.BigEndian.AppendUint32(nil, 0))
			heard <- q
		}
	}()
	run()
	select {
	case q := <-heard:
		if q.GetContainerId() != "sandbox" || q.GetEvent() != enforcerv1.AdmissionEvent_ADMISSION_EVENT_START {
			t.Errorf("the enforcer heard %v, want that the sandbox starts", q)
		}
	case <-time.After(20 * time.Second):
		t.Error("the enforcer heard nothing")
	}
}

func receive(conn net.Conn) (*enforcerv1.AdmissionRequest, error) {
	length := make([]byte, lengthBytes)
	if _, err := io.ReadFull(conn, length); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.BigEndian.Uint32(length))
	_, err := io.ReadFull(conn, raw)
	q := &enforcerv1.AdmissionRequest{}
	return q, errors.Join(err, proto.Unmarshal(raw, q))
}

// A runtime that says nothing is left, and looked for again.
func TestARuntimeThatDoesNotAnswerIsLeft(t *testing.T) {
	w := newWorld(t)
	listener, err := net.Listen("unix", w.socket)
	w.must(err)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	w.must(os.Symlink(w.socket, w.plugin.Socket))
	w.becomes("without an answer", disconnected)
	w.must(listener.Close())
	w.started()
	w.becomes("connected", connected)
}
