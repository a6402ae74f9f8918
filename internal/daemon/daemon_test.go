package daemon

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestRunAll(t *testing.T) {
	boom := errors.New("boom")
	wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	tests := []struct {
		name  string
		tasks []Task
		want  string
	}{
		{name: "first error is named and stops the others",
			tasks: []Task{{"ring", func(context.Context) error { return boom }}, {"rpc", wait}},
			want:  "ring: boom"},
		{name: "a task that ends without error stops the others",
			tasks: []Task{{"once", func(context.Context) error { return nil }}, {"rpc", wait}}},
		{name: "a task that ignores the end is reported",
			tasks: []Task{{"ring", func(context.Context) error { return nil }},
				{"deaf", func(context.Context) error { time.Sleep(time.Second); return nil }}},
			want: "shutdown: tasks still running after 50ms"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := RunAll(t.Context(), 50*time.Millisecond, tt.tasks...)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("RunAll() = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRunAllEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := RunAll(ctx, time.Second, Task{"wait", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
	if err != nil {
		t.Errorf("RunAll(ended context) = %v, want nil", err)
	}
}

func TestOneLine(t *testing.T) {
	err := errors.Join(errors.New("socket: not absolute"), errors.New("ring_size: 3 is not a power of two"))
	want := "socket: not absolute; ring_size: 3 is not a power of two"
	if got := OneLine(err); got != want {
		t.Errorf("OneLine() = %q, want %q", got, want)
	}
}
