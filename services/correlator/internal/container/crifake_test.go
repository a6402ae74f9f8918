package container

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeCRI serves the CRI as CRI-O's sources say that it does: pods without a process, a stream of events that ends at once unless it has
// been configured to, the pid in the verbose info. CRI-O itself was never run by these tests.
type fakeCRI struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	socket string
	events chan *runtimeapi.ContainerEventResponse // nil: it has none

	mu         sync.Mutex
	containers map[string]*runtimeapi.ContainerStatus
	info       map[string]string
	asked      map[string]int
}

func startFakeCRI(t *testing.T) *fakeCRI {
	t.Helper()
	directory, err := os.MkdirTemp("", "pcri")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeCRI{
		socket:     filepath.Join(directory, "c.sock"),
		containers: map[string]*runtimeapi.ContainerStatus{}, info: map[string]string{}, asked: map[string]int{},
	}
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, f)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		served.Wait()
		_ = os.RemoveAll(directory)
	})
	return f
}

// set makes a container as it is to be seen.
func (f *fakeCRI) set(id string, state runtimeapi.ContainerState, info string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[id] = &runtimeapi.ContainerStatus{
		Id: id, State: state, Metadata: &runtimeapi.ContainerMetadata{Name: id}, Image: &runtimeapi.ImageSpec{Image: "registry.example/app:1"},
		Mounts: []*runtimeapi.Mount{{ContainerPath: "/data", HostPath: "/srv", Readonly: true}}, StartedAt: time.Now().UnixNano(),
	}
	f.info[id] = info
}

func (f *fakeCRI) asks(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[id]
}

func (f *fakeCRI) ListContainers(context.Context, *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &runtimeapi.ListContainersResponse{}
	for id, c := range f.containers {
		answer.Containers = append(answer.Containers, &runtimeapi.Container{Id: id, State: c.GetState(), PodSandboxId: "pod"})
	}
	return answer, nil
}

func (f *fakeCRI) ContainerStatus(_ context.Context, in *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[in.GetContainerId()]++
	c, ok := f.containers[in.GetContainerId()]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	return &runtimeapi.ContainerStatusResponse{Status: c, Info: map[string]string{"info": f.info[in.GetContainerId()]}}, nil
}

func (f *fakeCRI) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: []*runtimeapi.PodSandbox{{Id: "pod"}}}, nil
}

func (f *fakeCRI) PodSandboxStatus(_ context.Context, in *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[in.GetPodSandboxId()]++
	if in.GetPodSandboxId() != "pod" {
		return nil, status.Error(codes.NotFound, "no such pod")
	}
	return &runtimeapi.PodSandboxStatusResponse{
		Status: &runtimeapi.PodSandboxStatus{Id: "pod", Metadata: &runtimeapi.PodSandboxMetadata{Name: "web-0", Namespace: "prod", Uid: "u"}},
		Info:   map[string]string{"info": `{"runtimeSpec":{}}`},
	}, nil
}

func (f *fakeCRI) GetContainerEvents(_ *runtimeapi.GetEventsRequest, out runtimeapi.RuntimeService_GetContainerEventsServer) error {
	if f.events == nil {
		return nil
	}
	for {
		select {
		case <-out.Context().Done():
			return nil
		case event := <-f.events:
			if err := out.Send(event); err != nil {
				return err
			}
		}
	}
}

const (
	created      = runtimeapi.ContainerState_CONTAINER_CREATED
	runningState = runtimeapi.ContainerState_CONTAINER_RUNNING
	exited       = runtimeapi.ContainerState_CONTAINER_EXITED
)

func TestCRIWithoutEventsIsPolled(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the CRI must be served by root")
	}
	fake := startFakeCRI(t)
	fake.set("good", runningState, `{"sandboxID":"pod","pid":4242,"privileged":true}`)
	fake.set("stopped", exited, `{"sandboxID":"pod","pid":4243}`)
	fake.set("no-json", runningState, `{"pid":`)
	fake.set("words", runningState, `{"pid":"1"}`)
	fake.set("negative", runningState, `{"sandboxID":"pod","pid":-1}`)
	fake.set("huge", runningState, `{"sandboxID":"pod","pid":4294967297}`)
	fake.set("lonely", runningState, `{"sandboxID":"gone","pid":4244}`)
	fake.set("created", created, `{"sandboxID":"pod","pid":4245}`)
	cfg := DefaultConfig()
	cfg.Poll = 10 * time.Millisecond
	f := followCRI(t, fake.socket, cfg)
	f.await("what can be described", func() bool { return f.runs("good")() && f.runs("lonely")() && f.runs("created")() })
	if len(f.running) != 3 {
		t.Errorf("running = %v, want good, lonely and created alone", f.running)
	}
	w := f.running["good"].Workload
	if f.running["good"].PID != 4242 || !w.GetPrivileged() || w.GetPodName() != "web-0" || w.GetPodUid() != "u" || len(w.GetMounts()) != 1 ||
		w.GetMounts()[0].GetSource() != "/srv" || !w.GetMounts()[0].GetReadOnly() {
		t.Errorf("good = %v, want pid 4242, privileged, in pod web-0, with its volume", f.running["good"])
	}
	fake.set("new", runningState, `{"sandboxID":"pod","pid":4246}`)
	f.await("one that starts", f.runs("new"))
	fake.set("new", exited, `{"sandboxID":"pod","pid":4246}`)
	f.await("one that ends", f.ended("new"))
	if got := fake.asks("good") + fake.asks("pod"); got != 2 {
		t.Errorf("asked for good and its pod %d times, want once each, however often all are listed", got)
	}
}

