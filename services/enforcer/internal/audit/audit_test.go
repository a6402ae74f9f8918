package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, change func(*Config)) (*Log, string) {
	t.Helper()
	cfg := Config{Path: filepath.Join(t.TempDir(), "state", "audit.log"), MaxBytes: maxRecordBytes, Keep: 2}
	if change != nil {
		change(&cfg)
	}
	log, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log, cfg.Path
}

func read(t *testing.T, path string) []Record {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var records []Record
	for line := range bytes.Lines(raw) {
		var r Record
		if json.Unmarshal(line, &r) == nil {
			records = append(records, r)
		}
	}
	return records
}

func TestAppendIsReadableByRootOnlyAndSurvivesReopening(t *testing.T) {
	log, path := open(t, nil)
	if err := log.Append(Record{Phase: PhaseBefore, PID: 1}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
	again, err := Open(log.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Append(Record{Phase: PhaseAfter, PID: 1}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); len(got) != 2 || got[1].Phase != PhaseAfter {
		t.Errorf("log = %+v, want two records", got)
	}
}

func TestRotationKeepsTheNewestAndIsBounded(t *testing.T) {
	log, path := open(t, nil)
	const records = 1000
	for i := range uint32(records) {
		if err := log.Append(Record{PID: i, Detail: strings.Repeat("x", 200)}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 3 {
		t.Fatalf("files = %v, %v, want the log and two older ones", files, err)
	}
	next := uint32(records)
	for _, file := range []string{path, path + ".1", path + ".2"} {
		info, err := os.Stat(file)
		if err != nil || info.Size() > maxRecordBytes {
			t.Errorf("%s: %d bytes, %v, want at most %d", file, info.Size(), err, maxRecordBytes)
		}
		got := read(t, file)
		for _, record := range slices.Backward(got) {
			next--
			if record.PID != next {
				t.Fatalf("%s: record %d comes before %d, want none missing", file, record.PID, next+1)
			}
		}
	}
}

// Foreign strings go to people's terminals sooner or later (THREATS B23).
func TestB23ForeignStringsAreEscapedAndCut(t *testing.T) {
	log, path := open(t, nil)
	hostile := "\x1b]0;owned\a\r\n{\"phase\":\"after\"}\u202e\x9b\xff" + strings.Repeat("é", 10_000)
	r := Record{Act: hostile, Outcome: hostile, Detail: hostile, Comm: hostile, Rule: hostile, Effect: hostile, FindingID: hostile, ContainerID: hostile}
	if err := log.Append(r); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(raw, []byte("\n")); n != 1 || len(raw) > maxRecordBytes {
		t.Errorf("record is %d lines and %d bytes, want one line of at most %d", n, len(raw), maxRecordBytes)
	}
	got := read(t, path)[0].Rule
	if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("rule = %q, has unprintable characters", got)
	}
	if !strings.HasPrefix(got, `\x1b]0;owned\a\r\n{"phase"`) || !strings.Contains(got, "bytes more)") {
		t.Errorf("rule = %q, want it escaped and cut", got)
	}
}

func TestATornLastLineDoesNotSpoilTheNext(t *testing.T) {
	log, path := open(t, nil)
	if err := log.Append(Record{PID: 1}); err != nil {
		t.Fatal(err)
	}
	torn, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.WriteString(`{"pid":2,"rule":"cut off he`); err != nil {
		t.Fatal(err)
	}
	torn.Close()
	again, err := Open(log.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Append(Record{PID: 3}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); len(got) != 2 || got[0].PID != 1 || got[1].PID != 3 {
		t.Errorf("records = %+v, want those of 1 and 3", got)
	}
}

func TestARemovedLogIsMadeAnew(t *testing.T) {
	log, path := open(t, nil)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := log.Append(Record{PID: 7}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); len(got) != 1 || got[0].PID != 7 {
		t.Errorf("records = %+v, want that of 7", got)
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	directory := t.TempDir()
	link := filepath.Join(directory, "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(directory, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{directory, link, fifo, "/dev/full"} {
		if log, err := Open(Config{Path: path, MaxBytes: maxRecordBytes, Keep: 1}); err == nil {
			log.Close()
			t.Errorf("Open(%s) succeeded, want an error", path)
		}
	}
}

func TestAFullDiskLeavesNoHalfRecord(t *testing.T) {
	directory := t.TempDir()
	if err := unix.Mount("tmpfs", directory, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(directory, unix.MNT_DETACH) })
	path := filepath.Join(directory, "audit.log")
	log, _ := open(t, func(c *Config) { c.Path = path })
	var written int
	var err error
	for written = 0; err == nil; written++ {
		err = log.Append(Record{PID: uint32(written), Detail: strings.Repeat("x", 250)})
	}
	written--
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Append on a full disk = %v, want ENOSPC", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); len(got) != written || !bytes.HasSuffix(raw, []byte("}\n")) {
		t.Errorf("log has %d records and ends with %q, want %d whole ones", len(got), raw[len(raw)-10:], written)
	}
}

func TestAppendFromManyGoroutines(t *testing.T) {
	log, path := open(t, func(c *Config) { c.MaxBytes = 1 << 20 })
	var wg sync.WaitGroup
	for i := range uint32(50) {
		wg.Go(func() {
			if err := log.Append(Record{PID: i, Time: time.Now()}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := len(read(t, path)); got != 50 {
		t.Errorf("%d records, want 50", got)
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	err := Config{Path: "relative", MaxBytes: 1, Keep: 0}.Validate()
	for _, key := range []string{"audit.path:", "audit.max_bytes:", "audit.keep:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Validate = %v, want it to name %s", err, key)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("DefaultConfig().Validate() = %v", err)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("plain", 8)
	f.Add("\xc3\x28é\u202e", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(0, limit%512)
		got := Clean(s, limit)
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("Clean(%q, %d) = %q, has unprintable characters", s, limit, got)
		}
		if len(got) > 10*limit+64 {
			t.Errorf("Clean(%q, %d) has %d bytes", s, limit, len(got))
		}
	})
}
