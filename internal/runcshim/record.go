package runcshim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/statedir"
)

// StateDirectory is where the record is, below the root.
const StateDirectory = "/var/lib/palisade/shim"

// maxRecord bounds what is read of a record, in bytes.
const maxRecord = 1 << 20

// ErrBusy says that another palisade shim command, or a watcher, is at it.
var ErrBusy = errors.New("another `palisade shim` is at work: repeat this when it has ended")

// Entry is what was done at a place.
type Entry struct {
	Path     string    `json:"path"`
	ShimHash string    `json:"shim_sha256"`
	RuncHash string    `json:"runc_sha256"`
	Time     time.Time `json:"time"`
}

// record is for comparing only: nothing that it says is needed to take the shim out again.
type record struct {
	Entries []Entry `json:"entries"`
}

func (r record) entry(path string) (Entry, bool) {
	i := slices.IndexFunc(r.Entries, func(e Entry) bool { return e.Path == path })
	if i < 0 {
		return Entry{}, false
	}
	return r.Entries[i], true
}

func (r *record) forget(path string) {
	r.Entries = slices.DeleteFunc(r.Entries, func(e Entry) bool { return e.Path == path })
}

func (h Host) recordPath() string { return filepath.Join(h.Root, StateDirectory, "record.json") }

// readRecord returns an empty record if there is none, or none that can be read: what is on disk says the rest.
func (h Host) readRecord() record {
	var r record
	info, err := os.Stat(h.recordPath())
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxRecord {
		return record{}
	}
	raw, err := os.ReadFile(h.recordPath())
	if err != nil || json.Unmarshal(raw, &r) != nil {
		return record{}
	}
	return r
}

func (h Host) writeRecord(r record) error {
	if len(r.Entries) == 0 {
		if err := os.Remove(h.recordPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return statedir.WriteFile(h.recordPath(), append(raw, '\n'), 0o600)
}

// lock keeps everybody else out until the file is closed. The error wraps ErrBusy if somebody is in.
func (h Host) lock() (*os.File, error) {
	path := filepath.Join(h.Root, StateDirectory, "lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("keep a record: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep a record: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return file, nil
}