func TestCRIEventsThatOneContainerSpoils(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the CRI must be served by root")
	}
	fake := startFakeCRI(t)
	fake.events = make(chan *runtimeapi.ContainerEventResponse)
	cfg := DefaultConfig()
	cfg.Poll, cfg.Relist = time.Hour, time.Hour
	f := followCRI(t, fake.socket, cfg)
	say := func(id string, kind runtimeapi.ContainerEventType) {
		fake.events <- &runtimeapi.ContainerEventResponse{
			ContainerId: id, ContainerEventType: kind, PodSandboxStatus: &runtimeapi.PodSandboxStatus{Id: "pod"},
		}
	}
	f.await("the first list", func() bool { err, _ := f.health.get(); return err == nil })
	fake.set("bad", runningState, `[]`)
	fake.set("good", runningState, `{"sandboxID":"pod","pid":4242}`)
	go func() {
		say("bad", runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
		say("never-was", runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
		say("pod", runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
		say("good", runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	}()
	f.await("the good one", f.runs("good"))
	go say("good", runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	f.await("its end", f.ended("good"))
	if err, _ := f.health.get(); err != nil {
		t.Errorf("health = %v, want followed all the while", err)
	}
}

func TestCRIImage(t *testing.T) {
	const hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for name, tt := range map[string]struct {
		status            *runtimeapi.ContainerStatus
		reference, digest string
	}{
		"pulled by name": {
			&runtimeapi.ContainerStatus{Image: &runtimeapi.ImageSpec{Image: "r.example/a:1"}, ImageRef: "r.example/a@sha256:" + hex, ImageId: "ff"},
			"r.example/a:1", "sha256:" + hex,
		},
		"known by id": {
			&runtimeapi.ContainerStatus{Image: &runtimeapi.ImageSpec{Image: hex, UserSpecifiedImage: "r.example/a:1"}, ImageRef: hex},
			"r.example/a:1", "sha256:" + hex,
		},
		"asked for by digest": {
			&runtimeapi.ContainerStatus{Image: &runtimeapi.ImageSpec{Image: "r.example/a@sha256:" + hex}},
			"r.example/a@sha256:" + hex, "sha256:" + hex,
		},
		"a tag is no digest": {&runtimeapi.ContainerStatus{Image: &runtimeapi.ImageSpec{Image: "r.example/a:1"}, ImageRef: "r.example/a@1"}, "r.example/a:1", ""},
		"no name":            {&runtimeapi.ContainerStatus{ImageRef: "r.example/a@sha256:" + hex}, "r.example/a@sha256:" + hex, "sha256:" + hex},
		"nothing":            {&runtimeapi.ContainerStatus{}, "", ""},
	} {
		if reference, digest := criImage(tt.status); reference != tt.reference || digest != tt.digest {
			t.Errorf("%s: criImage() = %q, %q, want %q, %q", name, reference, digest, tt.reference, tt.digest)
		}
	}
}

// FuzzCRIInfo: a runtime's own words never break us; what is made of them is bounded.
func FuzzCRIInfo(f *testing.F) {
	f.Add(`{"sandboxID":"a","pid":1,"privileged":true,"runtimeSpec":{"mounts":[{"destination":"/proc","options":["ro"]}]}}`)
	f.Add(`{"pid":-1,"runtimeSpec":[]}`)
	f.Add(`{"pid":1e3}`)
	f.Fuzz(func(t *testing.T, raw string) {
		info, err := parseCRIInfo(map[string]string{"info": raw})
		if err != nil {
			return
		}
		if info.PID < 0 || info.PID > maxPID || int64(info.pid()) != info.PID {
			t.Errorf("pid = %d", info.PID)
		}
		if w := criWorkload(&runtimeapi.ContainerStatus{}, info, nil); len(w.GetMounts()) > maxMounts {
			t.Errorf("%d mounts", len(w.GetMounts()))
		}
	})
}
