package runcshim

import (
	"crypto/sha256"
	"encoding/hex"
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
	Entries []Entry  `json:"entries,omitempty"`
	Configs []config `json:"configs,omitempty"`
}

// config is a configuration as it was before it was changed, and the hash of what was written.
type config struct {
	Engine    string `json:"engine"`
	Path      string `json:"path"`
	Before    []byte `json:"before"` // null if there was none
	AfterHash string `json:"after_sha256"`
}

// noteConfig keeps the first of several: a change that was interrupted and repeated goes back to what was there at first.
func (r *record) noteConfig(plan dropIn) {
	hash := hashOf(plan.after)
	for i := range r.Configs {
		if r.Configs[i].Path == plan.config {
			if r.Configs[i].AfterHash != hash {
				r.Configs[i] = config{Engine: plan.engine, Path: plan.config, Before: plan.before, AfterHash: hash}
			}
			return
		}
	}
	r.Configs = append(r.Configs, config{Engine: plan.engine, Path: plan.config, Before: plan.before, AfterHash: hash})
}

// before returns what was there before a configuration was changed, if nobody has changed it since.
func (r *record) before(path string, now []byte) (content []byte, ok bool) {
	for _, c := range r.Configs {
		if c.Path == path && c.AfterHash == hashOf(now) {
			return c.Before, true
		}
	}
	return nil, false
}

// changedAgain notes another content of a configuration that will go back to what it was later.
func (r *record) changedAgain(path string, from, to []byte) {
	for i := range r.Configs {
		if r.Configs[i].Path == path && r.Configs[i].AfterHash == hashOf(from) {
			r.Configs[i].AfterHash = hashOf(to)
		}
	}
}

func (r *record) forgetConfig(path string) {
	r.Configs = slices.DeleteFunc(r.Configs, func(c config) bool { return c.Path == path })
}

// forgetEngine forgets what an interrupted uninstall could not.
func (r *record) forgetEngine(name string) {
	r.Configs = slices.DeleteFunc(r.Configs, func(c config) bool { return c.Engine == name })
}

func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
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
	if len(r.Entries)+len(r.Configs) == 0 {
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
	if err := os.MkdirAll(filepath.Dir(filepath.Dir(path)), 0o755); err != nil { //nolint:gosec // a node's processes go through it
		return nil, fmt.Errorf("keep a record: %w", err)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
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
	if mine, there := stat(file.Stat()), stat(os.Stat(path)); mine == nil || there == nil || !os.SameFile(mine, there) {
		// It was removed by who had it: another may have made and locked a new one.
		file.Close()
		return nil, ErrBusy
	}
	return file, nil
}

func stat(info fs.FileInfo, err error) fs.FileInfo {
	if err != nil {
		return nil
	}
	return info
}

// clean removes the state's directory when nothing is installed any more. The lock must be held.
func (h Host) clean(r record) error {
	if len(r.Entries)+len(r.Configs) > 0 || len(h.Traces()) > 0 {
		return nil
	}
	directory := filepath.Join(h.Root, StateDirectory)
	for _, path := range []string{filepath.Join(directory, "lock"), directory} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_ = os.Remove(filepath.Dir(directory)) // not empty: a node's state
	return nil
}

// Traces are the paths of all that is installed, in whatever state. They are looked for without changing anything.
func (h Host) Traces() []string {
	traces := h.left()
	directories, err := filepath.Glob(filepath.Join(h.Root, ShimDirectory, "*"))
	if err != nil {
		return traces
	}
	for _, directory := range directories {
		traces = append(traces, filepath.Join(ShimDirectory, filepath.Base(directory)))
	}
	return traces
}
