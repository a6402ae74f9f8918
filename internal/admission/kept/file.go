package kept

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// readRoots reads a file that only root can have written. The error is ErrNone if there is none.
func readRoots(path string, most int64) ([]byte, error) {
	// Without O_NONBLOCK the open of a pipe would wait.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: it is no regular file", path)
	case !roots(info):
		return nil, fmt.Errorf("%s: others than root can write it: chown root, chmod go-w", path)
	case info.Size() > most:
		return nil, fmt.Errorf("%s: %d bytes, at most %d", path, info.Size(), most)
	}
	return io.ReadAll(io.LimitReader(file, most))
}

// ownedByRoot says that others can put nothing into a directory. The error is ErrNone if there is none.
func ownedByRoot(directory string) error {
	info, err := os.Stat(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", directory, ErrNone)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() || !roots(info) {
		return fmt.Errorf("%s: it is no directory that only root can write: chown root, chmod go-w", directory)
	}
	return nil
}

func roots(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0 && info.Mode()&0o022 == 0
}

// sealBytes come before what is sealed: the SHA-256 of it.
const sealBytes = sha256.Size

// errTorn says that a file is not what was written.
var errTorn = errors.New("it is cut off or was changed")

func seal(content []byte) []byte {
	sum := sha256.Sum256(content)
	return append(sum[:], content...)
}

func unseal(raw []byte) ([]byte, error) {
	if len(raw) < sealBytes {
		return nil, errTorn
	}
	if sum := sha256.Sum256(raw[sealBytes:]); !bytes.Equal(sum[:], raw[:sealBytes]) {
		return nil, errTorn
	}
	return raw[sealBytes:], nil
}
