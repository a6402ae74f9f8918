package snapshot

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// An exec record doubles as one of the iterator's: they differ only in the kind.
func task(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile("../record/testdata/exec.bin")
	if err != nil {
		t.Fatal(err)
	}
	raw[4] = byte(record.Existing)
	return raw
}

func walk(raw []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
}

func TestProcesses(t *testing.T) {
	one := task(t)
	tests := []struct {
		name    string
		raw     []byte
		want    int
		wantErr error
	}{
		{name: "no process"},
		{name: "one", raw: one, want: 1},
		{name: "three", raw: bytes.Repeat(one, 3), want: 3},
		{name: "cut in the size", raw: append(bytes.Clone(one), 1, 2), wantErr: record.ErrShort},
		{name: "cut in the record", raw: one[:len(one)-1], wantErr: record.ErrShort},
		{name: "size zero", raw: make([]byte, 64), wantErr: record.ErrShort},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := Snapshot{Open: walk(tt.raw), Decoder: record.NewDecoder(time.Unix(0, 0)), Proc: t.TempDir()}
			got, err := s.Processes(t.Context())
			if !errors.Is(err, tt.wantErr) || len(got) != tt.want {
				t.Errorf("Processes = %d events, %v, want %d, %v", len(got), err, tt.want, tt.wantErr)
			}
		})
	}
}

func TestArgvComesFromTheSameProcess(t *testing.T) {
	raw := task(t)
	event, _, err := record.Decoder{}.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	stat := func(ticks string) string {
		return "1 (a) b) S " + strings.Repeat("0 ", 18) + ticks + " 0"
	}
	start := itoa(event.GetProcess().GetStartBoottimeNs() / 1e7)
	tests := []struct {
		name, cmdline, stat string
		want                string
		unreadable          bool
		truncated           bool
	}{
		{name: "same start", cmdline: "sh\x00-c\x00id\x00", stat: stat(start), want: "sh -c id"},
		{name: "pid was reused", cmdline: "evil\x00", stat: stat("7"), unreadable: true},
		{name: "gone", unreadable: true},
		{name: "took its arguments away", stat: stat(start), unreadable: true},
		{name: "too long", cmdline: strings.Repeat("x", maxArgv+9), stat: stat(start), want: strings.Repeat("x", maxArgv), truncated: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			proc := t.TempDir()
			if tt.stat != "" {
				dir := filepath.Join(proc, itoa(uint64(event.GetProcess().GetPid())))
				write(t, filepath.Join(dir, "cmdline"), tt.cmdline)
				write(t, filepath.Join(dir, "stat"), tt.stat)
			}
			events, err := Snapshot{Open: walk(raw), Proc: proc}.Processes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := events[0].GetExisting()
			argv := strings.Join(got.GetArgv(), " ")
			if tt.unreadable {
				if !got.GetArgvUnreadable() {
					t.Errorf("argv = %q, want it marked unreadable", argv)
				}
				return
			}
			if argv != tt.want || got.GetArgvTruncated() != tt.truncated {
				t.Errorf("argv, truncated = %q, %v, want %q, %v", argv, got.GetArgvTruncated(), tt.want, tt.truncated)
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
