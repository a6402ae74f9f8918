package runcshim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/runcshim/standing"
)

// watch runs a watcher until the test ends, and returns what it tells.
func watch(t *testing.T, h Host) <-chan Event {
	t.Helper()
	events := make(chan Event, 64)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Watcher{Host: h, Report: func(e Event) { events <- e }, Settle: 30 * time.Millisecond, Every: 300 * time.Millisecond}.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want context.Canceled", err)
		}
	})
	return events
}

// await returns the next event, and fails if it is of another kind.
func await(t *testing.T, events <-chan Event, kind EventKind) Event {
	t.Helper()
	select {
	case event := <-events:
		if event.Kind != kind {
			t.Fatalf("event = %+v, want %q", event, kind)
		}
		return event
	case <-time.After(20 * time.Second):
		t.Fatalf("no event, want %q", kind)
	}
	return Event{}
}

// dpkg is a package database of its own, and a root that it installs to.
type dpkg struct{ root string }

func newDpkg(t *testing.T, root string) dpkg {
	t.Helper()
	requireRoot(t)
	for _, tool := range []string{"dpkg", "dpkg-deb", "dpkg-divert"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s on this machine", tool)
		}
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), "", 0o644)
	for _, directory := range []string{"updates", "info", "triggers"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", directory), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dpkg{root: root}
}

// run calls dpkg on that database alone.
func (d dpkg) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	admin := filepath.Join(d.root, "var/lib/dpkg")
	words := append([]string{"--admindir=" + admin, "--instdir=" + d.root, "--log=" + filepath.Join(d.root, "dpkg.log"), "--force-not-root", "--force-bad-path"}, args...)
	out, err := exec.Command("dpkg", words...).CombinedOutput()
	return string(out), err
}

// install builds a package with a runC of that version and installs it.
func (d dpkg) install(t *testing.T, version string) {
	t.Helper()
	if out, err := d.run(t, "--install", d.build(t, version, "")); err != nil {
		t.Fatalf("dpkg --install: %v: %s", err, out)
	}
}

// build makes a package whose preinst is a shell script, "" for none.
func (d dpkg) build(t *testing.T, version, postinst string) string {
	t.Helper()
	directory := t.TempDir()
	write(t, filepath.Join(directory, "p/usr/sbin/runc"), fakeRunC(version), 0o755)
	write(t, filepath.Join(directory, "p/DEBIAN/control"), fmt.Sprintf(
		"Package: palisade-test-runc\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test's\n", version), 0o644)
	if postinst != "" {
		write(t, filepath.Join(directory, "p/DEBIAN/postinst"), "#!/bin/sh\n"+postinst, 0o755)
	}
	archive := filepath.Join(directory, "p.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", filepath.Join(directory, "p"), archive).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	return archive
}

func TestHealsAfterUpgradesByDpkg(t *testing.T) {
	h := testHost(t)
	d := newDpkg(t, h.Root)
	d.install(t, "1.1")
	mustInstall(t, h)
	events := watch(t, h)
	for _, want := range []string{"1.2", "1.3", "1.4"} {
		d.install(t, want)
		if event := await(t, events, Healed); event.Path != "/usr/sbin/runc" {
			t.Errorf("healed %q", event.Path)
		}
		if got := state(t, h, "/usr/sbin/runc"); got != Installed {
			t.Errorf("state = %q, want %q", got, Installed)
		}
		if got := version(t, h, "/usr/sbin/runc"); got != "runc version "+want {
			t.Errorf("runC says %q, want %s", got, want)
		}
	}
	checked, problems, err := h.Verify(t.Context())
	if err != nil || checked != 1 || len(problems) != 0 {
		t.Errorf("Verify = %d, %q, %v, want 1 place without problems", checked, problems, err)
	}
	mustUninstall(t, h)
	if got := version(t, h, "/usr/sbin/runc"); got != "runc version 1.4" {
		t.Errorf("after uninstall runC says %q, want the newest", got)
	}
	if out, err := d.run(t, "--verify", "palisade-test-runc"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("dpkg --verify: %v: %s", err, out)
	}
}

