package account

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatev1 "github.com/palisade-sec/palisade/api/palisade/gate/v1"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name, file string
		want       map[uint32]string
	}{
		{"empty", "", map[uint32]string{}},
		{"passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/usr/sbin/nologin\n", map[uint32]string{0: "root", 33: "web"}},
		{"group", "adm:x:4:a,b\nempty:x:5\n", map[uint32]string{4: "adm", 5: "empty"}},
		{"no end of line", "web:x:33", map[uint32]string{33: "web"}},
		{"the first name of an id", "web:x:33:\nalias:x:33:\n", map[uint32]string{33: "web"}},
		{"one name for two ids", "web:x:33:\nweb:x:34:\n", map[uint32]string{33: "web", 34: "web"}},
		{"comments and NIS", "#web:x:33:\n+::::::\n-web:x:33:\n+@team:x:34:\n\n", map[uint32]string{}},
		{"no id", "web:x::\nweb:x:-1:\nweb:x:4294967295:\nweb:x:4294967296:\nweb:x:0x21:\nweb:x:33 :\n", map[uint32]string{}},
		{"largest id", "web:x:4294967294:\n", map[uint32]string{math.MaxUint32 - 1: "web"}},
		{"no fields", "web\nweb:x\n::33\n", map[uint32]string{}},
		{"what drives a terminal", "\x1b[2J:x:33:\nw\xff:x:34:\na b:x:35:\n\u202e:x:36:\n", map[uint32]string{}},
		{"longest name", strings.Repeat("n", 256) + ":x:1:\n" + strings.Repeat("m", 257) + ":x:2:\n", map[uint32]string{1: strings.Repeat("n", 256)}},
		{"carriage return", "web:x:33\r\n", map[uint32]string{33: "web"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parse([]byte(tt.file))); diff != "" {
				t.Errorf("parse(%q): -want +got\n%s", tt.file, diff)
			}
		})
	}
}

func TestTableIsBounded(t *testing.T) {
	var file strings.Builder
	for id := range maxNames + 100 {
		fmt.Fprintf(&file, "u:x:%d\n", id)
	}
	if got := len(parse([]byte(file.String()))); got != maxNames {
		t.Errorf("%d names are kept, want %d", got, maxNames)
	}
	late := strings.Repeat("\n", maxBytes) + "late:x:1:\n"
	if got := parse([]byte(late)); len(got) != 0 {
		t.Errorf("behind %d bytes, %v is read", maxBytes, got)
	}
}

func TestNilTableKnowsNobody(t *testing.T) {
	var none *Table
	if name, ok := none.User(33); ok {
		t.Errorf("User(33) = %q", name)
	}
	if name, ok := none.Group(33); ok {
		t.Errorf("Group(33) = %q", name)
	}
	if Of(none.Message()) != nil {
		t.Error("a nil table is recorded as one")
	}
}

func TestTableIsTheSameInARecording(t *testing.T) {
	want := Parse([]byte("web:x:33:\n"), []byte("adm:x:4:\n"))
	got := Of(want.Message())
	if !maps.Equal(got.users, want.users) || !maps.Equal(got.groups, want.groups) {
		t.Errorf("Of(Message()) = %v, want %v", got, want)
	}
}

// FuzzParse: whatever the file, names are few, short and printable.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"root:x:0:0:root:/root:/bin/sh\n", "adm:x:4:a,b\n", "+::::::\n", "a:b:c:d\r\n", "::::\n", "\x00:\x00:1\n", strings.Repeat(":", 100)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		names := parse(file)
		if len(names) > maxNames || len(names) > len(file)/4 {
			t.Errorf("%d names of %d bytes", len(names), len(file))
		}
		for id, name := range names {
			if id == math.MaxUint32 || name == "" || len(name) > maxNameBytes || !utf8.ValidString(name) || strings.ContainsAny(name, ":\n\x1b ") {
				t.Errorf("id %d is called %q", id, name)
			}
		}
	})
}

// gate serves what it is told to.
type gate struct {
	mu      sync.Mutex
	version string
	passwd  string
	err     error
	known   []string
}

func (g *gate) set(version, passwd string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.version, g.passwd, g.err = version, passwd, err
}

// Invoke answers as the gate would.
func (g *gate) Invoke(_ context.Context, _ string, request, answer any, _ ...grpc.CallOption) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := request.(*gatev1.ReadAccountsRequest).GetKnown()
	g.known = append(g.known, known)
	out := answer.(*gatev1.ReadAccountsResponse)
	if out.Version = g.version; g.version != known {
		out.Passwd = []byte(g.passwd)
	}
	return g.err
}

// NewStream is not for this service.
func (g *gate) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("no streams")
}

func TestWatcherSendsWhatHasChanged(t *testing.T) {
	g := &gate{}
	w := New(Config{Every: 10 * time.Millisecond, Timeout: time.Second}, g, slog.New(slog.DiscardHandler))
	g.set("", "", status.Error(codes.NotFound, "no account files"))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	defer running.Wait()
	defer cancel()
	expect := func(id uint32, want string) {
		t.Helper()
		select {
		case table := <-w.Tables():
			if got, _ := table.User(id); got != want {
				t.Errorf("User(%d) = %q, want %q", id, got, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no table comes; state: %s", w.State())
		}
	}
	g.set("one", "web:x:33:\n", nil)
	expect(33, "web")
	g.set("two", "www:x:33:\n", nil)
	expect(33, "www")
	g.set("two", "", status.Error(codes.Unavailable, "gone"))
	for !strings.Contains(w.State(), "may be old") {
		time.Sleep(time.Millisecond)
	}
	if got := w.State(); !strings.Contains(got, "1 users") {
		t.Errorf("State() = %q while the gate is away, want that names stay", got)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !slices.Contains(g.known, "one") {
		t.Errorf("asked with known = %q, want the version of the last answer", g.known)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default configuration: %v", err)
	}
	err := Config{}.Validate()
	for _, key := range []string{"accounts.every: ", "accounts.timeout: "} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Validate() = %v, want a fault of %s", err, key)
		}
	}
}
