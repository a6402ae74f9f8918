// Package child looks for packages in layers in a process of its own: the same binary, started anew for each scan, which restricts
// itself (package sandbox) before it opens a file of the image. Run is the side that starts it, Main the other.
//
// What the process answers is as foreign as the layers, because they may have taken it over: its size is bounded while it is read, and
// it is checked before it is used.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/services/scanner/internal/inventory"
)

// Word is the first argument of the process that looks.
const Word = "inventory"

const (
	// maxAnswer bounds the report, in bytes: 50 000 packages of 200 bytes have 10 MB.
	maxAnswer = 16 << 20
	// maxSaid is how much is kept of what the process says before it fails.
	maxSaid = 4 << 10
	// MaxLayers is how many layers are looked at; overlayfs has 500 at most.
	MaxLayers = 500
	// stopGrace is how long its pipes may stay open after it was killed.
	stopGrace = 2 * time.Second
)

// ErrFailed says that the process did not answer as it should: its layers outgrew a bound, or broke it.
var ErrFailed = errors.New("the scan failed")

// Config says how to look.
type Config struct {
	// Binary is the scanner's program; empty means this process's own.
	Binary string
	// Scratch is a directory in which each scan gets one of its own, removed at its end.
	Scratch string
	// Time bounds a scan.
	Time time.Duration
	// Bounds of the process.
	Bounds Bounds
}

// Bounds are limits of one scan.
type Bounds struct {
	// MemoryMiB is what the process may write to of its memory.
	MemoryMiB uint64 `yaml:"memory_mib"`
	// CPUSeconds of processor time.
	CPUSeconds uint64 `yaml:"cpu_seconds"`
	// Files are entries of directories, in all layers together.
	Files int64 `yaml:"files"`
	// ReadMiB is how much is read of files.
	ReadMiB int64 `yaml:"read_mib"`
}

// DefaultBounds are for images of up to a million files.
func DefaultBounds() Bounds {
	return Bounds{MemoryMiB: 192, CPUSeconds: 300, Files: 2_000_000, ReadMiB: 16 << 10}
}

// Validate reports every fault.
func (b Bounds) Validate() error {
	var errs []error
	if b.MemoryMiB < 64 || b.MemoryMiB > 16<<10 {
		errs = append(errs, fmt.Errorf("bounds.memory_mib: %d is not between 64 and 16384", b.MemoryMiB))
	}
	if b.CPUSeconds == 0 || b.CPUSeconds > 86_400 {
		errs = append(errs, fmt.Errorf("bounds.cpu_seconds: %d is not between 1 and 86400", b.CPUSeconds))
	}
	if b.Files <= 0 {
		errs = append(errs, fmt.Errorf("bounds.files: %d is not positive", b.Files))
	}
	if b.ReadMiB <= 0 || b.ReadMiB > 1<<20 {
		errs = append(errs, fmt.Errorf("bounds.read_mib: %d is not between 1 and 1048576", b.ReadMiB))
	}
	return errors.Join(errs...)
}

// words are the bounds as the process's arguments.
func (b Bounds) words() []string {
	return []string{
		strconv.FormatUint(b.MemoryMiB, 10), strconv.FormatUint(b.CPUSeconds, 10), strconv.FormatInt(b.Files, 10), strconv.FormatInt(b.ReadMiB, 10),
	}
}

// Run looks at the layers, absolute paths, the topmost first. The error wraps ErrFailed if the process failed, and then says how.
func Run(ctx context.Context, cfg Config, layers []string) (*scannerv1.Report, error) {
	scratch, err := os.MkdirTemp(cfg.Scratch, "scan-*")
	if err != nil {
		return nil, fmt.Errorf("make scratch directory: %w", err)
	}
	defer os.RemoveAll(scratch)
	ctx, cancel := context.WithTimeout(ctx, cfg.Time)
	defer cancel()
	binary := cfg.Binary
	if binary == "" {
		binary = "/proc/self/exe"
	}
	args := append(append([]string{Word, scratch}, cfg.Bounds.words()...), layers...)
	answer, said := &bounded{most: maxAnswer}, &tail{}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = []string{"TMPDIR=" + scratch, "GOMAXPROCS=2", "GOTRACEBACK=none"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = answer, said
	cmd.WaitDelay = stopGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	// The death signal comes when the thread that started the process ends, so this goroutine keeps its thread.
	runtime.LockOSThread()
	err = cmd.Run()
	runtime.UnlockOSThread()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: it took longer than %v, or was called off", ErrFailed, cfg.Time)
	case answer.over:
		return nil, fmt.Errorf("%w: its report has more than %d bytes", ErrFailed, maxAnswer)
	case err != nil:
		return nil, fmt.Errorf("%w: %w: %s", ErrFailed, err, said.line())
	}
	report := &scannerv1.Report{}
	if err := proto.Unmarshal(answer.buffer.Bytes(), report); err != nil {
		return nil, fmt.Errorf("%w: read its report: %w", ErrFailed, err)
	}
	if err := inventory.Check(report); err != nil {
		return nil, fmt.Errorf("%w: check its report: %w", ErrFailed, err)
	}
	return report, nil
}

// CheckLayers refuses what is no list of layers: directories, by absolute paths.
func CheckLayers(layers []string) error {
	if len(layers) == 0 || len(layers) > MaxLayers {
		return fmt.Errorf("layers: %d, want 1 to %d", len(layers), MaxLayers)
	}
	for i, layer := range layers {
		if !filepath.IsAbs(layer) || filepath.Clean(layer) != layer || strings.ContainsRune(layer, 0) {
			return fmt.Errorf("layers: number %d is not an absolute, clean path", i+1)
		}
	}
	return nil
}

// bounded keeps what is written until it is too much; then writing fails, which ends the writer.
type bounded struct {
	buffer bytes.Buffer
	most   int
	over   bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.buffer.Len()+len(p) > b.most {
		b.over = true
		return 0, io.ErrShortWrite
	}
	return b.buffer.Write(p)
}

// tail keeps the beginning of what is written, and takes the rest.
type tail struct{ buffer bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	if room := maxSaid - t.buffer.Len(); room > 0 {
		t.buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// line is the first line: a Go program that dies says there why.
func (t *tail) line() string {
	line, _, _ := strings.Cut(strings.TrimSpace(t.buffer.String()), "\n")
	return strings.ToValidUTF8(line[:min(len(line), 300)], "?")
}
