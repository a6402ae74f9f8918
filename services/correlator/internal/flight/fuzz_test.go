package flight

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/recording"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

func FuzzSegment(f *testing.F) {
	b := newBench(f, f.TempDir(), nil)
	b.note(container("c1"), b.open("/a"), b.exec("/b"))
	b.write()
	b.note(container("c1"), b.open("/c"))
	b.finish(f.Context())
	whole, err := os.ReadFile(b.files(ringSuffix)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-30])
	f.Add(whole[:17])
	f.Add([]byte{})
	directory := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<16 {
			return
		}
		if err := os.RemoveAll(filepath.Join(directory, "events")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(directory, "events"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(directory, "events", fileName(3, ringSuffix)), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		b := newBench(t, directory, nil) // never refuses
		for _, m := range b.List() {
			if _, err := b.ask(Query{Workload: identityOf(m).String()}); err != nil && identityOf(m).Container != "" {
				t.Errorf("Read(%v) = %v", m, err)
			}
		}
		b.note(container("c9"), b.open("/a"))
		if a, err := b.ask(Query{Workload: "c9"}); err != nil || a.paths[len(a.paths)-1] != "/a" {
			t.Errorf("Read(c9) = %v, %v, want the event", a.paths, err)
		}
	})
}

// FuzzEntries is about files whose checksums are right: whatever their entries say, they are read, and recording goes on.
func FuzzEntries(f *testing.F) {
	b := newBench(f, f.TempDir(), nil)
	for _, entry := range []*correlatorv1.RecordedEntry{
		{Kind: &correlatorv1.RecordedEntry_Slice{Slice: sliceOf(workload.Identity{}, brief(container("c1")), "")}},
		{Kind: &correlatorv1.RecordedEntry_Slice{Slice: sliceOf(workload.Identity{}, brief(host), "incident")}},
		{Kind: &correlatorv1.RecordedEntry_Missed{Missed: &correlatorv1.Missed{Events: 1 << 63, Reason: 99}}},
		batchEntry(&collectorv1.StreamEventsResponse{Epoch: "rings", Events: []*eventv1.Event{b.open("/a"), b.exec("/b"), {}}}),
		{},
	} {
		raw, err := proto.Marshal(entry)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, raw, true)
		f.Add([]byte("\x3a\x04\x0a\x02\x0a\x00"), raw, false)
	}
	directory := f.TempDir()
	events := filepath.Join(directory, "events")
	f.Fuzz(func(t *testing.T, first, second []byte, ring bool) {
		var entries [2]correlatorv1.RecordedEntry
		if len(first)+len(second) > 1<<16 || proto.Unmarshal(first, &entries[0]) != nil || proto.Unmarshal(second, &entries[1]) != nil {
			return
		}
		if err := errors.Join(os.RemoveAll(events), os.Mkdir(events, 0o700)); err != nil {
			t.Fatal(err)
		}
		suffix := map[bool]string{true: ringSuffix, false: incidentSuffix}[ring]
		var file bytes.Buffer
		w, err := recording.NewWriter(&file)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Write(&entries[0]), w.Write(&entries[1]), w.Close()); err != nil {
			return
		}
		if err := os.WriteFile(filepath.Join(events, fileName(1, suffix)), file.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		b := newBench(t, directory, nil)
		b.note(container("c9"), b.open("/a"))
		for _, m := range b.List() {
			_, _ = b.ask(Query{Workload: identityOf(m).String(), Incident: entries[0].GetSlice().GetIncident()})
		}
		b.Pin(container("c9"), 1, finding(b.clock, entries[0].GetSlice().GetIncident(), findingv1.Priority_PRIORITY_CRITICAL))
		b.pass(time.Minute)
		b.write()
		if a, err := b.ask(Query{Workload: "c9"}); err != nil && !errors.Is(err, ErrSeveral) || err == nil && a.paths[len(a.paths)-1] != "/a" {
			t.Errorf("Read(c9) = %v, %v, want the event", a.paths, err)
		}
	})
}
