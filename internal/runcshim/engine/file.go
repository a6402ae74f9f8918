package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pelletier/go-toml/v2"
)

// MaxConfig is the largest configuration that is read, in bytes.
const MaxConfig = 1 << 20

// ReadConfig reads an engine's configuration file below root. The error wraps fs.ErrNotExist if there is none; what is
// no regular file, or too large, is refused.
func ReadConfig(root, path string) ([]byte, error) {
	real, err := Resolve(root, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	file, err := os.OpenFile(filepath.Join(root, real), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s:1: is no regular file (%v)", path, info.Mode().Type())
	}
	raw, err := io.ReadAll(io.LimitReader(file, MaxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(raw) > MaxConfig {
		return nil, fmt.Errorf("%s:1: is larger than %d bytes", path, MaxConfig)
	}
	return raw, nil
}

// line is the line of an offset, from 1.
func line(raw []byte, offset int) int {
	return 1 + bytes.Count(raw[:min(max(offset, 0), len(raw))], []byte("\n"))
}

// lineOf is the line on which a word first stands, for people to look at; 1 if it does not.
func lineOf(raw []byte, word string) int {
	return line(raw, bytes.Index(raw, []byte(word)))
}

// decodeJSON reads one JSON object. Errors name file and line.
func decodeJSON(path string, raw []byte, into any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil // as dockerd takes an empty file
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	err := decoder.Decode(into)
	if err == nil {
		if _, err = decoder.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("there is more after the object")
	}
	offset := decoder.InputOffset()
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	}
	return fmt.Errorf("%s:%d: %w", path, line(raw, int(offset)), err)
}

// decodeTOML reads a TOML document. Errors name file and line.
func decodeTOML(path string, raw []byte, into any) error {
	err := toml.Unmarshal(raw, into)
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := decode.Position()
		return fmt.Errorf("%s:%d: %w", path, max(row, 1), err)
	}
	if err != nil {
		return fmt.Errorf("%s:1: %w", path, err)
	}
	return nil
}

// config reads and decodes one of the host's files; it says whether there is one that can be gone by.
func (f *finder) config(path string, decode func(path string, raw []byte) error) bool {
	raw, err := ReadConfig(f.root, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		err = decode(path, raw)
	}
	f.fail(err)
	return err == nil
}
