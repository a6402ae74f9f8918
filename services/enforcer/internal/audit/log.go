// Package audit keeps the record of what the enforcer did, and of what it would not do: JSON lines in a file, on disk
// before the act they announce.
//
// In: records. Out: one file and a bounded number of older ones beside it. A record that cannot be written is an
// error, and whoever gets it must not act.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// Config says where the log is and how much disk it may take: at most MaxBytes × (Keep + 1).
type Config struct {
	Path string `yaml:"path"`
	// MaxBytes is the size at which the file is moved aside.
	MaxBytes int64 `yaml:"max_bytes"`
	// Keep is how many older files stay, as path.1 (the newest) to path.Keep.
	Keep int `yaml:"keep"`
}

// DefaultConfig is 16 MiB and four older files, some 200 000 acts.
func DefaultConfig() Config {
	return Config{Path: "/var/lib/palisade/enforcer/audit.log", MaxBytes: 16 << 20, Keep: 4}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.Path) {
		errs = append(errs, fmt.Errorf("audit.path: %q is not an absolute path", c.Path))
	}
	if c.MaxBytes < maxRecordBytes {
		errs = append(errs, fmt.Errorf("audit.max_bytes: %d is less than one record, %d bytes", c.MaxBytes, maxRecordBytes))
	}
	if c.Keep < 1 || c.Keep > 1000 {
		errs = append(errs, fmt.Errorf("audit.keep: %d is not within 1 and 1000", c.Keep))
	}
	return errors.Join(errs...)
}

// Log is an open audit log. It is safe for concurrent use; records are written one after the other.
type Log struct {
	cfg Config

	mu   sync.Mutex
	file *os.File
	size int64
}

// Open opens the log, or makes it and its directory. Only root may read it. A name that is a symbolic link or anything
// but a regular file is an error. Close it when done.
func Open(cfg Config) (*Log, error) {
	l := &Log{cfg: cfg}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return l, nil
}

// Append writes one record and returns once it is on disk. After an error nothing of the record counts: what was
// written of it is cut off, or ends as a line that is not JSON.
func (l *Log) Append(record Record) error {
	line, err := json.Marshal(record.clean())
	if err != nil {
		return fmt.Errorf("audit: encode record: %w", err)
	}
	line = append(line, '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.prepare(int64(len(line))); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if _, err := l.file.Write(line); err != nil {
		return fmt.Errorf("audit: %w", errors.Join(err, l.file.Truncate(l.size)))
	}
	// After a failed fsync the kernel may call the lost pages clean, so a second try would prove nothing.
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("audit: %w", errors.Join(err, l.file.Truncate(l.size)))
	}
	l.size += int64(len(line))
	return nil
}

// Close closes the file. Append fails from then on.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// prepare makes sure that the name still leads to the open file and that the record fits. A log that somebody removed
// or replaced is made anew: records in a file without a name are no evidence.
func (l *Log) prepare(length int64) error {
	named, err := os.Lstat(l.cfg.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	open, err := l.file.Stat()
	if err != nil {
		return err
	}
	if named == nil || !os.SameFile(named, open) {
		if err := l.reopen(); err != nil {
			return err
		}
	}
	if l.size == 0 || l.size+length <= l.cfg.MaxBytes {
		return nil
	}
	return l.rotate()
}

// rotate moves path to path.1, path.1 to path.2 and so on, over the oldest, and starts a new file.
func (l *Log) rotate() error {
	for n := l.cfg.Keep - 1; n >= 1; n-- {
		err := os.Rename(l.older(n), l.older(n+1))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	if err := os.Rename(l.cfg.Path, l.older(1)); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	return l.reopen()
}

func (l *Log) older(n int) string { return fmt.Sprintf("%s.%d", l.cfg.Path, n) }

// reopen replaces the open file by the one that has the name now. On an error the old one stays.
func (l *Log) reopen() error {
	before := l.file
	if err := l.open(); err != nil {
		return err
	}
	return before.Close()
}

// open opens or makes the file, ends a torn last line, and makes a new name durable.
func (l *Log) open() error {
	file, err := os.OpenFile(l.cfg.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	size, err := settle(file)
	if err == nil {
		err = syncDirectory(filepath.Dir(l.cfg.Path))
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	l.file, l.size = file, size
	return nil
}

// settle returns the file's size after it has closed a line that a crash cut short.
func settle(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file", file.Name())
	}
	size := info.Size()
	if size == 0 {
		return 0, nil
	}
	last := make([]byte, 1)
	if _, err := file.ReadAt(last, size-1); err != nil {
		return 0, err
	}
	if last[0] == '\n' {
		return size, nil
	}
	if _, err := file.WriteString("\n"); err != nil {
		return 0, err
	}
	return size + 1, nil
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
