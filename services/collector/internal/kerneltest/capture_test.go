package kerneltest

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

var captureTo = flag.String("capture", "", "write one record of each kind to this `directory`")

// TestCapture refreshes the decoder's goldens:
//
//	go test ./internal/kerneltest -run TestCapture -capture ../record/testdata && go test ./internal/record -update
func TestCapture(t *testing.T) {
	if *captureTo == "" {
		t.Skip("only with -capture")
	}
	w := borrow(t)
	ours := map[uint32]bool{}
	for class := range triggers {
		dir, err := filepath.EvalSymlinks(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := perform(t, "trigger", class, dir)
		ours[pid] = true
	}
	captured := map[record.Kind][]byte{}
	for _, from := range []*ebpf.Map{w.set.Urgent(), w.set.Bulk()} {
		captureRing(t, from, ours, captured)
	}
	walk, err := w.set.Tasks()
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(walk)
	if err != nil {
		t.Fatal(err)
	}
	captured[record.Existing] = all[:uint32(all[0])|uint32(all[1])<<8]
	for kind, raw := range captured {
		if err := os.WriteFile(filepath.Join(*captureTo, kind.Class()+".bin"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// captureRing takes one record of each kind that our processes caused; the last one, which is the trigger's own.
func captureRing(t *testing.T, from *ebpf.Map, ours map[uint32]bool, captured map[record.Kind][]byte) {
	t.Helper()
	ring, err := ringbuf.NewReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	ring.SetDeadline(time.Now())
	for {
		r, err := ring.Read()
		if err != nil {
			return
		}
		event, kind, err := decoder().Decode(r.RawSample)
		if err != nil {
			t.Fatal(err)
		}
		if ours[event.GetProcess().GetPid()] {
			captured[kind] = r.RawSample
		}
	}
}