// TestDoesNotFightDpkg has dpkg's unfinished files beside runC: as long as they are there, nothing is touched.
func TestDoesNotFightDpkg(t *testing.T) {
	h := testHost(t)
	mustInstall(t, h)
	path := filepath.Join(h.Root, "usr/sbin/runc")
	write(t, path+".dpkg-tmp", "the old one", 0o755)
	write(t, path+".dpkg-new", fakeRunC("2.0"), 0o755)
	if err := os.Rename(path+".dpkg-new", path); err != nil {
		t.Fatal(err)
	}
	w := &watching{Watcher: Watcher{Host: h}, seen: map[string]os.FileInfo{}, told: map[string]string{}}
	for range 5 {
		if !w.look(t.Context()) {
			t.Fatal("it does not look again while dpkg is at work")
		}
		if got := state(t, h, "/usr/sbin/runc"); got != Replaced {
			t.Fatalf("state = %q, want %q: it was touched while dpkg was at work", got, Replaced)
		}
	}
	if err := os.Remove(path + ".dpkg-tmp"); err != nil {
		t.Fatal(err)
	}
	if w.look(t.Context()) || state(t, h, "/usr/sbin/runc") != Installed {
		t.Errorf("state = %q, want %q when dpkg has ended", state(t, h, "/usr/sbin/runc"), Installed)
	}
}

// TestDoesNotTouchAFileThatChanges has a runC that is not still.
func TestDoesNotTouchAFileThatChanges(t *testing.T) {
	h := testHost(t)
	mustInstall(t, h)
	w := &watching{Watcher: Watcher{Host: h}, seen: map[string]os.FileInfo{}, told: map[string]string{}}
	path := filepath.Join(h.Root, "usr/sbin/runc")
	for n := range 5 {
		write(t, path+".new", fakeRunC(fmt.Sprint(n, strings.Repeat(" ", n))), 0o755)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		if !w.look(t.Context()) || state(t, h, "/usr/sbin/runc") != Replaced {
			t.Fatalf("look %d: touched", n)
		}
	}
}

func TestDoesNotFightAnUninstall(t *testing.T) {
	h := testHost(t)
	mustInstall(t, h)
	events := watch(t, h)
	for range 5 {
		for { // the watcher may have the lock for a moment
			err := h.Uninstall(t.Context(), Selection{})
			if err == nil {
				break
			}
			if !errors.Is(err, ErrBusy) {
				t.Fatal(err)
			}
		}
		if got := state(t, h, "/usr/sbin/runc"); got != NotInstalled {
			t.Fatalf("state = %q, want %q", got, NotInstalled)
		}
	}
	// An uninstall that died after the exchange is nobody's upgrade.
	mustInstall(t, h)
	if err := crash(h, 4).Uninstall(t.Context(), Selection{}); !errors.Is(err, errCrash) {
		t.Fatalf("Uninstall = %v, want a crash", err)
	}
	if got := state(t, h, "/usr/sbin/runc"); got != Interrupted {
		t.Fatalf("state = %q, want %q", got, Interrupted)
	}
	w := &watching{Watcher: Watcher{Host: h}, seen: map[string]os.FileInfo{}, told: map[string]string{}}
	w.look(t.Context())
	w.look(t.Context())
	if got := state(t, h, "/usr/sbin/runc"); got != Interrupted {
		t.Errorf("state = %q: the watcher installed what was being uninstalled", got)
	}
	select {
	case event := <-events:
		if event.Kind == Healed || event.Kind == NotHealed {
			t.Errorf("event %+v", event)
		}
	default:
	}
}

