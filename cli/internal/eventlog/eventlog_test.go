package eventlog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestRequest(t *testing.T) {
	tests := []struct {
		name         string
		since, until string
		from, to     time.Time
		says         string
	}{
		{name: "no bounds", from: time.Unix(0, 0)},
		{name: "how long ago", since: "5m", from: noon.Add(-5 * time.Minute)},
		{name: "both", since: "1h", until: "30s", from: noon.Add(-time.Hour), to: noon.Add(-30 * time.Second)},
		{name: "times", since: "2026-01-02T10:00:00Z", until: "2026-01-02T11:30:00+01:00", from: noon.Add(-2 * time.Hour), to: noon.Add(-90 * time.Minute)},
		{name: "a time with a zone", since: "2026-01-02T10:00:00+01:00", from: noon.Add(-3 * time.Hour)},
		{name: "ahead of now", since: "-5m", says: "--since: -5m is negative"},
		{name: "no time", since: "yesterday", says: `--since: "yesterday" is neither`},
		{name: "no unit", until: "5", says: `--until: "5" is neither`},
		{name: "backwards", since: "1m", until: "2m", says: "--until: it is before --since"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Query{Workload: "web", Since: tt.since, Until: tt.until, Kinds: []string{"exec"}, Limit: 7}.Request(noon)
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("Request() = %v, want %q", err, tt.says)
				}
				return
			}
			if err != nil || !r.GetSince().AsTime().Equal(tt.from) || (r.GetUntil() == nil) != tt.to.IsZero() || r.GetUntil() != nil && !r.GetUntil().AsTime().Equal(tt.to) {
				t.Errorf("Request() = %v, %v, want %v to %v", r, err, tt.from, tt.to)
			}
			if r.GetWorkload() != "web" || r.GetLimit() != 7 || len(r.GetKinds()) != 1 {
				t.Errorf("Request() = %v, want the rest as it was", r)
			}
		})
	}
}

func FuzzMoment(f *testing.F) {
	for _, text := range []string{"5m", "-1h", "2026-01-02T15:04:05Z", "9999999h", "", "0", "1e9s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := moment(text, noon)
		if err == nil && at != nil && at.CheckValid() != nil {
			t.Errorf("moment(%q) = %v, which is no time", text, at)
		}
	})
}

// recorder answers as a correlator's: with its events from a time on, no more than the limit, and with an error now and then.
type recorder struct {
	correlatorv1.UnimplementedFlightRecorderServiceServer
	most uint32 // at most so many, whatever the limit

	mu     sync.Mutex
	events []*eventv1.Event
	calls  int
	away   []int // calls that fail, halfway
}

func (r *recorder) add(n int, at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, &eventv1.Event{Ring: 1, Position: uint64(n), Time: timestamppb.New(noon.Add(at)), Comm: fmt.Sprint("e", n)})
}

func (r *recorder) ReadEvents(q *correlatorv1.ReadEventsRequest, stream correlatorv1.FlightRecorderService_ReadEventsServer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	answers := []*correlatorv1.ReadEventsResponse{{Answer: &correlatorv1.ReadEventsResponse_Workload{Workload: &correlatorv1.RecordedWorkload{}}}}
	end := &correlatorv1.ReadEnd{}
	for _, e := range r.events {
		if e.GetTime().AsTime().Before(q.GetSince().AsTime()) {
			continue
		}
		if len(answers) > int(min(q.GetLimit(), r.most)) {
			end.More = true
			break
		}
		answers = append(answers, &correlatorv1.ReadEventsResponse{Answer: &correlatorv1.ReadEventsResponse_Event{Event: e}})
	}
	answers = append(answers, &correlatorv1.ReadEventsResponse{Answer: &correlatorv1.ReadEventsResponse_End{End: end}})
	for i, a := range answers {
		if i == 2 && slices.Contains(r.away, r.calls) {
			return status.Error(codes.Unavailable, "killed")
		}
		if err := stream.Send(a); err != nil {
			return err
		}
	}
	return nil
}

func dial(t *testing.T, r *recorder) grpc.ClientConnInterface {
	t.Helper()
	pipe := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	correlatorv1.RegisterFlightRecorderServiceServer(server, r)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(pipe) })
	conn, err := grpc.NewClient("passthrough:///recorder", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); server.Stop(); serving.Wait() })
	return conn
}

// follow is what is handed over until there are so many events. Each of more is called when so many have come.
func follow(t *testing.T, r *recorder, want int, more map[int]func()) (got []string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err = Follow(ctx, dial(t, r), &correlatorv1.ReadEventsRequest{Workload: "web", Since: timestamppb.New(noon)}, func(a *correlatorv1.ReadEventsResponse) error {
		if e := a.GetEvent(); e != nil {
			got = append(got, e.GetComm())
			if then := more[len(got)]; then != nil {
				go then() // the recorder is sending
			}
		}
		if len(got) >= want {
			cancel()
		}
		return nil
	})
	return got, err
}

// Every event is handed over once: late ones too, and those of an answer that broke off.
func TestFollowHandsOverEachEventOnce(t *testing.T) {
	r := &recorder{most: 100, away: []int{2}}
	r.add(1, 0)
	r.add(2, 2*time.Second)
	got, err := follow(t, r, 4, map[int]func(){2: func() { r.add(3, time.Second); r.add(4, 3*time.Second) }})
	if want := []string{"e1", "e2", "e3", "e4"}; !errors.Is(err, context.Canceled) || !slices.Equal(got, want) {
		t.Errorf("Follow() handed over %v, %v, want %v and the end of ctx", got, err, want)
	}
}

// What is more than a limit is asked for in parts, and a limit of events with one time is no end.
func TestFollowGetsPastTheLimit(t *testing.T) {
	r := &recorder{most: 2}
	for n := range 9 {
		r.add(n, time.Duration(n/3)*time.Second)
	}
	got, err := follow(t, r, 6, nil)
	if !errors.Is(err, context.Canceled) || len(got) != 6 {
		t.Fatalf("Follow() handed over %v, %v, want 6 of 9: of three with one time there is room for two", got, err)
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(got))); len(sorted) != len(got) {
		t.Errorf("Follow() handed over %v, want each once", got)
	}
}

func TestFollowEndsWithAnErrorAtFirst(t *testing.T) {
	r := &recorder{most: 100, away: []int{1}}
	r.add(1, 0)
	r.add(2, 0)
	if _, err := follow(t, r, 2, nil); status.Code(err) != codes.Unavailable {
		t.Errorf("Follow() of a correlator that is away = %v, want Unavailable", err)
	}
}

func TestPrinterSaysHowToGoOn(t *testing.T) {
	var out, notes strings.Builder
	end := &correlatorv1.ReadEventsResponse{Answer: &correlatorv1.ReadEventsResponse_End{End: &correlatorv1.ReadEnd{More: true, Last: timestamppb.New(noon)}}}
	if err := (Printer{Out: &out, Notes: &notes}).Print(end); err != nil || out.Len() > 0 || !strings.Contains(notes.String(), "--since 2026-01-02T12:00:00Z") {
		t.Errorf("Print() = %v, out %q, notes %q, want how to go on beside the output", err, out.String(), notes.String())
	}
	notes.Reset()
	if err := (Printer{Out: &out, Notes: &notes, JSON: true}).Print(end); err != nil || notes.Len() > 0 || !strings.Contains(out.String(), `"more":true`) {
		t.Errorf("Print() as JSON = %v, out %q, notes %q, want one line", err, out.String(), notes.String())
	}
}
