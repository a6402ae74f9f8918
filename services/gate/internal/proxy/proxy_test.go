package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
)

const (
	listContainers = "/containerd.services.containers.v1.Containers/List"
	getImage       = "/containerd.services.images.v1.Images/Get"
	subscribe      = "/containerd.services.events.v1.Events/Subscribe"
)

func TestForwardsBytesHeaderTrailerAndStatus(t *testing.T) {
	fake := startFake(t, func(_ string, stream grpc.ServerStream) error {
		_ = stream.SetHeader(metadata.Pairs("x-head", "h"))
		stream.SetTrailer(metadata.Pairs("x-tail", "t"))
		if err := echo("", stream); err != nil {
			return err
		}
		if err := stream.RecvMsg(&frame{}); !errors.Is(err, io.EOF) {
			return status.Error(codes.Internal, "no half-close")
		}
		return nil
	})
	g := startGate(t, fake.socket)
	var header, trailer metadata.MD
	want := bytes.Repeat([]byte{0, 0xff, 'x'}, 100_000)
	got, err := g.call(t.Context(), listContainers, want, grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("call(%d bytes) = %d bytes, %v, want them back", len(want), len(got), err)
	}
	if header.Get("x-head") == nil || trailer.Get("x-tail") == nil {
		t.Errorf("header = %v, trailer = %v, want x-head and x-tail", header, trailer)
	}
}

func TestPassesErrorsOn(t *testing.T) {
	fake := startFake(t, func(_ string, stream grpc.ServerStream) error {
		stream.SetTrailer(metadata.Pairs("x-tail", "t"))
		return status.Error(codes.NotFound, "container \"x\": not found")
	})
	g := startGate(t, fake.socket)
	var trailer metadata.MD
	_, err := g.call(t.Context(), getImage, nil, grpc.Trailer(&trailer))
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `container "x": not found`) {
		t.Errorf("call() error = %v, want containerd's NotFound", err)
	}
	if trailer.Get("x-tail") == nil {
		t.Errorf("trailer = %v, want x-tail", trailer)
	}
}

func TestForwardsOnlyTheNamespace(t *testing.T) {
	fake := startFake(t, echo)
	g := startGate(t, fake.socket)
	ctx := metadata.AppendToOutgoingContext(t.Context(), namespaceKey, "k8s.io", "authorization", "secret", "traceparent", "00-1-2-01",
		"containerd-lease", "l")
	if _, err := g.call(ctx, listContainers, nil); err != nil {
		t.Fatalf("call() error = %v", err)
	}
	seen := fake.metadata()
	if got := seen.Get(namespaceKey); len(got) != 1 || got[0] != "k8s.io" {
		t.Errorf("namespace at containerd = %q, want k8s.io", got)
	}
	for _, key := range []string{"authorization", "traceparent", "containerd-lease"} {
		if got := seen.Get(key); got != nil {
			t.Errorf("%s reached containerd: %q", key, got)
		}
	}
	for name, bad := range map[string][]string{
		"two namespaces":     {namespaceKey, "a", namespaceKey, "b"},
		"namespace too long": {namespaceKey, strings.Repeat("n", maxNamespaceBytes+1)},
	} {
		_, err := g.call(metadata.AppendToOutgoingContext(t.Context(), bad...), listContainers, nil)
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: error = %v, want InvalidArgument", name, err)
		}
	}
}

func TestStreamsUntilTheCallerLeaves(t *testing.T) {
	ended := make(chan struct{})
	fake := startFake(t, func(_ string, stream grpc.ServerStream) error {
		defer close(ended)
		for {
			if err := stream.SendMsg(&frame{data: mem.BufferSlice{mem.SliceBuffer("event")}}); err != nil {
				return err
			}
			select {
			case <-stream.Context().Done():
				return stream.Context().Err()
			case <-time.After(time.Millisecond):
			}
		}
	})
	g := startGate(t, fake.socket)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := g.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, subscribe)
	if err != nil {
		t.Fatalf("NewStream() error = %v", err)
	}
	if err := errors.Join(stream.SendMsg(&frame{}), stream.CloseSend()); err != nil {
		t.Fatalf("send: %v", err)
	}
	for range 100 {
		var event frame
		if err := stream.RecvMsg(&event); err != nil || string(event.data.Materialize()) != "event" {
			t.Fatalf("RecvMsg() = %q, %v, want event", event.data.Materialize(), err)
		}
	}
	cancel()
	<-ended // the cancellation reached containerd
}

func TestDeadlineReachesContainerd(t *testing.T) {
	left := make(chan time.Duration, 1)
	fake := startFake(t, func(_ string, stream grpc.ServerStream) error {
		deadline, ok := stream.Context().Deadline()
		if !ok {
			deadline = time.Time{}
		}
		left <- time.Until(deadline)
		<-stream.Context().Done()
		return status.FromContextError(stream.Context().Err()).Err()
	})
	g := startGate(t, fake.socket)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := g.call(ctx, listContainers, nil)
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("call() error = %v, want DeadlineExceeded", err)
	}
	if got := <-left; got <= 0 || got > 200*time.Millisecond {
		t.Errorf("containerd saw a deadline in %v, want at most 200ms", got)
	}
}

