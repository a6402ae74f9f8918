// Package bookmark remembers across restarts how far the stream of events had been seen, so that a node which was down
// altogether can say from when to when. Data in: one mark every few seconds; data out: the last one, at start.
package bookmark

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/palisade-sec/palisade/internal/statedir"
)

// Mark is how far the stream had been seen.
type Mark struct {
	// Instance is the collector's run; empty if none has been seen.
	Instance string `json:"instance"`
	// Last is the last event's time.
	Last time.Time `json:"last"`
	// Epoch is that of the kernel's rings; empty if the collector did not say.
	Epoch string `json:"epoch,omitempty"`
}

// Book keeps one mark in a file.
type Book struct{ path string }

// fileName is the mark's file in the state directory.
const fileName = "seen.json"

// Open reads the mark in directory. A mark that is not there is a zero one; one that cannot be read is too, with the
// error: the caller goes on, and says that it does not know what was missed.
func Open(directory string) (*Book, Mark, error) {
	b := &Book{path: filepath.Join(directory, fileName)}
	raw, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, Mark{}, nil
	}
	var mark Mark
	if err == nil {
		err = json.Unmarshal(raw, &mark)
	}
	if err != nil {
		return b, Mark{}, fmt.Errorf("read bookmark %s: %w", b.path, err)
	}
	return b, mark, nil
}

// Save replaces the mark. It is on disk when Save returns.
func (b *Book) Save(mark Mark) error {
	raw, err := json.Marshal(mark)
	if err != nil {
		return fmt.Errorf("write bookmark: %w", err)
	}
	return statedir.WriteFile(b.path, raw, 0o600)
}
