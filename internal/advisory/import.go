package advisory

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/advisory/keyfile"
)

// tempPattern names files that are being written. What a crash left of them goes with the next import.
const tempPattern = ".new-*"

// lockName is the file that an import holds locked.
const lockName = "lock"

// Progress is how far an import is.
type Progress struct {
	Path string
	// Records were read, of Total in an archive; of a directory Total is 0: nobody knows before the end.
	Records, Total int
}

// progressEvery is after how many records progress is told.
const progressEvery = 10_000

// Import reads OSV records from zips, directories and .json files, and puts a store of them in force in the directory, in place of
// the one that is there. If it returns an error, or crashes, that one stays. A record that cannot be read is counted and listed in the
// result, and is no error unless none can be. progress may be nil.
func Import(ctx context.Context, paths []string, directory string, progress func(Progress)) (Metadata, error) {
	if len(paths) == 0 {
		return Metadata{}, fmt.Errorf("%w: name a zip, a directory or a file of OSV records", errNothing)
	}
	if err := os.MkdirAll(directory, 0o755); err != nil { //nolint:gosec // the scanner reads it as another user; there are no secrets in it
		return Metadata{}, fmt.Errorf("make advisory store: %w", err)
	}
	lock, err := lockDirectory(directory)
	if err != nil {
		return Metadata{}, err
	}
	defer lock.Close()
	b, err := newBuilder(directory)
	if err != nil {
		return Metadata{}, fmt.Errorf("make advisory store: %w", err)
	}
	defer b.close()
	if progress == nil {
		progress = func(Progress) {}
	}
	read := &importer{builder: b, progress: progress}
	for _, path := range paths {
		if err := read.path(ctx, path); err != nil {
			return Metadata{}, err
		}
	}
	if err := read.conclude(paths); err != nil {
		return Metadata{}, err
	}
	if err := install(ctx, b, directory); err != nil {
		return Metadata{}, fmt.Errorf("write advisory store: %w", err)
	}
	return b.meta, nil
}

// lockDirectory lets one import at a time into a directory, and removes what another left behind.
func lockDirectory(directory string) (*os.File, error) {
	// Not the directory itself: whoever can read that could lock it, and keep imports out.
	lock, err := os.OpenFile(filepath.Join(directory, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock advisory store: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another import is at it: wait for it to end")
		}
		return nil, fmt.Errorf("lock %s: %w", directory, err)
	}
	left, _ := filepath.Glob(filepath.Join(directory, tempPattern)) // the pattern is well-formed
	for _, path := range left {
		os.Remove(path)
	}
	return lock, nil
}

// install writes the store and puts it in place.
func install(ctx context.Context, b *builder, directory string) error {
	temp, err := os.CreateTemp(directory, tempPattern)
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	out, err := keyfile.NewWriter(temp)
	if err != nil {
		return err
	}
	b.meta.ImportedAt = time.Now().UTC() // to the nanosecond: reports know by it with which store they were matched
	if err := b.write(ctx, out); err != nil {
		return err
	}
	// The scanner is another user.
	if err := errors.Join(temp.Chmod(0o644), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), filepath.Join(directory, fileName)); err != nil {
		return err
	}
	opened, err := os.Open(directory)
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close()) // the rename itself
}

// importer reads records into a builder.
type importer struct {
	builder  *builder
	progress func(Progress)
	faults   faultList
	source   *Source
	records  int
	total    int64 // bytes, inflated
}

// conclude says whether there is anything to put in force.
func (i *importer) conclude(paths []string) error {
	m := &i.builder.meta
	m.Faults, m.FaultLines = i.faults.count, i.faults.lines
	switch {
	case i.records == 0:
		return fmt.Errorf("%w: there is no .json file in %s", errNothing, strings.Join(paths, ", "))
	case i.faults.count == i.records:
		return fmt.Errorf("%w: none of the %d records could be read: %s", errNothing, i.records, strings.Join(i.faults.lines[:min(3, len(i.faults.lines))], "; "))
	case len(i.builder.rows) == 0:
		return fmt.Errorf("%w: none of the %d records is in force and about a package", errNothing, i.records)
	}
	return nil
}

func (i *importer) path(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	i.builder.meta.Sources = append(i.builder.meta.Sources, Source{Path: path})
	i.source = &i.builder.meta.Sources[len(i.builder.meta.Sources)-1]
	switch {
	case info.IsDir():
		err = i.directory(ctx, path)
	case info.Mode().IsRegular():
		err = i.file(ctx, path, true)
	default:
		err = errors.New("it is neither a file nor a directory")
	}
	if err != nil {
		return fmt.Errorf("import %s: %w", path, err)
	}
	i.progress(Progress{Path: path, Records: i.source.Records, Total: i.source.Records})
	return nil
}

// directory reads the files below a directory. Links are not followed.
func (i *importer) directory(ctx context.Context, directory string) error {
	return filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		return i.file(ctx, path, false)
	})
}

// file reads an archive or a record. What is neither is an error if somebody asked for it by name.
func (i *importer) file(ctx context.Context, path string, named bool) error {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".zip":
		return i.archive(ctx, path)
	case ".json":
		return i.record(ctx, path, "", 0, func() (io.ReadCloser, error) { return os.Open(path) })
	}
	if named {
		return errors.New("it is no .zip, no .json and no directory")
	}
	i.source.Others++
	return nil
}

// archive reads a zip's entries. Their names are shown, and are no paths.
func (i *importer) archive(ctx context.Context, path string) error {
	archive, err := zip.OpenReader(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer archive.Close()
	for _, f := range archive.File {
		if f.FileInfo().IsDir() {
			continue
		}
		if !strings.HasSuffix(strings.ToLower(f.Name), ".json") {
			i.source.Others++
			continue
		}
		if err := i.record(ctx, path, f.Name, len(archive.File), f.Open); err != nil {
			return err
		}
	}
	return nil
}

// record reads one record. The error is one of the import's; faults of the record are listed.
func (i *importer) record(ctx context.Context, path, name string, total int, open func() (io.ReadCloser, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	i.records++
	i.source.Records++
	if i.records > maxRecords {
		return fmt.Errorf("more than %d records", maxRecords)
	}
	if i.source.Records%progressEvery == 0 {
		i.progress(Progress{Path: i.source.Path, Records: i.source.Records, Total: total})
	}
	raw, err := readRecord(open)
	if i.total += int64(len(raw)); i.total > maxTotal {
		return fmt.Errorf("more than %d GiB of records", maxTotal>>30)
	}
	var e *entry
	if err == nil {
		e, err = parseRecord(raw)
	}
	if err != nil {
		where := path
		if name != "" {
			where += ": " + shown(name)
		}
		i.faults.add("%s: %s", where, shown(err.Error()))
		return nil
	}
	if err := i.builder.add(e); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// readRecord reads a record's bytes, no more than one may have: what an archive says of an entry's size need not be true.
func readRecord(open func() (io.ReadCloser, error)) ([]byte, error) {
	in, err := open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	raw, err := io.ReadAll(io.LimitReader(in, maxRecord+1))
	if err == nil && len(raw) > maxRecord {
		err = fmt.Errorf("more than %d MiB, inflated", maxRecord>>20)
	}
	return raw, err
}
