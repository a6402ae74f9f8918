package memory

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestReleasesOnceAfterABusyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used atomic.Uint64 // a timer orders nothing for the race detector
		var releases atomic.Int64
		k := &Keeper{every: time.Second, allocated: func() uint64 { return used.Load() }, release: func() { releases.Add(1) }}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Run(ctx) }()
		step := func(bytes uint64, want int64) {
			t.Helper()
			used.Add(bytes)
			time.Sleep(time.Second)
			synctest.Wait()
			if got := releases.Load(); got != want {
				t.Errorf("after %d more bytes: %d releases, want %d", bytes, got, want)
			}
		}
		step(0, 0)
		step(100<<20, 0) // busy
		step(100<<20, 0)
		step(1<<20, 1) // quiet
		step(1<<20, 1)
		step(50<<20, 1)
		step(0, 2)
		stop()
		<-done
	})
}
