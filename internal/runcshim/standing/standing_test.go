package standing

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "made")
	now := time.Now()
	want := State{Time: now.UTC().Round(0), Places: []Place{
		{Path: "/usr/sbin/runc", Engines: []string{"docker"}, Covered: true}, {Path: "/usr/bin/crun", Engines: []string{"podman"}},
	}}
	if err := Write(directory, want); err != nil {
		t.Fatal(err)
	}
	got, err := Read(directory, now)
	if err != nil || !cmp.Equal(want, got) || !got.InForce() {
		t.Errorf("Read() = %+v, %v, want %+v in force", got, err, want)
	}
	if _, err := Read(directory, now.Add(Fresh+time.Second)); !errors.Is(err, ErrStale) {
		t.Errorf("Read() of an old file = %v, want %v", err, ErrStale)
	}
	if _, err := Read(t.TempDir(), now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read() without a file = %v, want %v", err, fs.ErrNotExist)
	}
	if (State{Places: want.Places[1:]}).InForce() {
		t.Error("InForce() = true where no place is covered")
	}
}

// A file that others can write would let them say that no container has to pass the shim, or that all had to.
func TestOnlyRootsFileCounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("root is needed to give files away")
	}
	for name, spoil := range map[string]func(path string) error{
		"writable":  func(path string) error { return os.Chmod(path, 0o666) },
		"another's": func(path string) error { return os.Chown(path, 1, 1) },
		"a link": func(path string) error {
			return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
		},
		"cut off": func(path string) error { return os.Truncate(path, 10) },
	} {
		directory := t.TempDir()
		if err := errors.Join(Write(directory, State{Time: time.Now()}), spoil(filepath.Join(directory, Name))); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(directory, time.Now()); err == nil {
			t.Errorf("%s: Read() = %+v, want an error", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	now := time.Unix(1_800_000_000, 0).UTC()
	whole, err := json.Marshal(State{Time: now, Places: []Place{{Path: "/usr/sbin/runc", Engines: []string{"docker"}, Covered: true}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"time":"9999-12-31T23:59:59Z","places":[null]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		state, err := parse("f", raw, now)
		if err == nil && (state.Time.Before(now.Add(-Fresh)) || state.Time.After(now.Add(Fresh))) {
			t.Errorf("parse(%q) takes the time %v for now", raw, state.Time)
		}
	})
}
