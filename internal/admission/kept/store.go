// Package kept is what the enforcer keeps on disk so that another can decide about a container when it does not answer: the policy
// that is in force, and what is known of images.
//
// In: a directory that is root's alone. Out: a policy whose signature holds, images by the layers they consist of. A file that is cut off, changed
// or another's is an error, and never half a policy.
package kept

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	"github.com/palisade-sec/palisade/internal/admission"
	"github.com/palisade-sec/palisade/internal/statedir"
)

const (
	// DefaultDirectory is where a node keeps it.
	DefaultDirectory = "/var/lib/palisade/enforcer/admission"

	imagesName = "images"
	bundleName = "policy"
	// maxImages are kept; then those go that were written longest ago.
	maxImages = 2000
	// spare is how many go at once, so that not every new one looks through them all.
	spare = 100
	// maxImageBytes bounds one.
	maxImageBytes = 8 << 20
)

// ErrNone says that nothing is kept.
var ErrNone = errors.New("nothing is kept")

// ErrRollback says that a policy is older than the one in force.
var ErrRollback = errors.New("it is older than the policy in force")

// Key is an image's name here: of its layers' directories on the host, the topmost first. Who stands in for the enforcer knows nothing else of an
// image, and as long as the directories are there they are of that image.
func Key(layers []string) string {
	sum := sha256.Sum256([]byte(strings.Join(layers, "\x00")))
	return hex.EncodeToString(sum[:])
}

// Store is a directory. Many may read it while one writes.
type Store struct{ directory string }

// Open makes the directory if it is not there, and refuses one that others can write.
func Open(directory string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(directory, imagesName), 0o700); err != nil {
		return nil, err
	}
	return &Store{directory: directory}, errors.Join(ownedByRoot(directory), ownedByRoot(filepath.Join(directory, imagesName)))
}

// Look is Open for who only reads: nothing is made.
func Look(directory string) (*Store, error) {
	if err := ownedByRoot(directory); err != nil {
		return nil, err
	}
	return &Store{directory: directory}, nil
}

// PutImage keeps what is known of an image.
func (s *Store) PutImage(key string, image *enforcerv1.KnownImage) error {
	raw, err := proto.Marshal(image)
	if err != nil {
		return err
	}
	if len(raw) > maxImageBytes {
		return fmt.Errorf("keep what is known of %s: %d bytes, at most %d", image.GetImage(), len(raw), maxImageBytes)
	}
	directory := filepath.Join(s.directory, imagesName)
	if err := thin(directory); err != nil {
		return err
	}
	return statedir.WriteFile(filepath.Join(directory, name(key)), seal(raw), 0o600)
}

// Image is what is known of an image. The error is ErrNone, or names the file.
func (s *Store) Image(key string) (*enforcerv1.KnownImage, error) {
	path := filepath.Join(s.directory, imagesName, name(key))
	raw, err := readRoots(path, maxImageBytes+sealBytes)
	if err != nil {
		return nil, err
	}
	image := &enforcerv1.KnownImage{}
	if raw, err = unseal(raw); err == nil {
		err = proto.Unmarshal(raw, image)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return image, nil
}

// name is a file's, whatever somebody calls a key.
func name(key string) string { return filepath.Base(filepath.Clean("/" + key)) }

// thin makes room for one more file.
func thin(directory string) error {
	entries, err := os.ReadDir(directory)
	if err != nil || len(entries) < maxImages {
		return err
	}
	age := func(entry os.DirEntry) int64 {
		info, err := entry.Info()
		if err != nil {
			return 0 // it is gone already
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int {
		if age(a) < age(b) {
			return -1
		}
		return 1
	})
	for _, entry := range entries[:len(entries)-maxImages+spare] {
		if err := os.Remove(filepath.Join(directory, entry.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// PutPolicy puts a policy in force. The error is ErrRollback if its serial is smaller than that of the one in force, and ErrUnsigned if that
// one was signed and this is not.
func (s *Store) PutPolicy(b *Bundle) error {
	before, err := s.bundle()
	if err == nil && before.Policy.Serial > b.Policy.Serial {
		return fmt.Errorf("%w: serial %d, and %d is in force", ErrRollback, b.Policy.Serial, before.Policy.Serial)
	}
	if err == nil && len(before.Key) > 0 && len(b.Key) == 0 {
		return fmt.Errorf("%w, as the policy in force is", ErrUnsigned)
	}
	raw, err := b.marshal()
	if err != nil {
		return err
	}
	return statedir.WriteFile(filepath.Join(s.directory, bundleName), seal(raw), 0o600)
}

// RemovePolicy takes the policy out of force.
func (s *Store) RemovePolicy() error {
	if err := os.Remove(filepath.Join(s.directory, bundleName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Policy is the one in force. The error is ErrNone, ErrUnsigned, ErrSignature, or names the file.
func (s *Store) Policy() (*admission.Policy, error) {
	b, err := s.bundle()
	if err != nil {
		return nil, err
	}
	return b.Policy, nil
}

func (s *Store) bundle() (*Bundle, error) {
	path := filepath.Join(s.directory, bundleName)
	raw, err := readRoots(path, maxBundleBytes)
	if err != nil {
		return nil, err
	}
	return parseBundle(path, raw)
}
