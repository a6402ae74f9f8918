package advisory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/palisade-sec/palisade/internal/advisory/keyfile"
)

// fileName is the store's file in its directory.
const fileName = "advisories"

// packagePrefix begins the keys of packages.
const packagePrefix = "p\x00"

// Keys: what is known of a package's advisories, and of a vulnerability by its name.
func packageKey(ecosystem, name string) string { return packagePrefix + ecosystem + "\x00" + name }
func nameKey(name string) string               { return "n\x00" + name }

// ecosystemOf is the ecosystem in a package's key.
func ecosystemOf(key string) string {
	ecosystem, _, _ := strings.Cut(strings.TrimPrefix(key, packagePrefix), "\x00")
	return ecosystem
}

// Store is an open store. It is safe for concurrent use.
type Store struct {
	path     string
	in       *os.File
	file     *keyfile.File
	metadata Metadata
}

// Open opens the store in a directory. It only reads, and needs no right to write there. The error wraps ErrNone if nothing was
// imported and ErrDamaged if it cannot be used, and says what to do.
func Open(directory string) (*Store, error) {
	path := filepath.Join(directory, fileName)
	in, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s: import some with `palisade vulndb import`", ErrNone, directory)
	}
	if err != nil {
		return nil, fmt.Errorf("open advisory store: %w", err)
	}
	s := &Store{path: path, in: in}
	info, err := in.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a file")
	}
	if err == nil {
		s.file, err = keyfile.Open(in, info.Size(), &s.metadata)
	}
	if err != nil {
		in.Close()
		return nil, s.damaged(err)
	}
	return s, nil
}

func (s *Store) damaged(err error) error {
	return fmt.Errorf("%w (%s: %w): import again with `palisade vulndb import`", ErrDamaged, s.path, err)
}

// Close releases the file.
func (s *Store) Close() error {
	s.file.Close()
	return s.in.Close()
}

// Metadata says what the store holds. The caller must not change it.
func (s *Store) Metadata() Metadata { return s.metadata }

// Replaced says whether something else was imported since the store was opened.
func (s *Store) Replaced() (bool, error) {
	own, err := s.in.Stat()
	if err != nil {
		return false, fmt.Errorf("look at advisory store: %w", err)
	}
	current, err := os.Stat(s.path)
	if err != nil {
		return false, fmt.Errorf("look at advisory store: %w", err)
	}
	return !os.SameFile(own, current), nil
}

// Verify reads the whole store. Its error wraps ErrDamaged.
func (s *Store) Verify(ctx context.Context) error {
	err := s.file.Cursor().All(func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if strings.HasPrefix(string(key), packagePrefix) {
			return json.Unmarshal(value, new(record))
		}
		return json.Unmarshal(value, new(vulnerability))
	})
	if err != nil && ctx.Err() == nil {
		return s.damaged(err)
	}
	return err
}

// records returns what is known of a package.
func (s *Store) records(c *keyfile.Cursor, key string) ([]*record, error) {
	var found []*record
	err := c.Each(key, func(value []byte) error {
		r := &record{}
		found = append(found, r)
		return json.Unmarshal(value, r)
	})
	if err != nil {
		return nil, s.damaged(err)
	}
	return found, nil
}

// named returns what is known of a vulnerability; the zero value if that is no more than its name.
func (s *Store) named(c *keyfile.Cursor, name string) (vulnerability, error) {
	var v vulnerability
	if err := c.Each(nameKey(name), func(value []byte) error { return json.Unmarshal(value, &v) }); err != nil {
		return v, s.damaged(err)
	}
	return v, nil
}
