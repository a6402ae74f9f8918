// Package daemon is the life cycle every Palisade process shares: start, run named tasks, stop in order, exit code.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Env is what a process gets from outside, besides its configuration file.
type Env struct {
	// Name of the process, as in the table of privileges.
	Name string
	// Args are the command line's words without the program's name.
	Args []string
	// Log writes JSON lines to standard error.
	Log *slog.Logger
	// Stdout is for what a person asked to see (-check, -help).
	Stdout io.Writer
}

// Task is a long-lived part of a process. Run returns when ctx ends, or with the error that makes the whole
// process stop.
type Task struct {
	Name string
	Run  func(ctx context.Context) error
}

// Main runs a process and exits: 0 after an orderly stop, 1 with one line on standard error otherwise. SIGINT and
// SIGTERM end ctx.
func Main(name string, run func(ctx context.Context, env Env) error) {
	os.Exit(execute(name, run))
}

func execute(name string, run func(ctx context.Context, env Env) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	env := Env{
		Name:   name,
		Args:   os.Args[1:],
		Log:    slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("service", name),
		Stdout: os.Stdout,
	}
	if err := run(ctx, env); err != nil {
		fmt.Fprintf(os.Stderr, "palisade-%s: %s\n", name, OneLine(err))
		return 1
	}
	return 0
}

// OneLine is err's text with joined errors on one line.
func OneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

// RunAll runs the tasks until one of them ends or ctx does, then cancels the rest and waits at most grace for
// them. It returns the first failure, named, or nil after an orderly stop. A task that ends by itself without an
// error stops the others too: a process with a part missing is not running.
func RunAll(ctx context.Context, grace time.Duration, tasks ...Task) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for _, task := range tasks {
		wg.Go(func() {
			err := task.Run(ctx)
			if err != nil && !errors.Is(err, context.Canceled) {
				err = fmt.Errorf("%s: %w", task.Name, err)
			}
			stop(err)
		})
	}
	drained := make(chan struct{})
	go func() { wg.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-ctx.Done():
		select {
		case <-drained:
		case <-time.After(grace):
			return fmt.Errorf("shutdown: tasks still running after %v", grace)
		}
	}
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
