package runcshim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/palisade-sec/palisade/internal/runcshim/engine"
	"github.com/palisade-sec/palisade/internal/runcshim/nri"
	"github.com/palisade-sec/palisade/internal/runcshim/standing"
)

// EventKind is what a watcher has to tell.
type EventKind string

// The kinds of events.
const (
	// Healed says that a package had put a new runC over the shim, and that the shim stands there again and runs the new one.
	Healed EventKind = "healed"
	// NotHealed says that it could not be put back; Detail says why. It is tried again.
	NotHealed EventKind = "not healed"
	// Lost says that a place is Removed or Broken: nothing can be done without a person.
	Lost EventKind = "lost"
	// Uncovered says that an engine calls a runC in whose place no shim stands, though shims are installed.
	Uncovered EventKind = "uncovered"
	// Slow says that the kernel tells of no changes, so that they are noticed at the next slow look only.
	Slow EventKind = "slow"
	// Connected says that a runtime gives every new container the hook, as an NRI plugin asked it to.
	Connected EventKind = "connected"
	// Unwritten says that others cannot be told where the shim stands.
	Unwritten EventKind = "not written down"
)

// Event is what a watcher tells, once for each change.
type Event struct {
	Kind   EventKind `json:"event"`
	Path   string    `json:"path,omitempty"`
	Detail string    `json:"detail,omitempty"`
	Time   time.Time `json:"time"`
}

const (
	defaultSettle = 2 * time.Second
	defaultEvery  = time.Minute
	// unwatched is the time between looks while there is no place whose directory could be watched: an install is to be noticed.
	unwatched = 5 * time.Second
	// abandoned is the age of a package manager's unfinished files from which they hold nothing up any more.
	abandoned = 10 * time.Minute
)

// Watcher puts the shim back where a package upgrade replaced it.
type Watcher struct {
	Host Host
	// Report is told every event, by the goroutine of Run.
	Report func(Event)
	// Settle is how long a new file must have stayed as it is before it is touched; 0 is 2 s.
	Settle time.Duration
	// Every is the time between looks that no event asks for; 0 is a minute.
	Every time.Duration
	// Standing is the directory of the file that tells others where the shim stands (package standing), "" for none.
	Standing string
}

// watching is a run of a watcher.
type watching struct {
	Watcher
	notify *fsnotify.Watcher // nil if the kernel has none for us
	nri    nri.State
	idle   bool           // there is no place
	stood  standing.State // as it was last written down
	seen   map[string]fs.FileInfo
	told   map[string]string
}

// Run watches until ctx ends. It returns no other error.
func (w Watcher) Run(ctx context.Context) error {
	if w.Settle <= 0 {
		w.Settle = defaultSettle
	}
	if w.Every <= 0 {
		w.Every = defaultEvery
	}
	run := &watching{Watcher: w, seen: map[string]fs.FileInfo{}, told: map[string]string{}}
	var events chan fsnotify.Event
	var errs chan error
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		run.tell(Slow, "", fmt.Sprintf("%v: upgrades are noticed every %v only", err, w.Every))
	} else {
		defer notify.Close()
		run.notify, events, errs = notify, notify.Events, notify.Errors
	}
	changed := run.plug(ctx)
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event := <-events:
			if run.concerns(event.Name) {
				look.Reset(w.Settle)
			}
		case err := <-errs: // events were lost: look
			run.tell(Slow, "", fmt.Sprintf("%v: looking instead", err))
			look.Reset(w.Settle)
		case state := <-changed:
			run.plugged(state)
			look.Reset(0) // others are to know
		case <-look.C:
			next := w.Every
			if run.look(ctx) {
				next = w.Settle
			} else if run.idle {
				next = min(w.Every, unwatched)
			}
			look.Reset(next)
		}
	}
}

// plug runs the NRI plugin, which ends with ctx, and tells what becomes of it.
func (w *watching) plug(ctx context.Context) <-chan nri.State {
	changed := make(chan nri.State)
	plugin := w.Host.plugin(func(state nri.State) {
		select {
		case changed <- state:
		case <-ctx.Done():
		}
	})
	go func() { _ = plugin.Run(ctx) }() // it ends with ctx
	return changed
}

// plugged takes in how the NRI plugin stands.
func (w *watching) plugged(state nri.State) {
	w.nri = state
	path := filepath.Join(NRIDirectory, runtimeLink)
	switch {
	case state.Connected:
		w.tell(Connected, path, "every new container of the CRI is asked about")
	case state.Installed:
		w.tell(Uncovered, path, state.Err.Error())
	default:
		delete(w.told, path)
	}
}

// concerns says whether a changed name is of a place, or of what a package manager makes beside it.
func (w *watching) concerns(name string) bool {
	for path := range w.places() {
		if file := filepath.Join(w.Host.Root, path); strings.HasPrefix(name, file) && !strings.HasPrefix(name, file+KeptSuffix) {
			return true
		}
	}
	return false
}

// places are those with something of ours beside them.
func (w *watching) places() map[string]bool {
	places := map[string]bool{}
	for _, path := range w.Host.left() {
		places[path] = true
	}
	return places
}

