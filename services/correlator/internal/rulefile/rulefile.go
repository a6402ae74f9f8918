// Package rulefile finds and reads rule files. Data in: paths of files and directories; data out: their content, for package rule,
// and a mark that changes when they do. It only reads.
package rulefile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// maxBytes bounds one rule file; Falco's own has under 100 KiB.
const maxBytes = 8 << 20

// Read is the files at the paths, in that order; of a directory its *.yaml files, sorted.
func Read(paths []string) ([]rule.Source, error) {
	var sources []rule.Source
	for _, path := range paths {
		files, err := list(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			raw, err := read(file)
			if err != nil {
				return nil, err
			}
			sources = append(sources, rule.Source{Name: file, Data: raw})
		}
	}
	return sources, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err == nil && len(raw) > maxBytes {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxBytes)
	}
	return raw, err
}

// list is the file at a path, or the *.yaml files in it, sorted.
func list(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if entry.Type()&fs.ModeDir == 0 && filepath.Ext(entry.Name()) == ".yaml" {
			files = append(files, filepath.Join(path, entry.Name()))
		}
	}
	if len(files) == 0 { // most likely another directory was meant
		return nil, fmt.Errorf("%s: no *.yaml file in it", path)
	}
	return files, nil
}

// Mark is a text that stays the same for as long as nothing suggests that the files have changed: names, sizes, times and inodes.
// What cannot be looked at is in it as its error.
func Mark(paths []string) string {
	var b strings.Builder
	for _, path := range paths {
		files, err := list(path)
		if err != nil {
			fmt.Fprintf(&b, "%s\n", err)
			continue
		}
		for _, file := range files {
			info, err := os.Stat(file)
			if err != nil {
				fmt.Fprintf(&b, "%s\n", err)
				continue
			}
			fmt.Fprintf(&b, "%s %d %d %s\n", file, info.Size(), info.ModTime().UnixNano(), identity(info))
		}
	}
	return b.String()
}
