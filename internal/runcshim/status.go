package runcshim

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/internal/runcshim/ask"
	"github.com/palisade-sec/palisade/internal/runcshim/engine"
)

// Status is what is known of one runtime.
type Status struct {
	Path    string   `json:"path"`
	Aliases []string `json:"aliases,omitempty"`
	Engines []string `json:"engines"`
	// Mode is replace or dropin, "" where the shim is not.
	Mode  string `json:"mode"`
	State State  `json:"state"`
	// Shim is the version of the shim that stands there, "" if none does.
	Shim string `json:"shim"`
	// RunC is the version of the real runC.
	RunC string `json:"runc"`
	// Advice says what to do, "" if nothing is to be done.
	Advice string `json:"advice,omitempty"`
}

// OtherRuntime is the state of a runtime that is not runC, which the shim does not stand for.
const OtherRuntime State = "not runC"

// Status looks at every runtime of the host. Runtimes are returned with an error, too, which tells what could not be read.
func (h Host) Status(ctx context.Context) ([]Status, error) {
	places, err := h.all(h.newSteps())
	var all []Status
	for _, p := range places {
		one := Status{Path: p.path, Aliases: p.Aliases, Engines: p.Engines()}
		var lookErr error
		one.State, lookErr = p.state()
		err = errors.Join(err, lookErr)
		one.Advice = advice(one.State, p.path)
		real := p.file
		if stands, _, _ := look(p.file); stands == shim {
			one.Shim, one.Mode = shimVersion(p.file), "replace"
			real = p.kept()
		}
		if answer, err := ask.Version(ctx, real); err == nil {
			one.RunC = ask.Short(answer)
		}
		all = append(all, one)
	}
	runtimes, _ := engine.Find(h.Root) // its error is all's already
	for _, r := range runtimes {
		if !r.RunC && !h.beside(r.Path) && filepath.Base(r.Path) != ShimName {
			all = append(all, Status{Path: r.Path, Aliases: r.Aliases, Engines: r.Engines(), State: OtherRuntime})
		}
	}
	states, dropErr := h.DropIns()
	for _, path := range slices.Sorted(maps.Keys(states)) {
		one := Status{Path: path, Mode: "dropin", State: states[path], Advice: dropAdvice(states[path])}
		one.Engines = []string{strings.TrimSuffix(filepath.Base(filepath.Dir(path)), "-runc")}
		if one.State == Installed {
			one.Shim = shimVersion(filepath.Join(h.Root, path))
		}
		if answer, err := ask.Version(ctx, filepath.Join(h.Root, path)); err == nil {
			one.RunC = ask.Short(answer)
		}
		all = append(all, one)
	}
	if one := h.statusNRI(); one != nil {
		all = append(all, *one)
	}
	return all, errors.Join(err, dropErr)
}

func dropAdvice(state State) string {
	switch state {
	case Leaving:
		return "palisade shim uninstall removes it when no container or engine names it any more"
	case Broken:
		return "install runC's package again, then palisade shim install --mode dropin"
	default:
		return ""
	}
}

func advice(state State, path string) string {
	switch state {
	case Replaced:
		return "palisade shim install puts the shim back, and keeps the new runC"
	case Interrupted:
		return "palisade shim install completes it, palisade shim uninstall undoes it"
	case Removed:
		return "install runC's package again, or palisade shim uninstall --path " + path + " puts the kept runC back"
	case Broken:
		return "install runC's package again, then palisade shim install"
	default:
		return ""
	}
}

// shimVersion is what the Go toolchain wrote into a shim, and the beginning of its hash.
func shimVersion(path string) string {
	hash, err := Hash(path)
	if err != nil {
		return "unreadable"
	}
	version := "(devel)"
	if info, err := buildinfo.ReadFile(path); err == nil && info.Main.Version != "" {
		version = info.Main.Version
	}
	return version + " " + hash[:12]
}

// Verify runs every runC through its shim and compares hashes with the record, and returns what is wrong: each says what to
// do. checked is how many places it looked at.
func (h Host) Verify(ctx context.Context) (checked int, problems []string, err error) {
	places, err := h.all(h.newSteps())
	if err != nil {
		problems = append(problems, fmt.Sprintf("%v: not every runC may be known", err))
	}
	r := h.readRecord()
	for _, p := range places {
		entry, recorded := r.entry(p.path)
		state, err := p.state()
		if err != nil {
			return checked, problems, err
		}
		if state == NotInstalled {
			if recorded {
				problems = append(problems, fmt.Sprintf("%s: the shim was installed, and is gone: palisade shim install puts it back", p.path))
			}
			continue
		}
		checked++
		if state != Installed {
			problems = append(problems, fmt.Sprintf("%s: %s: %s", p.path, state, advice(state, p.path)))
			continue
		}
		problems = append(problems, h.compare(p.place, entry, recorded)...)
		problems = append(problems, h.lacks(p.path, p.directory())...)
		problems = append(problems, runs(ctx, p.path, p.file, p.kept())...)
	}
	states, err := h.DropIns()
	for _, path := range slices.Sorted(maps.Keys(states)) {
		checked++
		if states[path] != Installed {
			problems = append(problems, fmt.Sprintf("%s: %s: %s", path, states[path], dropAdvice(states[path])))
			continue
		}
		file := filepath.Join(h.Root, path)
		problems = append(problems, h.lacks(path, file+KeptSuffix)...)
		problems = append(problems, runs(ctx, path, file, filepath.Join(file+KeptSuffix, "runc"))...)
	}
	if h.statusNRI() != nil {
		checked++
		problems = append(problems, h.verifyNRI()...)
	}
	return checked, problems, err
}

// lacks says what a shim needs that is not beside it.
func (h Host) lacks(path, directory string) []string {
	if problem := h.Beside.Lacks(directory); problem != "" {
		return []string{path + ": " + problem}
	}
	return nil
}

// compare looks at the hashes of a place.
func (h Host) compare(p place, entry Entry, recorded bool) (problems []string) {
	if !recorded {
		return []string{p.path + ": there is no record of it: palisade shim install writes one"}
	}
	for _, file := range []struct{ name, path, want, advice string }{
		{"the shim", p.file, entry.ShimHash, "palisade shim install puts the right one there"},
		{"the runC beside it", p.kept(), entry.RuncHash, "if its package did that, palisade shim install records it; if nobody knows who did, install the package again"},
	} {
		got, err := Hash(file.path)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", p.path, err))
		} else if got != file.want {
			problems = append(problems, fmt.Sprintf("%s: %s is another file than was installed (%.12s, want %.12s): %s", p.path, file.name, got, file.want, file.advice))
		}
	}
	return problems
}

// runs calls runC through the shim and without it.
func runs(ctx context.Context, path, file, kept string) []string {
	through, err := ask.Version(ctx, file)
	if err != nil {
		return []string{fmt.Sprintf("%s: runC does not run through the shim: %v: palisade shim uninstall takes it out", path, err)}
	}
	without, err := ask.Version(ctx, kept)
	if err != nil || through != without {
		return []string{fmt.Sprintf("%s: the shim runs another runC (%q) than the one beside it (%q): install runC's package again",
			path, ask.Short(through), ask.Short(without))}
	}
	return nil
}
