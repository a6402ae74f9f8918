package advisory

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/internal/advisory/keyfile"
)

// builder collects advisories, and writes them as a store when all are known: only then is it known which are aliases. What it
// collects lies in a file; in memory are ids, keys and ratings, each once.
type builder struct {
	spool   *os.File
	out     *bufio.Writer
	offset  int64
	rows    []row
	keys    numbers
	aliases *aliasSets
	last    map[int32]state // by id, of the record that is in force
	entries uint32
	meta    Metadata
}

// row is an advisory's record for one package, in the spool.
type row struct {
	offset  int64
	size    uint32
	key, id int32 // numbers of them
	entry   uint32
	first   bool // of the advisory's
	counts  bool // for its ecosystem: the first there
}

// state is which of several records with one id is in force, and what is known of it.
type state struct {
	rating    *rating
	modified  int64
	entry     uint32
	withdrawn bool
	empty     bool
	gitRanges uint32
}

// spooled is a record as the spool has it.
type spooled struct {
	record
	Upstream []string `json:"u,omitempty"`
}

// newBuilder spools in a directory, in a file that has no name and goes with the process.
func newBuilder(directory string) (*builder, error) {
	spool, err := os.CreateTemp(directory, tempPattern)
	if err != nil {
		return nil, err
	}
	os.Remove(spool.Name())
	return &builder{
		spool: spool, out: bufio.NewWriterSize(spool, 1<<20), keys: newNumbers(), aliases: newAliasSets(), last: map[int32]state{},
		meta: Metadata{Ecosystems: map[string]int{}},
	}, nil
}

func (b *builder) close() { b.spool.Close() }

// add takes an advisory in, unless it has one with its id that was modified later.
func (b *builder) add(e *entry) error {
	id := b.aliases.numberOf(e.id)
	if before, again := b.last[id]; again {
		b.meta.Replaced++
		if before.modified > e.modified {
			return nil
		}
	}
	b.entries++
	b.last[id] = state{
		rating: e.rating, modified: e.modified, entry: b.entries, withdrawn: e.withdrawn, empty: len(e.packages) == 0,
		gitRanges: uint32(e.gitRanges), //nolint:gosec // within a record's bytes
	}
	if e.withdrawn {
		return nil
	}
	b.aliases.join(e.alike)
	counted := map[string]bool{}
	for i, p := range e.packages {
		r := row{key: b.keys.of(packageKey(p.ecosystem, p.name)), id: id, entry: b.entries, first: i == 0, counts: !counted[p.ecosystem]}
		if err := b.addRow(r, e, p); err != nil {
			return err
		}
		counted[p.ecosystem] = true
	}
	return nil
}

func (b *builder) addRow(r row, e *entry, p entryPackage) error {
	value, err := json.Marshal(spooled{record: p.record, Upstream: e.upstream})
	if err != nil {
		return fmt.Errorf("encode %s: %w", e.id, err)
	}
	r.offset, r.size = b.offset, uint32(len(value)) //nolint:gosec // bounded by maxRecord
	b.rows = append(b.rows, r)
	b.offset += int64(len(value))
	_, err = b.out.Write(value)
	return err
}

// write writes the store.
func (b *builder) write(ctx context.Context, out *keyfile.Writer) error {
	if err := b.out.Flush(); err != nil {
		return err
	}
	named, err := b.writeNames(out)
	if err != nil {
		return err
	}
	slices.SortFunc(b.rows, func(x, y row) int {
		return cmp.Or(strings.Compare(b.keys.texts[x.key], b.keys.texts[y.key]), strings.Compare(b.aliases.texts[x.id], b.aliases.texts[y.id]), cmp.Compare(x.offset, y.offset))
	})
	for i, r := range b.rows {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if b.last[r.id].entry != r.entry {
			continue
		}
		if err := b.writeRow(out, r, named); err != nil {
			return err
		}
	}
	b.count()
	return out.Finish(b.meta)
}

// naming says what the vulnerability of an id is called, and who rates it.
type naming struct {
	name   []int32 // by the id's number
	rating []*rating
}

// writeNames writes what is known of each vulnerability.
func (b *builder) writeNames(out *keyfile.Writer) (naming, error) {
	count := len(b.aliases.texts)
	named := naming{name: make([]int32, count), rating: make([]*rating, count)}
	sets := b.aliases.sets()
	for _, set := range sets {
		name := b.aliases.nameOf(set, func(id int32) bool { _, ok := b.last[id]; return ok })
		var best *rating
		for _, id := range set {
			if r := b.last[id].rating; graver(r, best) {
				best = r
			}
		}
		for _, id := range set {
			named.name[id], named.rating[id] = name, best
		}
	}
	slices.SortFunc(sets, func(x, y []int32) int {
		return strings.Compare(b.aliases.texts[named.name[x[0]]], b.aliases.texts[named.name[y[0]]])
	})
	for _, set := range sets {
		v := vulnerability{Rating: named.rating[set[0]]}
		if len(set) > 1 {
			v.IDs = b.aliases.ids(set)
		}
		if v.Rating == nil && v.IDs == nil {
			continue
		}
		value, err := json.Marshal(v)
		if err == nil {
			err = out.Add(nameKey(b.aliases.texts[named.name[set[0]]]), value)
		}
		if err != nil {
			return named, err
		}
	}
	return named, nil
}

// writeRow writes an advisory's record for a package, with the names of what it is about.
func (b *builder) writeRow(out *keyfile.Writer, r row, named naming) error {
	raw := make([]byte, r.size)
	if _, err := b.spool.ReadAt(raw, r.offset); err != nil {
		return err
	}
	var s spooled
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("decode spool: %w", err)
	}
	about := s.Upstream
	if len(about) == 0 {
		about = []string{s.ID}
	}
	rated := s.Rating != nil
	for _, id := range about {
		name := id
		if n, known := b.aliases.number[id]; known {
			name = b.aliases.texts[named.name[n]]
			rated = rated || named.rating[n] != nil
		}
		s.Names = append(s.Names, name)
	}
	slices.Sort(s.Names)
	s.Names = slices.Compact(s.Names)
	if len(s.Names) == 1 && s.Names[0] == s.ID {
		s.Names = nil
	}
	key := b.keys.texts[r.key]
	if r.counts {
		b.meta.Ecosystems[ecosystemOf(key)]++
	}
	if r.first && !rated {
		b.meta.Unrated++
	}
	value, err := json.Marshal(s.record)
	if err != nil {
		return fmt.Errorf("encode %s: %w", s.ID, err)
	}
	return out.Add(key, value)
}

// count counts the records in force.
func (b *builder) count() {
	b.meta.LooseAliases = b.aliases.refused
	for _, s := range b.last {
		b.meta.GitRanges += int(s.gitRanges)
		switch {
		case s.withdrawn:
			b.meta.Withdrawn++
		case s.empty:
			b.meta.Empty++
		default:
			b.meta.Advisories++
		}
	}
}

// errNothing is why a store is not written.
var errNothing = errors.New("nothing to import")