func TestTellsOfARemovedPackageOnce(t *testing.T) {
	h := testHost(t)
	d := newDpkg(t, h.Root)
	d.install(t, "1.1")
	mustInstall(t, h)
	events := watch(t, h)
	if out, err := d.run(t, "--remove", "palisade-test-runc"); err != nil {
		t.Fatalf("dpkg --remove: %v: %s", err, out)
	}
	if event := await(t, events, Lost); !strings.Contains(event.Detail, "uninstall --path /usr/sbin/runc") {
		t.Errorf("event %+v says no way out", event)
	}
	d.install(t, "1.2")
	await(t, events, Healed)
	if got := version(t, h, "/usr/sbin/runc"); got != "runc version 1.2" {
		t.Errorf("runC says %q, want 1.2", got)
	}
}

func TestTellsOfARunCWithoutShim(t *testing.T) {
	h := testHost(t)
	mustInstall(t, h)
	events := watch(t, h)
	write(t, filepath.Join(h.Root, "var/lib/rancher/k3s/data/0123abcd/bin/runc"), fakeRunC("1.3"), 0o755)
	if event := await(t, events, Uncovered); event.Path != "/var/lib/rancher/k3s/data/0123abcd/bin/runc" {
		t.Errorf("event = %+v", event)
	}
}

// What the watcher writes down is what others go by.
func TestWritesDownWhereTheShimStands(t *testing.T) {
	h := testHost(t)
	write(t, filepath.Join(h.Root, "var/lib/rancher/k3s/data/0123abcd/bin/runc"), fakeRunC("1.3"), 0o755)
	mustInstall(t, h)
	directory := t.TempDir()
	w := &watching{Watcher: Watcher{Host: h, Standing: directory}, seen: map[string]os.FileInfo{}, told: map[string]string{}}
	covered := func() map[string]bool {
		t.Helper()
		w.look(t.Context())
		state, err := standing.Read(directory, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		places := map[string]bool{}
		for _, place := range state.Places {
			places[place.Path] = place.Covered
		}
		return places
	}
	if got := covered(); !got["/var/lib/rancher/k3s/data/0123abcd/bin/runc"] {
		t.Errorf("places = %v, want k3s's runc covered", got)
	}
	if err := h.Uninstall(t.Context(), Selection{}); err != nil {
		t.Fatal(err)
	}
	if got, ok := covered()["/var/lib/rancher/k3s/data/0123abcd/bin/runc"]; got || !ok {
		t.Errorf("covered = %v, known = %v after the uninstall, want it known and not covered", got, ok)
	}
}

// TestDiversionOutlivesUs is why dpkg-divert is not what keeps the shim in place (ADR 24): with the directory deleted, as who
// wants to be rid of us would do it, dpkg can no longer install runC.
func TestDiversionOutlivesUs(t *testing.T) {
	h := testHost(t)
	d := newDpkg(t, h.Root)
	d.install(t, "1.1")
	mustInstall(t, h)
	out, err := exec.Command("dpkg-divert", "--admindir", filepath.Join(d.root, "var/lib/dpkg"), "--instdir", d.root, "--local", "--no-rename",
		"--divert", "/usr/sbin/runc.palisade/runc", "--add", "/usr/sbin/runc").CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg-divert: %v: %s", err, out)
	}
	d.install(t, "1.2")
	if got := version(t, h, "/usr/sbin/runc"); got != "runc version 1.2" || state(t, h, "/usr/sbin/runc") != Installed {
		t.Errorf("with a diversion runC says %q, state %q", got, state(t, h, "/usr/sbin/runc"))
	}
	if err := os.RemoveAll(filepath.Join(h.Root, "usr/sbin/runc.palisade")); err != nil {
		t.Fatal(err)
	}
	text, err := d.run(t, "--install", d.build(t, "1.3", ""))
	t.Logf("dpkg: %v: %s", err, text)
	if err == nil {
		t.Error("dpkg installs to a directory that is gone: ADR 24 says that it cannot")
	}
}
