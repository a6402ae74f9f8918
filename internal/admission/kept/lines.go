package kept

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	linesName = "alone.jsonl"
	// takenSuffix is of the file that is read next: who was writing to it has ended by then.
	takenSuffix = ".taken"
	// maxLinesBytes bounds what waits for the enforcer; what does not fit is lost, and the container is then one that nobody knows of.
	maxLinesBytes = 4 << 20
)

// Line is what was decided in the enforcer's place.
type Line struct {
	Time      time.Time `json:"time"`
	Container string    `json:"container_id"`
	Image     string    `json:"image,omitempty"`
	Digest    string    `json:"digest,omitempty"`
	// Rule, Effect, Denied and DryRun are admission.Decision's.
	Rule   string `json:"rule,omitempty"`
	Effect string `json:"effect"`
	Denied bool   `json:"denied,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	Text   string `json:"text,omitempty"`
	// Fault says why the policy could not be used, "" if it could or there was none.
	Fault string `json:"fault,omitempty"`
}

// Append adds a line, for the enforcer to find.
func (s *Store) Append(line Line) error {
	raw, err := json.Marshal(line)
	if err != nil {
		return err
	}
	path := filepath.Join(s.directory, linesName)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && info.Size()+int64(len(raw)) > maxLinesBytes {
		err = fmt.Errorf("%s: more than %d bytes wait for the enforcer", path, maxLinesBytes)
	}
	if err == nil {
		_, err = file.Write(append(raw, '\n')) // one write, so that lines of several do not mix
	}
	return err
}

// Take returns the lines that were written before the last call, and puts aside those written since for the next one. A line that is
// none is told of in the error, with the others returned.
func (s *Store) Take() ([]Line, error) {
	path := filepath.Join(s.directory, linesName)
	taken := path + takenSuffix
	raw, err := readRoots(taken, 2*maxLinesBytes)
	if err != nil && !errors.Is(err, ErrNone) {
		return nil, errors.Join(err, os.Remove(taken))
	}
	lines, err := parseLines(taken, raw)
	if raw != nil {
		err = errors.Join(err, os.Remove(taken))
	}
	if moved := os.Rename(path, taken); moved != nil && !errors.Is(moved, fs.ErrNotExist) {
		err = errors.Join(err, moved)
	}
	return lines, err
}

func parseLines(path string, raw []byte) (lines []Line, err error) {
	number := 0
	for one := range bytes.Lines(raw) {
		number++
		var line Line
		if fault := json.Unmarshal(one, &line); fault != nil {
			err = errors.Join(err, fmt.Errorf("%s:%d: %w", path, number, fault))
			continue
		}
		lines = append(lines, line)
	}
	return lines, err
}
