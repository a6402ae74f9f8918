package probe

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Load loads and attaches everything, or takes over what an earlier collector left pinned. If a required hook is refused, nothing
// stays behind but what was there before.
func Load(cfg Config) (*Set, error) {
	kernel, err := readKernel()
	if err != nil {
		return nil, err
	}
	object, err := loadObject(kernel)
	if err != nil {
		return nil, err
	}
	set := &Set{tier: cfg.Tier, kernel: kernel, rates: cfg.Rates}
	if set.tier == "" {
		if set.tier, err = detectTier(object); err != nil {
			return nil, err
		}
	}
	if set.pins, err = openPins(cfg.Pins); err != nil {
		return nil, err
	}
	if err := set.start(object, cfg); err != nil {
		return nil, errors.Join(err, set.Close())
	}
	return set, nil
}

// start takes over pinned programs that are just these, or loads these; onto pinned maps if they fit.
func (s *Set) start(object *ebpf.CollectionSpec, cfg Config) error {
	hooks := hooksOf(s.tier, s.kernel)
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
	if err := size(object, cfg, s.kernel, s.generation); err != nil {
		return err
	}
	list, absent := programsOf(hooks, s.tier, object, s.kernel)
	for _, hook := range absent {
		s.miss(hook, "the kernel has no such function")
	}
	programs, err := s.load(object, list)
	if err != nil {
		return err
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
	var before collectorSettings
	if err := s.maps.Settings.Lookup(uint32(0), &before); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	s.resumed = before.Owner != 0
	wanted := AllKinds
	if s.resumed {
		wanted = Kinds(before.Wanted)
	}
	if err := s.Want(wanted); err != nil {
		return err
	}
	if err := s.maps.Identity.Put(uint32(0), identity); err != nil {
		return fmt.Errorf("keep the rings' identity: %w", err)
	}
	return nil
}

// resume takes over a generation that runs.
func (s *Set) resume(object *ebpf.CollectionSpec, cfg Config, generation uint64, hooks []Hook) error {
	if err := size(object, cfg, s.kernel, generation); err != nil {
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
	var now collectorSettings
	if err := s.maps.Settings.Lookup(uint32(0), &now); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	return errors.Join(s.attach(list[0], programs[list[0].name()]), s.Want(Kinds(now.Wanted)))
}

// load loads the maps and programs, leaving out optional programs that the kernel refuses. Maps that are pinned and fit are
// taken instead of new ones; if they do not fit, all pins go.
func (s *Set) load(object *ebpf.CollectionSpec, list []loadable) (map[string]*ebpf.Program, error) {
	object.Programs = make(map[string]*ebpf.ProgramSpec, len(list))
	for _, l := range list {
		object.Programs[l.name()] = l.spec
	}
	options := s.persist(object)
	for {
		collection, err := ebpf.NewCollectionWithOptions(object, options)
		if errors.Is(err, ebpf.ErrMapIncompatible) {
			if err := s.pins.forget(); err != nil {
				return nil, err
			}
			continue
		}
		if err == nil {
			defer collection.Close() // what is not taken out of it
			if err := collection.Assign(&s.maps); err != nil {
				return nil, fmt.Errorf("assign maps: %w", err)
			}
			programs := make(map[string]*ebpf.Program, len(object.Programs))
			for name := range object.Programs {
				programs[name] = collection.DetachProgram(name)
			}
			return programs, nil
		}
		l, ok := refused(err, list)
		if _, loaded := object.Programs[l.name()]; !ok || !loaded || l.hook.Required {
			return nil, explain(l.hook.Name, s.kernel.release, err)
		}
		s.miss(l.hook, explain(l.hook.Name, s.kernel.release, err).Error())
		delete(object.Programs, l.name())
	}
}

// persist marks the maps that outlive a collector.
func (s *Set) persist(object *ebpf.CollectionSpec) ebpf.CollectionOptions {
	if s.pins.none() {
		return ebpf.CollectionOptions{}
	}
	for name, spec := range object.Maps {
		if name[0] != '.' { // not the programs' own variables
			spec.Pinning = ebpf.PinByName
		}
	}
	return ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: s.pins.maps()}}
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
	err = explain(l.hook.Name, s.kernel.release, err)
	if l.hook.Required {
		return errors.Join(err, program.Close())
	}
	s.miss(l.hook, err.Error())
	if l.hook.Place == Iterator {
		return nil // closed with the set
	}
	return program.Close()
}

// randomGeneration is never 0, which owns nothing.
func randomGeneration() uint64 {
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // never fails
	return binary.LittleEndian.Uint64(raw[:]) | 1
}
