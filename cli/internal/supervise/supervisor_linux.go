// Package supervise keeps Palisade's processes running: it starts each through package launch with nothing but its row
// of the table of privileges, and starts it again when it dies.
package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/palisade-sec/palisade/cli/internal/launch"
)

// How long a dying process is waited for, and how a process that keeps dying is slowed down: the first restart is
// immediate, so that one crash costs milliseconds, and a crash loop costs no more than one start in five seconds.
const (
	stopGrace    = 5 * time.Second
	shortestLife = 2 * time.Second
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// Process is one process to keep running.
type Process struct {
	Name string
	Spec launch.Spec
	// Isolate are namespaces of its own (CLONE_NEW*).
	Isolate uintptr
	// Output gets what it writes, line by line, without the line's end.
	Output func(line string)
}

// Supervisor keeps processes running. Make one with New.
type Supervisor struct {
	processes []Process
	// restarted is told about every death.
	restarted func(name string, reason error)
}

// New returns a supervisor for the processes. restarted may be called from several goroutines.
func New(processes []Process, restarted func(name string, reason error)) *Supervisor {
	return &Supervisor{processes: processes, restarted: restarted}
}

// Check starts every process with -check, one after the other, tells checked how each went, and returns every
// complaint. A process that passes has read its configuration and tried its privileges; none of them serves.
func (s *Supervisor) Check(ctx context.Context, checked func(name string, err error)) error {
	var errs []error
	for _, p := range s.processes {
		p.Spec.Args = append([]string{"-check"}, p.Spec.Args...)
		var output bytes.Buffer
		cmd, err := command(ctx, p, &output)
		if err == nil {
			err = cmd.Run()
		}
		if err != nil {
			err = complaint(p.Name, output.String(), err)
		}
		checked(p.Name, err)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// complaint is what a process said when it would not start: its own last line, if it had one.
func complaint(name, output string, err error) error {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return errors.New(last)
	}
	return fmt.Errorf("palisade-%s: %w", name, err)
}

// Run keeps all processes running until ctx ends. Then it stops them one after the other in the order given, which is
// the one events flow in: what the first has seen is with the next before that one is asked to stop.
func (s *Supervisor) Run(ctx context.Context) error {
	stops := make([]func(), len(s.processes))
	for i, p := range s.processes {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.keep(own, p)
		}()
		stops[i] = func() { cancel(); <-ended }
	}
	<-ctx.Done()
	for _, stop := range stops {
		stop()
	}
	return ctx.Err()
}

func (s *Supervisor) keep(ctx context.Context, p Process) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		err := runOnce(ctx, p)
		if ctx.Err() != nil {
			return
		}
		s.restarted(p.Name, err)
		pause = nextPause(pause, time.Since(began))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// nextPause is how long to wait before starting a process again that lived for so long.
func nextPause(last, lived time.Duration) time.Duration {
	if lived >= shortestLife {
		return 0
	}
	return min(max(2*last, firstPause), longestPause)
}

func runOnce(ctx context.Context, p Process) error {
	lines := &lineWriter{emit: p.Output}
	defer lines.flush()
	cmd, err := command(ctx, p, lines)
	if err != nil {
		return err
	}
	return cmd.Run()
}

// command is the supervisor itself, called as `palisade launch SPEC`, which becomes the process. It has a process
// group of its own, so that Ctrl-C reaches the supervisor alone, which then stops the processes in order.
func command(ctx context.Context, p Process, output io.Writer) (*exec.Cmd, error) {
	word, err := p.Spec.Encode()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "launch", word)
	cmd.Env = p.Spec.Env
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Signal(syscall.SIGTERM)) }
	cmd.WaitDelay = stopGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: p.Isolate, Setpgid: true}
	return cmd, nil
}

// lineWriter cuts what a process writes into lines. Lines longer than maxLine are cut.
type lineWriter struct {
	emit func(line string)
	mu   sync.Mutex
	rest []byte
}

const maxLine = 16 << 10

// Write takes the next bytes; it never fails.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found {
			break
		}
		w.emit(string(line[:min(len(line), maxLine)]))
		w.rest = rest
	}
	if len(w.rest) > maxLine {
		w.emit(string(w.rest[:maxLine]))
		w.rest = nil
	}
	w.rest = bytes.Clone(w.rest)
	return len(p), nil
}

func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		w.emit(string(w.rest))
		w.rest = nil
	}
}
