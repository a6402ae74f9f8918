package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemovePinsTakesNamesOnly(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../palisade", "/", "a/b", "a/"} {
		if removed, err := RemovePins(name); err == nil || !strings.Contains(err.Error(), "--pins") || removed != nil {
			t.Errorf("RemovePins(%q) = %v, %v, want a refusal", name, removed, err)
		}
	}
}

func TestPinsAreHandedOverInABPFFileSystemOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a BPF file system")
	}
	top := t.TempDir()
	if err := HandOverPins(top); err == nil || !strings.Contains(err.Error(), "not in a BPF file system") {
		t.Errorf("HandOverPins of a directory of another file system = %v, want a refusal", err)
	}
	if at := statOf(t, top); at.Uid != 0 {
		t.Errorf("it belongs to uid %d now", at.Uid)
	}
	if err := unix.Mount("bpf", top, "bpf", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(top, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	directory, link := filepath.Join(top, "compose"), filepath.Join(top, "link")
	if err := os.Mkdir(directory, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("compose", link); err != nil {
		t.Fatal(err)
	}
	if err := HandOverPins(link); err == nil {
		t.Error("a symbolic link was followed")
	}
	for range 2 { // the second time it is the collector's already
		if err := HandOverPins(directory); err != nil {
			t.Fatal(err)
		}
		if at := statOf(t, directory); at.Uid != 10001 || at.Gid != 10001 || at.Mode&0o777 != 0o700 {
			t.Errorf("the directory has uid %d, gid %d, mode %o, want 10001, 10001, 700", at.Uid, at.Gid, at.Mode&0o777)
		}
	}
}

func statOf(t *testing.T, path string) (at unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &at); err != nil {
		t.Fatal(err)
	}
	return at
}
