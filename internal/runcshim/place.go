package runcshim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/palisade-sec/palisade/internal/runcshim/beside"
)

// State is what can be seen of a place without any record.
type State string

// The states of a place.
const (
	NotInstalled State = "not installed"
	Installed    State = "installed"
	// Replaced is a place where a package, or somebody, put another program over the shim. The program that was kept is older.
	Replaced State = "replaced by a package"
	// Interrupted is a place where the program that stands there is the one that is kept: an install or uninstall did not end.
	Interrupted State = "interrupted"
	// Removed is a place where nothing stands any more, though a program is kept beside it.
	Removed State = "removed"
	// Broken is a shim that stands for nothing, or something that is no program.
	Broken State = "broken"
)

// goneWithin bounds the wait for shims that had just been started when their place was given back.
const goneWithin = 2 * time.Second

// place is where a runC stands, and the directory beside it:
//
//	runc                             the shim, or the program
//	runc.palisade/runc               the program, while the shim stands in its place
//	runc.palisade/.stage/runc        what is about to go to the place, and then what was there
//	runc.palisade/.stage/runc.palisade/runc -> ../../runc   by which a shim that is taken out while it starts finds the program
//
// What is on disk is all there is to know: every operation begins by settling what an interrupted one left.
type place struct {
	path  string // on the host
	file  string // the same, as this process reaches it
	steps *steps
	// exchange is the system call, or a test's.
	exchange func(a, b string) error
}

func (p place) directory() string { return p.file + KeptSuffix }
func (p place) kept() string      { return filepath.Join(p.directory(), filepath.Base(p.file)) }
func (p place) stage() string     { return filepath.Join(p.directory(), ".stage") }
func (p place) staged() string    { return filepath.Join(p.stage(), filepath.Base(p.file)) }
func (p place) partial() string   { return filepath.Join(p.stage(), ".partial") }

// state looks at the place.
func (p place) state() (State, error) {
	stands, standing, err := look(p.file)
	if err != nil {
		return Broken, err
	}
	kept, keeping, err := look(p.kept())
	if err != nil {
		return Broken, err
	}
	switch {
	case stands == shim && kept == program:
		return Installed, nil
	case stands == program && kept == program && os.SameFile(standing, keeping):
		return Interrupted, nil
	case stands == program && kept == program:
		return Replaced, nil
	case stands == program:
		return NotInstalled, nil
	case stands == missing && kept == program:
		return Removed, nil
	}
	return Broken, nil
}

// install puts the shim at the place, whatever an earlier run left there. At every moment what stands there works.
func (p place) install(ctx context.Context, binary string) error {
	if err := p.settle(); err != nil {
		return err
	}
	stands, info, err := look(p.file)
	if err != nil {
		return err
	}
	kept, _, err := look(p.kept())
	if err != nil {
		return err
	}
	switch {
	case stands == shim && kept == program:
		if same, err := sameContent(binary, p.file); err != nil || same {
			return err
		}
	case stands == shim:
		return fmt.Errorf("%s is the shim, and the runC that it stood for is gone from %s: install runC's package again, then repeat this", p.path, p.kept())
	case stands == missing:
		return fmt.Errorf("%s is gone: install runC's package again, or give it back with `palisade shim uninstall`", p.path)
	case stands == strange:
		return fmt.Errorf("%s is no program that the shim could stand for: a script that calls %s, or no regular file", p.path, ShimName)
	}
	if err := p.prepare(func() error { return copyFile(binary, p.partial(), info, p.file, false) }); err != nil {
		return err
	}
	if stands == program {
		if err := p.keep(info); err != nil {
			return err
		}
	}
	if err := p.swap("put the shim at "+p.path, info); err != nil {
		return err
	}
	if stands == shim {
		return p.drained(ctx, info)
	}
	return p.settle()
}