func TestBoundsMessages(t *testing.T) {
	fake := startFake(t, func(_ string, stream grpc.ServerStream) error {
		return stream.SendMsg(&frame{data: mem.BufferSlice{mem.SliceBuffer(make([]byte, maxResponseBytes+1))}})
	})
	g := startGate(t, fake.socket)
	if _, err := g.call(t.Context(), listContainers, make([]byte, maxRequestBytes+1)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("request too large: error = %v, want ResourceExhausted", err)
	}
	if got := fake.calls(); len(got) != 0 {
		t.Errorf("the large request reached containerd: %q", got)
	}
	if _, err := g.call(t.Context(), listContainers, nil); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("response too large: error = %v, want ResourceExhausted", err)
	}
}

func TestRefusesASecondRequest(t *testing.T) {
	fake := startFake(t, echo)
	g := startGate(t, fake.socket)
	stream, err := g.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, subscribe)
	if err != nil {
		t.Fatalf("NewStream() error = %v", err)
	}
	for range 2 {
		if err := stream.SendMsg(&frame{data: mem.BufferSlice{mem.SliceBuffer("request")}}); err != nil {
			t.Fatalf("send: %v", err)
		}
	}
	if err := stream.RecvMsg(&frame{}); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("RecvMsg() error = %v, want a refusal", err)
	}
	if got := fake.calls(); len(got) != 0 {
		t.Errorf("reached containerd: %q", got)
	}
}

func TestRefusesWhatIsNotInTheTable(t *testing.T) {
	fake := startFake(t, echo)
	g := startGate(t, fake.socket)
	refused := []string{
		"/containerd.services.tasks.v1.Tasks/Delete", "/containerd.services.tasks.v1.Tasks/Kill",
		"/containerd.services.tasks.v1.Tasks/Exec", "/containerd.services.containers.v1.Containers/Create",
		"/containerd.services.content.v1.Content/Read", "/containerd.services.events.v1.Events/Publish",
		"/containerd.services.containers.v1.Containers/list", "/containerd.services.containers.v1.Containers/List/",
		"//containerd.services.containers.v1.Containers/List", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"/runtime.v1.RuntimeService/ExecSync", "/runtime.v1.RuntimeService/Exec", "/runtime.v1.RuntimeService/Attach",
		"/runtime.v1.RuntimeService/CreateContainer", "/runtime.v1.RuntimeService/RunPodSandbox",
		"/runtime.v1.RuntimeService/StopContainer", "/runtime.v1.RuntimeService/UpdateContainerResources",
		"/runtime.v1.RuntimeService/PortForward", "/runtime.v1.RuntimeService/CheckpointContainer",
		"/runtime.v1.RuntimeService/containerstatus", "/runtime.v1.RuntimeService/ContainerStatus/",
		"/runtime.v1.ImageService/PullImage", "/runtime.v1.ImageService/RemoveImage", "/runtime.v1alpha2.RuntimeService/Version",
		"/x/y",
	}
	for _, method := range refused {
		if _, err := g.call(t.Context(), method, nil); status.Code(err) != codes.PermissionDenied {
			t.Errorf("call(%q) error = %v, want PermissionDenied", method, err)
		}
	}
	if got := fake.calls(); len(got) != 0 {
		t.Errorf("reached containerd: %q", got)
	}
	if got, want := g.proxy.metrics.refusals.Load(), uint64(len(refused)); got != want {
		t.Errorf("refused = %d, want %d", got, want)
	}
	for _, method := range slices.Concat(containerdMethods, criMethods) {
		if _, err := g.call(t.Context(), method, nil); err != nil {
			t.Errorf("call(%q) error = %v, want nil", method, err)
		}
	}
}

func TestStandardServicesStillSpeakProto(t *testing.T) {
	fake := startFake(t, echo)
	g := startGate(t, fake.socket)
	health, err := healthpb.NewHealthClient(g).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Check() = %v, %v, want SERVING", health, err)
	}
	answer, err := processv1.NewProcessServiceClient(g).GetMetrics(t.Context(), &processv1.GetMetricsRequest{})
	if err != nil || !strings.Contains(answer.GetText(), "palisade_gate_request_bytes_total") {
		t.Errorf("GetMetrics() = %.80q, %v, want our metrics", answer.GetText(), err)
	}
}

func TestAForeignUidServesNoContainerd(t *testing.T) {
	fake := startFake(t, echo)
	window, err := dial(Config{Socket: fake.socket, UID: 4242})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer window.Close()
	err = window.Invoke(t.Context(), listContainers, &frame{}, &frame{})
	if status.Code(err) != codes.Unavailable || len(fake.calls()) != 0 {
		t.Errorf("Invoke() error = %v, reached %q, want Unavailable and nothing", err, fake.calls())
	}
}
