// Package cache keeps reports on disk, one file an image, so that a scan is made once. How many files there are and how large they are
// together is bounded: the ones written longest ago go first. A file that is damaged is as good as none.
package cache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protodelim"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/statedir"
)

// maxMessage bounds one message in a file, in bytes.
const maxMessage = 32 << 20

// ErrNone says that nothing is kept of an image.
var ErrNone = errors.New("the image has not been scanned")

// digestForm is what the name of a file is made of; nothing else becomes part of a path.
var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ValidDigest says whether a report can be kept under the digest.
func ValidDigest(digest string) bool { return digestForm.MatchString(digest) }

// Limits of the directory.
type Limits struct {
	Reports int   `yaml:"reports"`
	MiB     int64 `yaml:"mib"`
}

// Entry is what is kept of an image.
type Entry struct {
	// Scanned is what the scan found: packages, and faults of the scan.
	Scanned *scannerv1.Report
	// Matched is what advisories said of it: everything but the packages.
	Matched *scannerv1.Report
}

// Report is the whole report.
func (e Entry) Report() *scannerv1.Report {
	m := e.Matched
	return &scannerv1.Report{
		Image: m.GetImage(), ImageDigest: m.GetImageDigest(), ScannedAt: m.GetScannedAt(), AdvisoriesAt: m.GetAdvisoriesAt(), Packages: e.Scanned.GetPackages(),
		Vulnerabilities: m.GetVulnerabilities(), Faults: m.GetFaults(),
	}
}

// Cache is the directory. It is safe for concurrent use.
type Cache struct {
	dir    string
	limits Limits
	mu     sync.Mutex
}

// Open makes the directory, and removes what an interrupted write left. Nobody else may write there.
func Open(dir string, limits Limits) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of reports: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list reports: %w", err)
	}
	for _, file := range files {
		if strings.HasPrefix(file.Name(), ".new-") {
			if err := os.Remove(filepath.Join(dir, file.Name())); err != nil {
				return nil, fmt.Errorf("remove an unfinished report: %w", err)
			}
		}
	}
	return &Cache{dir: dir, limits: limits}, nil
}

func (c *Cache) path(digest string) string {
	return filepath.Join(c.dir, strings.TrimPrefix(digest, "sha256:"))
}

// Put keeps an entry under its digest, in the place of an older one.
func (c *Cache) Put(e Entry) error {
	digest := e.Matched.GetImageDigest()
	if !ValidDigest(digest) {
		return fmt.Errorf("keep report: %q is no digest", digest)
	}
	header := &scannerv1.Report{
		Image: e.Matched.GetImage(), ImageDigest: digest, ScannedAt: e.Matched.GetScannedAt(), AdvisoriesAt: e.Matched.GetAdvisoriesAt(), Faults: e.Matched.GetFaults(),
	}
	var content bytes.Buffer
	for _, message := range []*scannerv1.Report{header, e.Scanned, e.Matched} {
		if _, err := protodelim.MarshalTo(&content, message); err != nil {
			return fmt.Errorf("keep report: %w", err)
		}
	}
	sum := sha256.Sum256(content.Bytes())
	content.Write(sum[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.makeRoom(filepath.Base(c.path(digest)), int64(content.Len())); err != nil {
		return err
	}
	if err := statedir.WriteFile(c.path(digest), content.Bytes(), 0o600); err != nil {
		return fmt.Errorf("keep report: %w", err)
	}
	return nil
}

// makeRoom removes the files written longest ago until one more of the size fits. One of the same name does not count.
func (c *Cache) makeRoom(name string, size int64) error {
	if size > c.limits.MiB<<20 {
		return fmt.Errorf("keep report: it has %d bytes, all of them together may have %d MiB", size, c.limits.MiB)
	}
	files, err := c.files()
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(f fs.FileInfo) bool { return f.Name() == name })
	total := size
	for _, f := range files {
		total += f.Size()
	}
	for count := len(files) + 1; len(files) > 0 && (count > c.limits.Reports || total > c.limits.MiB<<20); count-- {
		if err := os.Remove(filepath.Join(c.dir, files[0].Name())); err != nil {
			return fmt.Errorf("remove the oldest report: %w", err)
		}
		total -= files[0].Size()
		files = files[1:]
	}
	return nil
}

// files are those of the directory, the one written longest ago first.
func (c *Cache) files() ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("list reports: %w", err)
	}
	var files []fs.FileInfo
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
		}
	}
	slices.SortStableFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	return files, nil
}

// Get returns what is kept of an image. The error wraps ErrNone if that is nothing.
func (c *Cache) Get(digest string) (Entry, error) {
	if !ValidDigest(digest) {
		return Entry{}, ErrNone
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	content, err := os.ReadFile(c.path(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, ErrNone
	}
	if err != nil {
		return Entry{}, fmt.Errorf("read report: %w", err)
	}
	messages, err := parse(content)
	if err != nil || messages[0].GetImageDigest() != digest {
		return Entry{}, errors.Join(fmt.Errorf("%w: what was kept of it is damaged", ErrNone), err)
	}
	return Entry{Scanned: messages[1], Matched: messages[2]}, nil
}

// parse reads a whole file: header, scanned, matched.
func parse(content []byte) (messages [3]*scannerv1.Report, err error) {
	if len(content) < sha256.Size {
		return messages, errors.New("it is cut off")
	}
	body := content[:len(content)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], content[len(body):]) {
		return messages, errors.New("its checksum is wrong")
	}
	in := bytes.NewReader(body)
	for i := range messages {
		messages[i] = &scannerv1.Report{}
		if err := (protodelim.UnmarshalOptions{MaxSize: maxMessage}).UnmarshalFrom(in, messages[i]); err != nil {
			return messages, err
		}
	}
	return messages, nil
}

// List returns what is kept, without packages and vulnerabilities, by image and digest. Damaged files are left out.
func (c *Cache) List() ([]*scannerv1.Report, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, err := c.files()
	if err != nil {
		return nil, err
	}
	var reports []*scannerv1.Report
	for _, f := range files {
		header, err := readHeader(filepath.Join(c.dir, f.Name()))
		if err == nil && c.path(header.GetImageDigest()) == filepath.Join(c.dir, f.Name()) {
			reports = append(reports, header)
		}
	}
	slices.SortFunc(reports, func(a, b *scannerv1.Report) int {
		return strings.Compare(a.GetImage()+"\x00"+a.GetImageDigest(), b.GetImage()+"\x00"+b.GetImageDigest())
	})
	return reports, nil
}
