// Package periodic does something again and again. In: how often, and what. Out: the error that ends it.
package periodic

import (
	"context"
	"time"
)

// Run calls do every so often, the first time after one interval, until it fails or ctx ends. Calls do not overlap; what a long
// one misses is not made up for.
func Run(ctx context.Context, every time.Duration, do func(ctx context.Context) error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if err := do(ctx); err != nil {
			return err
		}
	}
}
