package probe

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// pins is a directory of a BPF file system, in which programs and maps outlive the collector:
//
//	maps/NAME                   what a new version takes over: the rings, counters, notes
//	programs-GENERATION/PLACE   the programs of one load
//	links-GENERATION/PLACE      what attaches them
//
// Removing the links of a generation detaches its programs. Nothing is complete until the settings' owner is its generation
// and the identity has its digest: what a crash leaves half-made is removed by the next start. The zero value pins
// nothing.
type pins struct {
	directory string
}

// ErrNoBPFFS means that the directory for pins is not in a BPF file system.
var ErrNoBPFFS = errors.New("not in a BPF file system")

// openPins checks the directory, which must exist.
func openPins(directory string) (pins, error) {
	if directory == "" {
		return pins{}, nil
	}
	var at unix.Statfs_t
	if err := unix.Statfs(directory, &at); err != nil {
		return pins{}, fmt.Errorf("probes.pins: %s: %w: make it, in a BPF file system, owned by the collector's user", directory, err)
	}
	if at.Type != unix.BPF_FS_MAGIC {
		return pins{}, fmt.Errorf("probes.pins: %s: %w: mount one there (mount -t bpf bpf /sys/fs/bpf)", directory, ErrNoBPFFS)
	}
	p := pins{directory: directory}
	if err := os.MkdirAll(p.maps(), 0o700); err != nil {
		return pins{}, fmt.Errorf("probes.pins: %w", err)
	}
	return p, nil
}

func (p pins) none() bool { return p.directory == "" }

func (p pins) maps() string { return filepath.Join(p.directory, "maps") }

func (p pins) links(generation uint64) string {
	return filepath.Join(p.directory, linksPrefix+strconv.FormatUint(generation, 16))
}

func (p pins) programs(generation uint64) string {
	return filepath.Join(p.directory, programsPrefix+strconv.FormatUint(generation, 16))
}

const (
	linksPrefix    = "links-"
	programsPrefix = "programs-"
)

// pinName is a loadable's name in a BPF file system, which allows no dots.
func pinName(hook Hook, place string) string {
	if hook.Place == Iterator {
		return ""
	}
	return hook.Family + ":" + hook.Name + ":" + place
}

// keep pins the programs and links of a generation. The iterator is not pinned: it is run, not called.
func (p pins) keep(generation uint64, held []held) error {
	if p.none() {
		return nil
	}
	for _, directory := range []string{p.programs(generation), p.links(generation)} {
		if err := os.Mkdir(directory, 0o700); err != nil {
			return fmt.Errorf("pin programs: %w", err)
		}
	}
	for _, h := range held {
		name := pinName(h.hook, h.place)
		if name == "" {
			continue
		}
		if err := h.program.Pin(filepath.Join(p.programs(generation), name)); err != nil {
			return fmt.Errorf("pin program of %s: %w", h.hook.Name, err)
		}
		if err := h.link.Pin(filepath.Join(p.links(generation), name)); err != nil {
			return fmt.Errorf("pin link of %s: %w", h.hook.Name, err)
		}
	}
	return nil
}

// sweep removes every generation but one.
func (p pins) sweep(keep uint64) error {
	if p.none() {
		return nil
	}
	entries, err := os.ReadDir(p.directory)
	if err != nil {
		return fmt.Errorf("remove old pins: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(p.directory, entry.Name())
		old := strings.HasPrefix(entry.Name(), linksPrefix) || strings.HasPrefix(entry.Name(), programsPrefix)
		if !old || path == p.links(keep) || path == p.programs(keep) {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove old pins: %w", err)
		}
	}
	return nil
}

// forget removes everything, which detaches and frees what nobody holds open.
func (p pins) forget() error {
	if p.none() {
		return nil
	}
	if err := p.sweep(0); err != nil {
		return err
	}
	if err := os.RemoveAll(p.maps()); err != nil {
		return fmt.Errorf("remove pinned maps: %w", err)
	}
	return os.MkdirAll(p.maps(), 0o700)
}

// forgetMap removes the pin of a map, if there is one.
func (p pins) forgetMap(name string) error {
	if err := os.Remove(filepath.Join(p.maps(), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pinned map: %w", err)
	}
	return nil
}

// owner reads who owns the pinned maps: the digest of its programs and its generation. It is fs.ErrNotExist if nothing
// complete is pinned.
func (p pins) owner() (digest string, generation uint64, err error) {
	if p.none() {
		return "", 0, fs.ErrNotExist
	}
	var identity collectorIdentity
	var settings collectorSettings
	if err := lookupPinned(filepath.Join(p.maps(), "identity"), &identity); err != nil {
		return "", 0, err
	}
	if err := lookupPinned(filepath.Join(p.maps(), "settings"), &settings); err != nil {
		return "", 0, err
	}
	if settings.Owner == 0 {
		return "", 0, fs.ErrNotExist
	}
	return hex.EncodeToString(identity.Digest[:]), settings.Owner, nil
}

func lookupPinned(path string, value any) error {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return fmt.Errorf("open pinned map: %w", err)
	}
	defer m.Close()
	if err := m.Lookup(uint32(0), value); err != nil {
		return fmt.Errorf("read pinned map: %w", err)
	}
	return nil
}

// held is a program in its place.
type held struct {
	hook    Hook
	place   string
	program *ebpf.Program
	link    link.Link
	id      uint32 // the program's, see number
}

// adopt opens the programs and links of a generation that were pinned for the hooks.
func (p pins) adopt(generation uint64, hooks []Hook) ([]held, error) {
	entries, err := os.ReadDir(p.links(generation))
	if err != nil {
		return nil, fmt.Errorf("open pinned links: %w", err)
	}
	pinned := make(map[string]bool, len(entries))
	for _, entry := range entries {
		pinned[entry.Name()] = true
	}
	var all []held
	for _, hook := range hooks {
		prefix := pinName(hook, "")
		for name := range pinned {
			if prefix == "" || !strings.HasPrefix(name, prefix) {
				continue
			}
			h := held{hook: hook, place: strings.TrimPrefix(name, prefix)}
			if h.program, err = ebpf.LoadPinnedProgram(filepath.Join(p.programs(generation), name), nil); err == nil {
				h.link, err = link.LoadPinnedLink(filepath.Join(p.links(generation), name), nil)
			}
			if err != nil {
				return all, fmt.Errorf("open what is pinned of %s: %w", hook.Name, err)
			}
			all = append(all, h)
		}
	}
	return all, nil
}
