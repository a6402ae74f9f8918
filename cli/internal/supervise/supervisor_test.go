package supervise

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNextPause(t *testing.T) {
	tests := []struct {
		name        string
		last, lived time.Duration
		want        time.Duration
	}{
		{"one crash after a long life restarts at once", 0, time.Hour, 0},
		{"the first early death", 0, time.Millisecond, 100 * time.Millisecond},
		{"a crash loop doubles the pause", 100 * time.Millisecond, time.Millisecond, 200 * time.Millisecond},
		{"up to five seconds", 4 * time.Second, time.Millisecond, 5 * time.Second},
		{"a long life forgets the loop", 5 * time.Second, time.Minute, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := nextPause(tt.last, tt.lived); got != tt.want {
				t.Errorf("nextPause(%v, %v) = %v, want %v", tt.last, tt.lived, got, tt.want)
			}
		})
	}
}

func TestLineWriter(t *testing.T) {
	tests := []struct {
		name   string
		writes []string
		want   []string
	}{
		{"lines in one write", []string{"a\nb\n"}, []string{"a", "b"}},
		{"a line in three writes", []string{"a", "b", "c\n"}, []string{"abc"}},
		{"the last line without its end", []string{"a\nb"}, []string{"a", "b"}},
		{"an endless line is cut", []string{strings.Repeat("x", maxLine+1)}, []string{strings.Repeat("x", maxLine)}},
		{"a long line with its end is cut", []string{strings.Repeat("x", maxLine+1) + "\ny\n"}, []string{strings.Repeat("x", maxLine), "y"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			w := &lineWriter{emit: func(line string) { got = append(got, line) }}
			for _, text := range tt.writes {
				if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
					t.Errorf("Write(%d bytes) = %d, %v", len(text), n, err)
				}
			}
			w.flush()
			if !slices.Equal(got, tt.want) {
				t.Errorf("lines = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestComplaintIsTheProcessesOwnLastLine(t *testing.T) {
	err := complaint("uplink", "noise\npalisade-uplink: port: 0\n", errors.New("exit status 1"))
	if got, want := err.Error(), "palisade-uplink: port: 0"; got != want {
		t.Errorf("complaint() = %q, want %q", got, want)
	}
	cause := errors.New("exec format error")
	if err := complaint("uplink", "", cause); !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "palisade-uplink: ") {
		t.Errorf("complaint of a silent process = %v, want its name and %v", err, cause)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := New([]Process{{Name: "x"}}, func(string, error) { t.Error("an ended supervisor started a process") })
	if err := s.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run(ended context) = %v, want %v", err, context.Canceled)
	}
}