// look looks at every place, and says whether it has to look again soon.
func (w *watching) look(ctx context.Context) (again bool) {
	places := w.places()
	for path := range places {
		if w.notify != nil {
			if err := w.notify.Add(filepath.Dir(filepath.Join(w.Host.Root, path))); err != nil {
				w.tell(Slow, path, fmt.Sprintf("%v: upgrades are noticed every %v only", err, w.Every))
			}
		}
		again = w.visit(ctx, path) || again
	}
	if len(places) > 0 {
		w.uncovered()
	}
	w.stand()
	w.idle = len(places) == 0
	return again
}

// stand writes down where the shim stands, now.
func (w *watching) stand() {
	if w.Standing == "" {
		return
	}
	runtimes, _ := engine.Find(w.Host.Root) // its error: see uncovered
	state := standing.State{Time: time.Now()}
	ours := w.places() // what no configuration names may be called by hand, or by PATH
	add := func(path string, engines []string) {
		kind, _, err := look(filepath.Join(w.Host.Root, path))
		state.Places = append(state.Places, standing.Place{Path: path, Engines: engines, Covered: err == nil && kind == shim})
		delete(ours, path)
	}
	for _, r := range runtimes {
		if len(r.Users) > 0 {
			add(r.Path, r.Engines())
		}
	}
	for _, path := range slices.Sorted(maps.Keys(ours)) {
		add(path, nil)
	}
	if w.nri.Installed {
		state.Places = append(state.Places, standing.Place{Path: filepath.Join(NRIDirectory, runtimeLink), Engines: []string{"cri"}, Covered: w.nri.Connected})
	}
	if reflect.DeepEqual(state.Places, w.stood.Places) && state.Time.Sub(w.stood.Time) < w.Every {
		return // it says so already
	}
	if err := standing.Write(w.Standing, state); err != nil {
		w.tell(Unwritten, "", err.Error())
		return
	}
	w.stood = state
}

// visit heals a place that needs it, once it has been still.
func (w *watching) visit(ctx context.Context, path string) (again bool) {
	p := w.Host.place(path, w.Host.newSteps())
	state, err := p.state()
	if err != nil {
		w.tell(NotHealed, path, err.Error())
		return false
	}
	switch state {
	case Installed:
		delete(w.told, path)
		delete(w.seen, path)
		return false
	case Removed, Broken:
		if !w.still(p) {
			return true // as it is in the middle of some upgrades
		}
		w.tell(Lost, path, string(state)+": "+advice(state, path))
		return false
	case Replaced:
	default:
		return false
	}
	if !w.still(p) {
		return true
	}
	err = w.heal(ctx, p)
	if err != nil && !errors.Is(err, ErrBusy) {
		w.tell(NotHealed, path, err.Error())
		return false
	}
	return err != nil
}

// heal puts the shim back, unless the place was given back on purpose meanwhile.
func (w *watching) heal(ctx context.Context, p place) error {
	healed := false
	err := w.Host.locked(func(r *record) error {
		if state, err := p.state(); err != nil || state != Replaced {
			return err
		}
		if err := changeable(p.file); err != nil {
			return err
		}
		if err := p.install(ctx, w.Host.Binary); err != nil {
			return err
		}
		healed = true
		return w.Host.note(r, p)
	})
	if healed && err == nil { // once the record says so, too
		delete(w.told, p.path)
		w.tell(Healed, p.path, "a new runC was put there; the shim stands in its place again and runs it")
	}
	return err
}

// still says whether a place is as it was at the last look, and no package manager is at it.
func (w *watching) still(p place) bool {
	_, info, err := look(p.file)
	before, looked := w.seen[p.path]
	w.seen[p.path] = info
	if err != nil || !looked || (info == nil) != (before == nil) || (info != nil && !unchanged(info, before)) {
		return false
	}
	unfinished, err := filepath.Glob(p.file + ";*") // rpm's
	if err != nil {
		unfinished = nil
	}
	for _, path := range append(unfinished, p.file+".dpkg-new", p.file+".dpkg-tmp") {
		if info, err := os.Lstat(path); err == nil && time.Since(changed(info)) < abandoned {
			return false
		}
	}
	return true
}

// changed is when a file got its name, or anything else of it: its own times are those of the package.
func changed(info fs.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix())
	}
	return info.ModTime()
}

// uncovered tells of runCs without a shim. What configurations do not tell is not known here: status and verify say that.
func (w *watching) uncovered() {
	places, _ := w.Host.all(w.Host.newSteps()) // its error: see above
	for _, p := range places {
		if state, err := p.state(); err == nil && state == NotInstalled && len(p.Users) > 0 {
			w.tell(Uncovered, p.path, "called by "+strings.Join(p.Engines(), ", ")+": palisade shim install covers it")
		}
	}
}

// tell reports what it has not reported before.
func (w *watching) tell(kind EventKind, path, detail string) {
	if said := string(kind) + detail; w.told[path] != said {
		w.told[path] = said
		if w.Report != nil {
			w.Report(Event{Kind: kind, Path: path, Detail: detail, Time: w.Host.time()})
		}
	}
}
