package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/palisade-sec/palisade/services/scanner/internal/inventory"
	"github.com/palisade-sec/palisade/services/scanner/internal/overlay"
	"github.com/palisade-sec/palisade/services/scanner/internal/sandbox"
)

const (
	// scratchFileBytes bounds a file that is made: the copy of a package database.
	scratchFileBytes = 256 << 20
	openFiles        = 1024
)

// Main is the process that looks: its arguments are those that Run gives, without Word. It writes the report.
func Main(ctx context.Context, args []string, answer io.Writer) error {
	const before = 5 // scratch directory and bounds
	if len(args) <= before {
		return errors.New("usage: inventory SCRATCH MEMORY_MIB CPU_SECONDS FILES READ_MIB LAYER…")
	}
	scratch, layers := args[0], args[before:]
	bounds, err := parseBounds(args[1:before])
	if err != nil {
		return err
	}
	// Readers of databases copy them to a temporary file.
	if err := os.Setenv("TMPDIR", scratch); err != nil {
		return err
	}
	view, err := overlay.New(layers, overlay.Limits{Entries: bounds.Files, Bytes: bounds.ReadMiB << 20})
	if err != nil {
		return err
	}
	defer view.Close()
	err = sandbox.Enter(sandbox.Config{
		Reads: layers, Scratch: scratch, MemoryBytes: bounds.MemoryMiB << 20, CPUSeconds: bounds.CPUSeconds, FileBytes: scratchFileBytes, OpenFiles: openFiles,
	})
	if err != nil {
		return fmt.Errorf("restrict itself: %w", err)
	}
	report, err := inventory.Collect(ctx, view)
	if view.Exhausted() {
		return overlay.ErrExhausted
	}
	if err != nil {
		return err
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(report)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	_, err = answer.Write(raw)
	return err
}

func parseBounds(words []string) (Bounds, error) {
	var b Bounds
	var errs [4]error
	b.MemoryMiB, errs[0] = strconv.ParseUint(words[0], 10, 64)
	b.CPUSeconds, errs[1] = strconv.ParseUint(words[1], 10, 64)
	b.Files, errs[2] = strconv.ParseInt(words[2], 10, 64)
	b.ReadMiB, errs[3] = strconv.ParseInt(words[3], 10, 64)
	if err := errors.Join(errs[:]...); err != nil {
		return b, err
	}
	return b, b.Validate()
}
