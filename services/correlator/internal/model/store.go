package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/palisade-sec/palisade/internal/periodic"
	"github.com/palisade-sec/palisade/internal/statedir"
)

// Store is a learner whose models are files, one for each, in a directory of their own.
type Store struct {
	*Learner
	directory string
}

const (
	fileSuffix    = ".yaml"
	corruptSuffix = ".corrupt"
)

// Open reads the models in directory/models. One that cannot be read is set aside as *.corrupt and told of; an image whose model it was
// is learned anew. The directory must be the caller's alone.
func Open(cfg Config, directory string, log *slog.Logger) (*Store, error) {
	s := &Store{Learner: New(cfg, log), directory: filepath.Join(directory, "models")}
	if err := os.MkdirAll(s.directory, 0o700); err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	names, err := os.ReadDir(s.directory)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	for _, name := range names {
		path := filepath.Join(s.directory, name.Name())
		switch {
		case strings.HasPrefix(name.Name(), ".new-"): // a write that a crash cut short
			_ = os.Remove(path)
		case strings.HasSuffix(name.Name(), corruptSuffix):
			s.aside = append(s.aside, name.Name())
		case strings.HasSuffix(name.Name(), fileSuffix) && len(s.models) < cfg.Images:
			s.load(path)
		}
	}
	return s, nil
}

func (s *Store) load(path string) {
	m, err := readModel(path)
	if err == nil && fileName(m.digest) != filepath.Base(path) {
		err = fmt.Errorf("%s: is of image %s", path, m.digest)
	}
	if err != nil {
		aside := strings.TrimSuffix(path, fileSuffix) + corruptSuffix
		if renameErr := os.Rename(path, aside); renameErr != nil {
			err = errors.Join(err, renameErr)
		}
		s.aside = append(s.aside, filepath.Base(aside))
		s.log.Warn("Set a model aside that cannot be read", "err", err)
		return
	}
	m.dirty = false
	s.models[m.digest] = m
}

func readModel(path string) (*model, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(file, maxDocumentBytes+1))
	if err != nil {
		return nil, err
	}
	m, err := parse(path, raw)
	if err == nil {
		m.lastRun = info.ModTime()
	}
	return m, err
}

// Run writes down what changed, every so often and at the end.
func (s *Store) Run(ctx context.Context) error {
	defer s.Save()
	return periodic.Run(ctx, s.cfg.SaveEvery, func(context.Context) error {
		s.Save()
		return nil
	})
}

// Save writes down what changed. What could not be written is tried again the next time, and Err says why.
func (s *Store) Save() {
	documents, removed := s.changed()
	var errs []error
	for _, digest := range removed {
		if err := os.Remove(filepath.Join(s.directory, fileName(digest))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	var unsaved []string
	for _, d := range documents {
		raw, err := d.marshal()
		if err == nil {
			err = statedir.WriteFile(filepath.Join(s.directory, fileName(d.ImageDigest)), raw, 0o600)
		}
		if err != nil {
			errs, unsaved = append(errs, err), append(unsaved, d.ImageDigest)
		}
	}
	s.settle(errors.Join(errs...), unsaved)
}

// changed are copies of the models that changed since the last call, and the digests of those that are gone.
func (l *Learner) changed() (documents []*document, removed []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.models {
		if m.dirty {
			documents = append(documents, m.document())
			m.dirty = false
		}
	}
	for _, digest := range l.removed {
		if l.models[digest] == nil {
			removed = append(removed, digest)
		}
	}
	l.removed = nil
	return documents, removed
}

// settle takes in how writing went.
func (l *Learner) settle(err error, unsaved []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && l.storeErr == nil {
		l.log.Warn("Could not write models down", "err", err)
	}
	l.storeErr = err
	for _, digest := range unsaved {
		if m := l.models[digest]; m != nil {
			m.dirty = true
		}
	}
}

// fileName is a valid digest's. It has no separator in it.
func fileName(digest string) string { return strings.Replace(digest, ":", "-", 1) + fileSuffix }
