package memory

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestReleasesOnceAfterABusyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used uint64
		releases := 0
		k := &Keeper{every: time.Second, allocated: func() uint64 { return used }, release: func() { releases++ }}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Run(ctx) }()
		synctest.Wait() // it has looked once
		step := func(bytes uint64, want int) {
			t.Helper()
			used += bytes
			time.Sleep(time.Second)
			synctest.Wait()
			if releases != want {
				t.Errorf("after %d more bytes: %d releases, want %d", bytes, releases, want)
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
