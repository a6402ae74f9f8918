package probe

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/palisade-sec/palisade/services/collector/internal/kernel"
)

// loadingGCPercent makes Go collect its garbage earlier while programs are loaded.
const loadingGCPercent = 20

// Load loads and attaches everything, or takes over what an earlier collector left pinned. If a required hook is refused, nothing
// stays behind but what was there before.
func Load(cfg Config) (*Set, error) {
	// What the verifier needs counts against the same limit of memory as types and programs that were read, and are garbage.
	defer debug.SetGCPercent(debug.SetGCPercent(loadingGCPercent))
	running, err := kernel.Read()
	if err != nil {
		return nil, err
	}
	if running.Legacy {
		// Linux before 5.11 charges maps to the user. Where we may not raise the limit, loading says so.
		_ = rlimit.RemoveMemlock()
	}
	object, err := loadObject(running)
	if err != nil {
		return nil, err
	}
	set := &Set{tier: cfg.Tier, kernel: running, rates: cfg.Rates, syscalls: cfg.Syscalls}
	if set.tier == "" {
		set.tier, set.worse = detectTier(object)
	}
	if set.pins, err = openPins(cfg.Pins); err != nil {
		return nil, err
	}
	err = set.start(object, cfg)
	if err == nil {
		err = set.number()
	}
	if err != nil {
		if len(set.worse) > 0 {
			err = fmt.Errorf("%w (not tier %s)", err, strings.Join(set.worse, "; not tier "))
		}
		return nil, errors.Join(err, set.Close())
	}
	set.kernel.Types = nil // some ten MiB that only loading needs
	return set, nil
}

// start takes over pinned programs that are just these, or loads these; onto pinned maps if they fit.
func (s *Set) start(object *ebpf.CollectionSpec, cfg Config) error {
	hooks := hooksOf(s.tier, s.kernel, s.syscalls)
	digest := digestOf(s.kernel, s.tier, cfg)
	pinned, generation, err := s.pins.owner()
	if err == nil && pinned == hex.EncodeToString(digest) {
		if err := s.resume(object, cfg, generation, hooks); err == nil {
			return nil
		}
		// What is pinned is broken: somebody removed half of it.
		if err := errors.Join(s.pins.forget(), s.Close()); err != nil {
			return err
		}
		s.missing, s.maps = nil, collectorMaps{}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if err := s.pins.forget(); err != nil {
			return err
		}
	}
	return s.begin(object, cfg, hooks, digest)
}

// begin loads and attaches a new generation of programs, lets it take over from the one before, if there is one, and pins it.
func (s *Set) begin(object *ebpf.CollectionSpec, cfg Config, hooks []Hook, digest []byte) error {
	s.generation = randomGeneration()
	if err := size(object, cfg, s.tier, s.kernel, s.generation); err != nil {
		return err
	}
	list, absent := programsOf(hooks, s.tier, object, s.kernel)
	for _, hook := range absent {
		s.miss(hook, "the kernel has no such function")
	}
	programs, err := s.load(object, list)
	if err != nil {
		return errors.Join(err, closeAll(programs))
	}
	for _, l := range list {
		if err := s.attach(l, programs[l.name()]); err != nil {
			return err
		}
	}
	if err := s.attachPackets(); err != nil {
		return err
	}
	if err := s.pins.keep(s.generation, s.held); err != nil {
		return errors.Join(err, s.pins.sweep(0))
	}
	if err := s.own(digest); err != nil {
		return err
	}
	return s.pins.sweep(s.generation)
}

// own makes this generation the one that records, in one store, and says what it is.
func (s *Set) own(digest []byte) error {
	var identity collectorIdentity
	if err := s.maps.Identity.Lookup(uint32(0), &identity); err != nil {
		return fmt.Errorf("read the rings' identity: %w", err)
	}
	if identity.Epoch == [16]byte{} {
		_, _ = rand.Read(identity.Epoch[:]) // never fails
	}
	copy(identity.Digest[:], digest)
	before, err := s.settings()
	if err != nil {
		return err
	}
	s.resumed = before.Owner != 0
	wants := wish{kinds: AllKinds, opens: opens{word: opensEverything}}
	if s.resumed {
		wants = wishOf(before)
	}
	if err := s.put(wants); err != nil {
		return err
	}
	if err := s.maps.Identity.Put(uint32(0), identity); err != nil {
		return fmt.Errorf("keep the rings' identity: %w", err)
	}
	return nil
}

