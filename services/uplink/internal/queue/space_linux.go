package queue

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrNoSpace says that the disk is nearly full: nothing is stored until there is room again.
var ErrNoSpace = errors.New("disk is nearly full")

// freeBytes is how much a process without privileges may still write to the file system of directory.
func freeBytes(directory string) (int64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(directory, &stat); err != nil {
		return 0, fmt.Errorf("read free space of %s: %w", directory, err)
	}
	blocks, size := stat.Bavail, uint64(max(stat.Bsize, 1))   //nolint:gosec // positive
	return int64(min(blocks, math.MaxInt64/size) * size), nil //nolint:gosec // bounded: a file system may claim anything
}

// room returns ErrNoSpace, with figures and what to do, if less than the floor is free.
//
// Badger writes through mappings of sparse files, so a full disk is no error to it but a fault signal that ends the
// process. Keeping away from there is the only way to tell a full disk from a damaged database.
func (q *Queue) room() error {
	free, err := q.free(filepath.Dir(q.path))
	if err != nil {
		return err
	}
	if free < q.cfg.MinFreeBytes {
		return fmt.Errorf("%w: %s has %d bytes free and the queue needs %d: free some there, or lower queue.min_free_bytes",
			ErrNoSpace, filepath.Dir(q.path), free, q.cfg.MinFreeBytes)
	}
	return nil
}

// admit refuses findings while the disk is nearly full. What is stored already can still be delivered and dropped,
// which is what makes room.
func (q *Queue) admit(findings int) error {
	err := q.room()
	full := errors.Is(err, ErrNoSpace)
	if was := q.full.Swap(full); was != full {
		if full {
			q.log.Error("Refusing findings", "err", err)
		} else {
			q.log.Info("Taking findings again")
		}
	}
	if err != nil {
		q.metrics.refused.Add(float64(findings))
	}
	return err
}

const corruptSuffix = ".corrupt-"

// reasonOf is why a database was set aside, in parentheses, or nothing if that is not known.
func reasonOf(aside string) string {
	const longest = 512
	raw, err := os.ReadFile(filepath.Join(aside, reasonFile))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (%q)", strings.TrimSpace(string(raw[:min(len(raw), longest)])))
}

// setAside are the damaged databases that nobody has removed yet.
func (q *Queue) setAside() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(q.path))
	var found []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), filepath.Base(q.path)+corruptSuffix) {
			found = append(found, filepath.Join(filepath.Dir(q.path), entry.Name()))
		}
	}
	return found, err
}

// warnings are for people, one line each. They are read from the disk, so they last as long as what they are about,
// and no longer.
func (q *Queue) warnings(refusing error) []string {
	var out []string
	if refusing != nil {
		out = append(out, "findings are refused, so the correlator waits, and soon no rule is enforced: "+refusing.Error())
	}
	found, err := q.setAside()
	if err != nil {
		out = append(out, "cannot look for damaged queues: "+err.Error())
	}
	for _, aside := range found {
		out = append(out, fmt.Sprintf(
			"queue was corrupt and is now %s: findings in it were not delivered; remove it when examined%s", aside, reasonOf(aside)))
	}
	return out
}
