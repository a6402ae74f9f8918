package statedir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/statedir"
)

func TestOpenIsExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	dir, err := statedir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("Stat(%s) = %v, %v, want mode 0700", path, info.Mode(), err)
	}
	if _, err := statedir.Open(path); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("second Open error = %v, want ErrInUse", err)
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := statedir.Open(path)
	if err != nil {
		t.Fatalf("Open after Close error = %v, want nil", err)
	}
	again.Close()
}

func TestCheckMakesNothing(t *testing.T) {
	base := t.TempDir()
	if err := statedir.Check(filepath.Join(base, "x", "y")); err != nil {
		t.Errorf("Check of a directory that can be made = %v, want nil", err)
	}
	if entries, _ := os.ReadDir(base); len(entries) != 0 {
		t.Errorf("Check left %v", entries)
	}
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		err := statedir.Check(path)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Check(%s) = %v, want an error that names it", path, err)
		}
		if _, err := statedir.Open(path); err == nil {
			t.Errorf("Open(%s) = nil error, want one", path)
		}
	}
}