// resume takes over a generation that runs.
func (s *Set) resume(object *ebpf.CollectionSpec, cfg Config, generation uint64, hooks []Hook) error {
	if err := size(object, cfg, s.tier, s.kernel, generation); err != nil {
		return err
	}
	s.generation, s.resumed = generation, true
	adopted, err := s.pins.adopt(generation, hooks)
	s.held = adopted
	if err != nil {
		return err
	}
	for _, hook := range hooks {
		if hook.Place != Iterator && !slices.ContainsFunc(adopted, func(h held) bool { return h.hook.Program == hook.Program }) {
			if hook.Required {
				return fmt.Errorf("pinned programs: %s is missing", hook.Name)
			}
			s.miss(hook, "refused when the programs were loaded")
		}
	}
	i := slices.IndexFunc(hooks, func(h Hook) bool { return h.Place == Iterator })
	list, _ := programsOf(hooks[i:i+1], s.tier, object, s.kernel)
	programs, err := s.load(object, list)
	if err != nil {
		return err
	}
	now, err := s.settings()
	if err != nil {
		return err
	}
	return errors.Join(s.attach(list[0], programs[list[0].name()]), s.put(wishOf(now)))
}

// load loads the maps, then the programs, leaving out optional ones that the kernel refuses.
func (s *Set) load(object *ebpf.CollectionSpec, list []loadable) (map[string]*ebpf.Program, error) {
	collection, err := s.loadMaps(object)
	if err != nil {
		return nil, kernel.Explain("maps", s.kernel.Release, err)
	}
	defer collection.Close() // what is not taken out of it: the programs' own variables, which the programs hold
	programs, err := loadAll(object, list, collection.Maps)
	if err != nil { // the kernel refuses one of them at least
		if programs, err = s.loadEach(object, list, collection.Maps); err != nil {
			return programs, err
		}
	}
	if err := collection.Assign(&s.maps); err != nil {
		return programs, fmt.Errorf("assign maps: %w", err)
	}
	return programs, nil
}

// loadAll loads all programs at once onto the maps, or none: the kernel's types are then looked through once and not for each.
func loadAll(object *ebpf.CollectionSpec, list []loadable, onto map[string]*ebpf.Map) (map[string]*ebpf.Program, error) {
	spec := object.Copy()
	spec.Programs = make(map[string]*ebpf.ProgramSpec, len(list))
	for _, l := range list {
		spec.Programs[l.name()] = l.spec.Copy()
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: onto})
	if err != nil {
		return nil, err
	}
	defer collection.Close()
	programs := make(map[string]*ebpf.Program, len(list))
	for _, l := range list {
		programs[l.name()] = collection.DetachProgram(l.name())
	}
	return programs, nil
}

// loadEach loads each program by itself, leaving out optional ones that the kernel refuses.
func (s *Set) loadEach(object *ebpf.CollectionSpec, list []loadable, onto map[string]*ebpf.Map) (map[string]*ebpf.Program, error) {
	programs := make(map[string]*ebpf.Program, len(list))
	for _, l := range list {
		one, err := loadAll(object, []loadable{l}, onto)
		if err == nil {
			programs[l.name()] = one[l.name()]
			continue
		}
		err = kernel.Explain(l.hook.Name, s.kernel.Release, err)
		if l.hook.Required {
			return programs, err
		}
		s.miss(l.hook, err.Error())
	}
	return programs, nil
}

// loadMaps makes the maps, or takes those that are pinned and fit. If they do not fit, all pins go.
func (s *Set) loadMaps(object *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	spec, options := object.Copy(), ebpf.CollectionOptions{}
	spec.Programs = nil
	if !s.pins.none() {
		options.Maps.PinPath = s.pins.maps()
		for name, m := range spec.Maps {
			if name[0] != '.' { // not the programs' own variables
				m.Pinning = ebpf.PinByName
			}
		}
		if !s.syscalls {
			spec.Maps[syscallsMap].Pinning = ebpf.PinNone
			if err := s.pins.forgetMap(syscallsMap); err != nil {
				return nil, err
			}
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, options)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		if err := s.pins.forget(); err != nil {
			return nil, err
		}
		return ebpf.NewCollectionWithOptions(spec, options)
	}
	return collection, err
}

// attach puts a program in its place. A place that refuses is a missing hook, unless it is required.
func (s *Set) attach(l loadable, program *ebpf.Program) error {
	if program == nil {
		return nil // refused at load
	}
	var attached link.Link
	var err error
	if l.hook.Place == Iterator {
		s.walker = program
		s.tasks, err = link.AttachIter(link.IterOptions{Program: program})
	} else {
		attached, err = attachProgram(program)
	}
	if err == nil {
		if attached != nil {
			s.held = append(s.held, held{hook: l.hook, place: l.place, program: program, link: attached})
		}
		return nil
	}
	err = kernel.Explain(l.hook.Name, s.kernel.Release, err)
	if l.hook.Required {
		return errors.Join(err, program.Close())
	}
	s.miss(l.hook, err.Error())
	if l.hook.Place == Iterator {
		return nil // closed with the set
	}
	return program.Close()
}

func closeAll(programs map[string]*ebpf.Program) error {
	var errs []error
	for _, program := range programs {
		errs = append(errs, program.Close())
	}
	return errors.Join(errs...)
}

// randomGeneration is never 0, which owns nothing.
func randomGeneration() uint64 {
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // never fails
	return binary.LittleEndian.Uint64(raw[:]) | 1
}
