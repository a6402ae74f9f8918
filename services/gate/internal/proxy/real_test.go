package proxy

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

func TestTablesNameReadingMethods(t *testing.T) {
	for _, table := range [][]string{containerdMethods, criMethods} {
		if !slices.IsSorted(table) {
			t.Errorf("methods are not sorted: %q", table)
		}
	}
	real := map[string]bool{}
	for _, service := range []grpc.ServiceDesc{
		containersapi.Containers_ServiceDesc, eventsapi.Events_ServiceDesc, imagesapi.Images_ServiceDesc,
		namespacesapi.Namespaces_ServiceDesc, tasksapi.Tasks_ServiceDesc, versionapi.Version_ServiceDesc, runtimeapi.RuntimeService_ServiceDesc,
	} {
		for _, m := range service.Methods {
			real["/"+service.ServiceName+"/"+m.MethodName] = true
		}
		for _, s := range service.Streams {
			real["/"+service.ServiceName+"/"+s.StreamName] = !s.ClientStreams // one request is all the proxy reads
		}
	}
	reading := []string{
		"Get", "List", "ListStream", "Subscribe", "Version",
		"ContainerStatus", "GetContainerEvents", "ListContainers", "ListPodSandbox", "PodSandboxStatus",
	}
	for _, method := range slices.Concat(containerdMethods, criMethods) {
		if !real[method] {
			t.Errorf("%s is no method of a runtime's with one request", method)
		}
		if _, verb := split(method); !slices.Contains(reading, verb) {
			t.Errorf("%s does more than read", method)
		}
	}
}

func TestRealContainerd(t *testing.T) {
	daemon := containerdtest.Start(t)
	daemon.Image(t)
	g := startGate(t, daemon.Socket)
	daemon.Run(t, "victim", "/bin/sleep", "1000")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, namespaceKey, containerdtest.Namespace)

	list, err := containersapi.NewContainersClient(g).List(ctx, &containersapi.ListContainersRequest{})
	if err != nil || len(list.GetContainers()) != 1 || list.GetContainers()[0].GetImage() != containerdtest.ImageName {
		t.Fatalf("List() = %v, %v, want the victim with its image", list, err)
	}
	tasks := tasksapi.NewTasksClient(g)
	running, err := tasks.List(ctx, &tasksapi.ListTasksRequest{})
	if err != nil || len(running.GetTasks()) != 1 || running.GetTasks()[0].GetPid() == 0 {
		t.Fatalf("tasks List() = %v, %v, want one with a pid", running, err)
	}
	refused(ctx, t, g)
	after, err := tasks.List(ctx, &tasksapi.ListTasksRequest{})
	if err != nil || len(after.GetTasks()) != 1 || after.GetTasks()[0].GetPid() != running.GetTasks()[0].GetPid() {
		t.Errorf("after the refusals, tasks = %v, %v, want the victim alive", after, err)
	}
	if got := g.proxy.Status(ctx, g.cfg); !got.GetHealthy() || !strings.HasPrefix(got.GetFacts()[1].GetValue(), "1.") {
		t.Errorf("Status() = %v, want healthy with containerd's version", got)
	}
	restart(ctx, t, daemon, g)
}

// refused calls what would end or enter the victim.
func refused(ctx context.Context, t *testing.T, g gate) {
	t.Helper()
	tasks := tasksapi.NewTasksClient(g)
	calls := map[string]func() error{
		"tasks Kill": func() error {
			_, err := tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "victim", Signal: 9})
			return err
		},
		"tasks Delete": func() error {
			_, err := tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: "victim"})
			return err
		},
		"tasks Exec": func() error {
			_, err := tasks.Exec(ctx, &tasksapi.ExecProcessRequest{ContainerID: "victim", ExecID: "x"})
			return err
		},
		"containers Create": func() error {
			_, err := containersapi.NewContainersClient(g).Create(ctx, &containersapi.CreateContainerRequest{})
			return err
		},
		"images Delete": func() error {
			_, err := imagesapi.NewImagesClient(g).Delete(ctx, &imagesapi.DeleteImageRequest{Name: containerdtest.ImageName})
			return err
		},
	}
	for name, call := range calls {
		if err := call(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: error = %v, want PermissionDenied", name, err)
		}
	}
}

// restart takes containerd away and brings it back.
func restart(ctx context.Context, t *testing.T, daemon *containerdtest.Daemon, g gate) {
	t.Helper()
	stream, err := eventsapi.NewEventsClient(g).Subscribe(ctx, &eventsapi.SubscribeRequest{})
	if err != nil {
		t.Fatalf("Subscribe() error = %v", err)
	}
	daemon.Down(t)
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("Recv() with containerd gone: error = %v, want Unavailable", err)
	}
	version := versionapi.NewVersionClient(g)
	_, err = version.Version(ctx, &emptypb.Empty{})
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), daemon.Socket) {
		t.Errorf("Version() with containerd gone: error = %v, want Unavailable without a path", err)
	}
	if got := g.proxy.Status(ctx, g.cfg); got.GetHealthy() {
		t.Errorf("Status() with containerd gone = %v, want a warning", got)
	}
	daemon.Up(t)
	for err = io.EOF; err != nil; {
		if ctx.Err() != nil {
			t.Fatalf("Version() after the restart: error = %v", err)
		}
		_, err = version.Version(ctx, &emptypb.Empty{})
		time.Sleep(10 * time.Millisecond)
	}
}

// wrongUIDSocket in the environment turns the test binary into a caller that says which code it got.
const wrongUIDSocket = "PALISADE_TEST_GATE_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(wrongUIDSocket); socket != "" {
		conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(unixsock.ClientCredentials(0)))
		if err == nil {
			_, err = containersapi.NewContainersClient(conn).List(context.Background(), &containersapi.ListContainersRequest{})
		}
		fmt.Print(status.Code(err))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestWrongUIDIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing uid needs root")
	}
	fake := startFake(t, echo)
	g := startGate(t, fake.socket)
	program := filepath.Join(shortDir(t), "caller")
	raw, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatalf("read the test binary: %v", err)
	}
	if err := os.WriteFile(program, raw, 0o755); err != nil { //nolint:gosec // another uid runs it
		t.Fatalf("copy the test binary: %v", err)
	}
	child := exec.CommandContext(t.Context(), program) //nolint:gosec // our own binary
	child.Env = []string{wrongUIDSocket + "=" + g.socket}
	child.Dir = "/"
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 10000}}
	out, err := child.CombinedOutput()
	if got, want := string(out), codes.PermissionDenied.String(); err != nil || got != want {
		t.Errorf("List() as uid 65534 = %q, %v, want %s", got, err, want)
	}
	if got := fake.calls(); len(got) != 0 {
		t.Errorf("reached containerd: %q", got)
	}
	if got := g.proxy.metrics.refusals.Load(); got != 1 {
		t.Errorf("refused = %d, want 1", got)
	}
}