// prepare makes the stage, and on it the file that is to go to the place. It has its name only when it is whole.
func (p place) prepare(write func() error) error {
	name := filepath.Base(p.file)
	link := filepath.Join(p.staged()+KeptSuffix, name)
	err := p.steps.do("make "+p.path+KeptSuffix+" with a stage", func() error {
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil { //nolint:gosec // the engine's user must find the program
			return err
		}
		if err := os.Symlink(filepath.Join("..", "..", name), link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
	if err == nil {
		err = p.steps.do("write what goes to "+p.path+" on the stage", write)
	}
	if err == nil {
		err = p.steps.do("name it", func() error { return os.Rename(p.partial(), p.staged()) })
	}
	return err
}

// keep keeps the program that stands at the place, the file itself: a second name of it, or where the file system knows
// none, a copy.
func (p place) keep(info fs.FileInfo) error {
	linked := filepath.Join(p.stage(), ".keep")
	err := p.steps.do("link "+p.path+" to the stage", func() error {
		if err := os.Remove(linked); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err := os.Link(p.file, linked)
		for _, cannot := range []error{syscall.EPERM, syscall.EMLINK, syscall.EXDEV, errors.ErrUnsupported} {
			if errors.Is(err, cannot) {
				return copyFile(p.file, linked, info, p.file, true)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return p.steps.do("keep it at "+p.path+KeptSuffix+"/"+filepath.Base(p.file), func() error {
		return errors.Join(os.Rename(linked, p.kept()), syncDirectory(p.directory()))
	})
}

// swap puts what is on the stage at the place. What stood there is on the stage then, unless the file system cannot
// exchange files: then what stands there must still be what was looked at.
func (p place) swap(what string, seen fs.FileInfo) error {
	return p.steps.do(what, func() error {
		err := p.exchange(p.staged(), p.file)
		if errors.Is(err, errors.ErrUnsupported) {
			if now, err := os.Lstat(p.file); err != nil || !unchanged(now, seen) {
				return fmt.Errorf("%s was replaced by somebody else in this moment: repeat this", p.path)
			}
			err = os.Rename(p.staged(), p.file)
		}
		return errors.Join(err, syncDirectory(filepath.Dir(p.file)))
	})
}

// settle ends what an interrupted operation began: nothing on the stage is lost that could be the newest runC.
func (p place) settle() error {
	if _, err := os.Lstat(p.stage()); err != nil {
		return nil //nolint:nilerr // there is no stage, so there is nothing on it
	}
	on, staged, err := look(p.staged())
	if err != nil {
		return err
	}
	if on == program {
		if err := p.rescue(staged); err != nil {
			return err
		}
	}
	return p.steps.do("clear the stage of "+p.path, func() error { return os.RemoveAll(p.stage()) })
}

// rescue puts a program that is on the stage where it belongs.
func (p place) rescue(staged fs.FileInfo) error {
	stands, standing, err := look(p.file)
	if err != nil {
		return err
	}
	kept, keeping, err := look(p.kept())
	if err != nil {
		return err
	}
	sameAsKept := kept == program && os.SameFile(staged, keeping)
	switch {
	case sameAsKept && stands != missing, stands == program && os.SameFile(staged, standing):
		return nil // there it is
	case stands == shim:
		// A package replaced the program between the look at it and the exchange: this is the newer one.
		return p.steps.do("keep what a package put at "+p.path, func() error {
			return errors.Join(os.Rename(p.staged(), p.kept()), syncDirectory(p.directory()))
		})
	case stands == missing, stands == program && kept == program && os.SameFile(standing, keeping):
		// The same while the shim was taken out.
		return p.steps.do("put back what a package put at "+p.path, func() error {
			return errors.Join(os.Rename(p.staged(), p.file), syncDirectory(filepath.Dir(p.file)))
		})
	}
	return nil // what stands there came later
}

// uninstall gives the place back, with the very file that stood there, or the newer one that a package put there since.
func (p place) uninstall(ctx context.Context) error {
	if err := p.settle(); err != nil {
		return err
	}
	stands, info, err := look(p.file)
	if err != nil {
		return err
	}
	kept, keeping, err := look(p.kept())
	if err != nil {
		return err
	}
	switch {
	case stands == shim && kept == program:
		if err := p.giveBack(ctx, info, keeping); err != nil {
			return err
		}
	case stands == shim:
		return fmt.Errorf("%s is the shim, and the runC that it stood for is gone from %s: install runC's package again, then repeat this", p.path, p.kept())
	case stands == missing && kept == program:
		if err := p.steps.do("put "+p.path+" back", func() error {
			return errors.Join(os.Rename(p.kept(), p.file), syncDirectory(filepath.Dir(p.file)))
		}); err != nil {
			return err
		}
	}
	return p.clear()
}

// giveBack puts the kept program in the shim's place, and waits for shims that look for it beside them.
func (p place) giveBack(ctx context.Context, standing, keeping fs.FileInfo) error {
	err := p.prepare(func() error {
		if err := os.Link(p.kept(), p.partial()); err == nil {
			return nil
		}
		return copyFile(p.kept(), p.partial(), keeping, p.kept(), true)
	})
	if err == nil {
		err = p.swap("put runC back at "+p.path, standing)
	}
	if err != nil {
		return err
	}
	if on, _, err := look(p.staged()); err != nil || on == program {
		return errors.Join(err, p.settle()) // a package was faster
	}
	return p.drained(ctx, standing)
}

// drained waits for shims that were taken out while they start, and clears the stage, by which they find the program.
func (p place) drained(ctx context.Context, taken fs.FileInfo) error {
	deadline := time.NewTimer(goneWithin)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !p.steps.dry && running(taken) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("%s is changed, but a process is still the shim that stood there: repeat this when it has ended", p.path)
		case <-tick.C:
		}
	}
	return p.settle()
}

// clear removes what was kept, and the directory.
func (p place) clear() error {
	if _, err := os.Lstat(p.directory()); err != nil {
		return nil //nolint:nilerr // nothing is there
	}
	stands, _, err := look(p.file)
	if err != nil {
		return err
	}
	if kept, _, err := look(p.kept()); !p.steps.dry && stands != program && (err != nil || kept == program) {
		return errors.Join(err, fmt.Errorf("%s is no program: what is kept in %s stays", p.path, p.directory()))
	}
	return p.steps.do("remove "+p.path+KeptSuffix, func() error {
		if err := beside.Clear(p.directory()); err != nil {
			return err
		}
		for _, path := range []string{p.kept(), p.directory()} {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return syncDirectory(filepath.Dir(p.file))
	})
}

// unchanged says whether two looks saw the same file with the same content, as far as the kernel's times tell.
func unchanged(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func sameContent(a, b string) (bool, error) {
	first, err := Hash(a)
	if err != nil {
		return false, err
	}
	second, err := Hash(b)
	return first == second, err
}
