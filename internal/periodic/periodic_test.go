package periodic_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/periodic"
)

func TestRun(t *testing.T) {
	failure := errors.New("the third fails")
	calls := 0
	err := periodic.Run(t.Context(), time.Millisecond, func(context.Context) error {
		if calls++; calls == 3 {
			return failure
		}
		return nil
	})
	if !errors.Is(err, failure) || calls != 3 {
		t.Errorf("Run = %v after %d calls, want %v after 3", err, calls, failure)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := periodic.Run(ctx, time.Millisecond, func(context.Context) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want %v", err, context.Canceled)
	}
}
