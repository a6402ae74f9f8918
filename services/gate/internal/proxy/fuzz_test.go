package proxy

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/tap"
)

// FuzzMethod: no spelling of a method passes but those of the tables, to the byte.
func FuzzMethod(f *testing.F) {
	for _, method := range slices.Concat(containerdMethods, criMethods, own) {
		f.Add(method)
		f.Add(method + "/")
		f.Add(method[1:])
	}
	f.Add("/containerd.services.tasks.v1.Tasks/Kill")
	f.Add("/runtime.v1.RuntimeService/ExecSync")
	f.Add("")
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		f.Fatalf("newMetrics() error = %v", err)
	}
	g := newGuard(m, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, method string) {
		_, err := g.tap(context.Background(), &tap.Info{FullMethodName: method})
		want := slices.Contains(slices.Concat(containerdMethods, criMethods, own, standard), method)
		if got := err == nil; got != want {
			t.Errorf("tap(%q) lets it pass = %v, want %v", method, got, want)
		}
	})
}

// FuzzFrame: a frame comes out as it went in, in however many buffers it arrived.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("request"), 3)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, raw []byte, cut int) {
		cut = max(0, min(cut, len(raw)))
		c := newCodec()
		var m frame
		if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw[:cut]), mem.SliceBuffer(raw[cut:])}, &m); err != nil {
			t.Fatalf("Unmarshal() error = %v", err)
		}
		out, err := c.Marshal(&m)
		if err != nil || !bytes.Equal(out.Materialize(), raw) {
			t.Errorf("Marshal(Unmarshal(%q)) = %q, %v", raw, out.Materialize(), err)
		}
	})
}

// FuzzVersion: whatever containerd says, its version is a short string.
func FuzzVersion(f *testing.F) {
	f.Add([]byte("\x0a\x061.6.20\x12\x01x"))
	f.Add([]byte("\x0a\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got := parseVersion(raw); len(got) > maxLoggedBytes {
			t.Errorf("parseVersion(%q) = %d bytes, want at most %d", raw, len(got), maxLoggedBytes)
		}
	})
}

// FuzzCRIVersion: whatever a CRI says, its name and version are two short words of printable ASCII.
func FuzzCRIVersion(f *testing.F) {
	f.Add([]byte("\x0a\x050.1.0\x12\x05cri-o\x1a\x061.34.0\x22\x02v1"))
	f.Add([]byte("\x12\x03a\nb\x1a\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := parseCRIVersion(raw)
		name, version, ok := strings.Cut(got, " ")
		if !ok || !readable(name) || !readable(version) {
			t.Errorf("parseCRIVersion(%q) = %q, want two words", raw, got)
		}
	})
}
