// Package standing tells where the runC shim stands, from who can see all of the host to who must not.
//
// In: what a watcher saw. Out: a file, and for its readers what it says, as long as it is fresh: a watcher that is gone sees nothing.
package standing

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/palisade-sec/palisade/internal/statedir"
)

const (
	// Name is the file's.
	Name = "standing.json"
	// Fresh is how old it may be: a watcher writes at least every minute.
	Fresh = 5 * time.Minute

	maxBytes = 1 << 20
)

// ErrStale says that nobody watches any more.
var ErrStale = errors.New("nobody watches the shim: palisade up does, and palisade shim watch")

// State is what a watcher saw.
type State struct {
	Time   time.Time `json:"time"`
	Places []Place   `json:"places"`
}

// Place is a runtime that engines call.
type Place struct {
	Path    string   `json:"path"`
	Engines []string `json:"engines"`
	// Covered says that the shim stands there.
	Covered bool `json:"covered"`
}

// InForce says whether any engine's containers pass the shim.
func (s State) InForce() bool {
	for _, place := range s.Places {
		if place.Covered {
			return true
		}
	}
	return false
}

// Write puts the file into a directory, which it makes, in one step.
func Write(directory string, state State) error {
	raw, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("tell where the shim stands: %w", err)
	}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return fmt.Errorf("tell where the shim stands: %w", err)
	}
	return statedir.WriteFile(filepath.Join(directory, Name), raw, 0o600)
}

// Read returns what the file in a directory says. The error is fs.ErrNotExist, ErrStale, or names the fault. Only root's file counts.
func Read(directory string, now time.Time) (State, error) {
	path := filepath.Join(directory, Name)
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return State{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return State{}, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != 0 || !info.Mode().IsRegular() || info.Mode()&0o022 != 0 {
		return State{}, fmt.Errorf("%s: it is not a file that only root can write", path)
	}
	raw, err := io.ReadAll(io.LimitReader(file, maxBytes))
	if err != nil {
		return State{}, err
	}
	return parse(path, raw, now)
}

func parse(path string, raw []byte, now time.Time) (State, error) {
	var state State
	if err := json.Unmarshal(raw, &state); err != nil {
		return State{}, fmt.Errorf("%s: %w", path, err)
	}
	if age := now.Sub(state.Time); age > Fresh || age < -Fresh {
		return State{}, ErrStale
	}
	return state, nil
}
