// Package inventory finds the packages in a file system: those of distributions (dpkg, apk, rpm) and of languages (Go and Rust
// executables, Java archives, Node, Python and Ruby packages as installed). google/osv-scalibr's extractors read the files; this
// package chooses them, keeps each file's trouble to that file, and turns what they say into the scanner's contract, within bounds.
//
// Data in: a hostile file system. Data out: a report whose every string is short and printable UTF-8.
package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/google/osv-scalibr/extractor/filesystem"
	scalibrfs "github.com/google/osv-scalibr/fs"
	"github.com/google/osv-scalibr/log"
	"github.com/google/osv-scalibr/plugin"
	"github.com/google/osv-scalibr/stats"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

// Bounds of a report.
const (
	// MaxPackages is how many packages a report has at most; an image with more cannot be scanned.
	MaxPackages = 50_000
	// MaxFaults is how many lines say what could not be read; the last counts the others.
	MaxFaults = 64
	// MaxText bounds a name, a version, a path or a line, in bytes.
	MaxText = 512
	// MaxLocations is how many files of one package are named.
	MaxLocations = 8
)

// ErrTooMany says that there are more than MaxPackages packages.
var ErrTooMany = errors.New("too many packages")

// Collect walks a file system and reports its packages, by ecosystem, name and version, and what could not be read. The error is
// ctx's, ErrTooMany, or the file system's, if that has a bound that was reached.
func Collect(ctx context.Context, fsys scalibrfs.FS) (*scannerv1.Report, error) {
	found := &collection{}
	extractors, err := newExtractors(found)
	if err != nil {
		return nil, err
	}
	log.SetLogger(quiet{})
	// Neither the walk nor the extractors report directories that cannot be listed.
	view := &watched{FS: fsys, found: found}
	result, status, err := filesystem.Run(ctx, &filesystem.Config{
		Extractors: extractors, ScanRoots: []*scalibrfs.ScanRoot{{FS: view}}, Stats: stats.NoopCollector{},
	})
	if err != nil {
		return nil, fmt.Errorf("walk the layers: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, s := range status {
		found.failures(s)
	}
	for _, p := range result.Packages {
		found.add(p)
	}
	if len(found.packages) > MaxPackages {
		return nil, fmt.Errorf("%w: %d, at most %d", ErrTooMany, len(found.packages), MaxPackages)
	}
	return &scannerv1.Report{Packages: sorted(found.packages), Faults: found.faultLines()}, nil
}

// collection is what was found so far.
type collection struct {
	packages []*scannerv1.Package
	// faults are by path: several extractors say the same of a file.
	faults map[string]string
	more   int
}

// fault notes what could not be read.
func (c *collection) fault(path, text string) {
	if _, known := c.faults[path]; known {
		return
	}
	if len(c.faults) >= MaxFaults-1 {
		c.more++
		return
	}
	if c.faults == nil {
		c.faults = map[string]string{}
	}
	c.faults[path] = text
}

func (c *collection) failures(s *plugin.Status) {
	if s.Status == nil || s.Status.Status == plugin.ScanStatusSucceeded {
		return
	}
	slices.SortFunc(s.Status.FileErrors, func(a, b *plugin.FileError) int { return cmp.Compare(a.FilePath, b.FilePath) })
	for _, file := range s.Status.FileErrors {
		c.fault(file.FilePath, s.Name+": "+file.ErrorMessage)
	}
	if len(s.Status.FileErrors) == 0 {
		c.fault("", s.Name+": "+s.Status.FailureReason)
	}
}

func (c *collection) faultLines() []string {
	var lines []string
	for _, path := range slices.Sorted(maps.Keys(c.faults)) {
		lines = append(lines, shown(strings.TrimPrefix(path+": "+c.faults[path], ": ")))
	}
	if c.more > 0 {
		lines = append(lines, fmt.Sprintf("%d more files could not be read", c.more))
	}
	return lines
}

// watched is a file system that notes the directories it could not list.
type watched struct {
	scalibrfs.FS
	found *collection
}

// Open notes directories that cannot be opened. A file's trouble is noted by who reads it.
func (w *watched) Open(name string) (fs.File, error) {
	file, err := w.FS.Open(name)
	if listing, ok := file.(fs.ReadDirFile); ok && err == nil {
		return &watchedListing{ReadDirFile: listing, name: name, found: w.found}, nil
	}
	return file, err
}

// Stat notes what is there and cannot be looked at.
func (w *watched) Stat(name string) (fs.FileInfo, error) {
	info, err := w.FS.Stat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.found.fault(name, reason(err))
	}
	return info, err
}

type watchedListing struct {
	fs.ReadDirFile
	name  string
	found *collection
}

func (l *watchedListing) ReadDir(n int) ([]fs.DirEntry, error) {
	entries, err := l.ReadDirFile.ReadDir(n)
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		l.found.fault(l.name, reason(err))
	}
	return entries, err
}

// reason is an error without the path, which stands before it.
func reason(err error) string {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	if errors.Is(err, syscall.EXDEV) {
		return "another file system is mounted there, which is not scanned"
	}
	return err.Error()
}

// quiet is a logger that says nothing: what concerns the report is in the result.
type quiet struct{}

func (quiet) Errorf(string, ...any) {}
func (quiet) Error(...any)          {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Warn(...any)           {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Info(...any)           {}
func (quiet) Debugf(string, ...any) {}
func (quiet) Debug(...any)          {}
