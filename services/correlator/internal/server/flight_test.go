package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/services/correlator/internal/flight"
)

// serve runs a flight recorder behind the correlator's socket, at which the operator has that uid.
func serve(t *testing.T, operator uint32) (*flight.Recorder, correlatorv1.FlightRecorderServiceClient) {
	t.Helper()
	directory, err := os.MkdirTemp("", "flight") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	log := slog.New(slog.DiscardHandler)
	recorder, err := flight.Open(flight.DefaultConfig(), directory, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	me := uint32(os.Geteuid()) //nolint:gosec // a uid
	sockets := rpc.Sockets{Directory: directory, Group: os.Getegid(), UIDs: map[string]uint32{rpc.Operator: operator, "correlator": me}}
	calls, err := rpc.NewServer(rpc.ServerConfig{
		Process: "correlator", Callers: onlyFlight(), UIDs: sockets.UIDs, Recover: true, Log: log, Metrics: prometheus.NewRegistry(),
		Status: nil,
	})
	if err != nil {
		t.Fatal(err)
	}
	NewFlight(recorder).Register(calls)
	socket, err := sockets.Listen("correlator")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = recorder.Run(ctx) })
	tasks.Go(func() { _ = calls.Run(ctx, socket) })
	t.Cleanup(func() { cancel(); tasks.Wait() })
	conn, err := sockets.Dial("correlator")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := os.Stat(filepath.Join(directory, "events")); err != nil {
		t.Fatal(err)
	}
	return recorder, correlatorv1.NewFlightRecorderServiceClient(conn)
}

// onlyFlight are the lines of the table that are about the service: a server refuses to start with lines too many.
func onlyFlight() rpc.Callers {
	lines := rpc.Callers{}
	for method, callers := range Callers() {
		if strings.Contains(method, "FlightRecorderService") {
			lines[method] = callers
		}
	}
	return lines
}

// opened is an event of a file that was opened at a time.
func opened(n int, at *timestamppb.Timestamp, path string) *eventv1.Event {
	return &eventv1.Event{
		BoottimeNs: uint64(n + 1), Time: at, Ring: 2, Position: uint64(n),
		Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: &eventv1.File{Path: path}}},
	}
}

// read is what a request is answered with: paths of events.
func read(t *testing.T, client correlatorv1.FlightRecorderServiceClient, r *correlatorv1.ReadEventsRequest) (paths []string, more bool, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := client.ReadEvents(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return paths, more, nil
		}
		if err != nil {
			return paths, more, err
		}
		if e := answer.GetEvent(); e != nil {
			paths = append(paths, e.GetFileOpen().GetFile().GetPath())
		}
		more = answer.GetEnd().GetMore()
	}
}

func TestReadEventsOverASocket(t *testing.T) {
	recorder, client := serve(t, uint32(os.Geteuid())) //nolint:gosec // a uid
	one := &findingv1.Workload{ContainerId: "aa11", ContainerName: "web", Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN}
	two := &findingv1.Workload{ContainerId: "aa22", ContainerName: "web", Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN}
	began := time.Now().Add(-20 * time.Second)
	at := func(n int) *timestamppb.Timestamp { return timestamppb.New(began.Add(time.Duration(n) * time.Second)) }
	for n, path := range []string{"/a", "/b", "/c"} {
		recorder.Note(one, 1, flight.Run{Epoch: "rings"}, opened(n, at(n), path))
	}
	recorder.Note(two, 2, flight.Run{Epoch: "rings"}, opened(9, at(9), "/two"))
	tests := []struct {
		name     string
		request  *correlatorv1.ReadEventsRequest
		want     string
		more     bool
		wantCode codes.Code
		says     string
	}{
		{name: "all", request: &correlatorv1.ReadEventsRequest{Workload: "aa11"}, want: "/a /b /c"},
		{name: "a span", request: &correlatorv1.ReadEventsRequest{Workload: "aa11", Since: at(1), Until: at(2)}, want: "/b"},
		{name: "a limit", request: &correlatorv1.ReadEventsRequest{Workload: "aa1", Limit: 2}, want: "/a /b", more: true},
		{name: "kind by system call", request: &correlatorv1.ReadEventsRequest{Workload: "aa11", Kinds: []string{"open"}}, want: "/a /b /c"},
		{name: "another kind", request: &correlatorv1.ReadEventsRequest{Workload: "aa11", Kinds: []string{"exec", "connect"}}},
		{name: "no such kind", request: &correlatorv1.ReadEventsRequest{Workload: "aa11", Kinds: []string{"opne"}}, wantCode: codes.InvalidArgument, says: "file_open"},
		{name: "name of two", request: &correlatorv1.ReadEventsRequest{Workload: "web"}, wantCode: codes.FailedPrecondition, says: "aa11, aa22"},
		{name: "beginning of two", request: &correlatorv1.ReadEventsRequest{Workload: "aa"}, wantCode: codes.FailedPrecondition, says: "aa11, aa22"},
		{name: "nobody", request: &correlatorv1.ReadEventsRequest{Workload: "bb"}, wantCode: codes.NotFound},
		{name: "no such incident", request: &correlatorv1.ReadEventsRequest{Incident: "ff"}, wantCode: codes.NotFound},
		{name: "no name", request: &correlatorv1.ReadEventsRequest{}, wantCode: codes.InvalidArgument},
		{name: "too many", request: &correlatorv1.ReadEventsRequest{Workload: "aa11", Limit: 1 << 31}, wantCode: codes.InvalidArgument},
		{name: "backwards", request: &correlatorv1.ReadEventsRequest{Workload: "aa11", Since: at(2), Until: at(1)}, wantCode: codes.InvalidArgument},
		{name: "not a time", request: &correlatorv1.ReadEventsRequest{Workload: "aa11", Since: &timestamppb.Timestamp{Nanos: -5}}, wantCode: codes.InvalidArgument},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			paths, more, err := read(t, client, tt.request)
			if got := strings.Join(paths, " "); got != tt.want || more != tt.more || status.Code(err) != tt.wantCode || !strings.Contains(status.Convert(err).Message(), tt.says) {
				t.Errorf("ReadEvents(%v) = %q, more %t, %v; want %q, %t, %v %q", tt.request, got, more, err, tt.want, tt.more, tt.wantCode, tt.says)
			}
		})
	}
	list, err := client.ListRecorded(t.Context(), &correlatorv1.ListRecordedRequest{})
	if err != nil || len(list.GetWorkloads()) != 2 || list.GetWorkloads()[0].GetBytes() == 0 {
		t.Errorf("ListRecorded() = %v, %v, want two", list, err)
	}
}

func TestOnlyTheOperatorReadsEvents(t *testing.T) {
	_, client := serve(t, uint32(os.Geteuid())+1) //nolint:gosec // another's uid
	if _, _, err := read(t, client, &correlatorv1.ReadEventsRequest{Workload: "host"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("ReadEvents() by another uid = %v, want PermissionDenied", err)
	}
	if _, err := client.ListRecorded(t.Context(), &correlatorv1.ListRecordedRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("ListRecorded() by another uid = %v, want PermissionDenied", err)
	}
}

func TestARecorderThatIsOffSaysSo(t *testing.T) {
	if _, err := NewFlight(nil).ListRecorded(t.Context(), nil); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("ListRecorded() = %v, want FailedPrecondition", err)
	}
}
