package advisory

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// builder collects advisories, and writes them as a store when all are known: only then is it known which are aliases. What it
// collects lies in a file; in memory are ids, keys and ratings.
type builder struct {
	spool   *os.File
	out     *bufio.Writer
	offset  int64
	rows    []row
	last    map[string]state // by id, of the record that is in force
	ratings map[string]*rating
	aliases *aliasSets
	entries uint32
	meta    Metadata
}

// row is an advisory's record for one package, in the spool.
type row struct {
	key, id   string
	ecosystem string // empty if another row of the advisory counts for it
	first     bool   // of the advisory's
	offset    int64
	size      uint32
	entry     uint32
}

// state is which of several records with one id is in force, and what is counted of it.
type state struct {
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
		spool: spool, out: bufio.NewWriterSize(spool, 1<<20), last: map[string]state{}, ratings: map[string]*rating{}, aliases: newAliasSets(),
		meta: Metadata{Ecosystems: map[string]int{}},
	}, nil
}

func (b *builder) close() { b.spool.Close() }

// add takes an advisory in, unless it has one with its id that was modified later.
func (b *builder) add(e *entry) error {
	before, again := b.last[e.id]
	if again {
		b.meta.Replaced++
		if before.modified > e.modified {
			return nil
		}
	}
	b.entries++
	b.last[strings.Clone(e.id)] = state{
		modified: e.modified, entry: b.entries, withdrawn: e.withdrawn, empty: len(e.packages) == 0, gitRanges: uint32(e.gitRanges), //nolint:gosec // within a record
	}
	delete(b.ratings, e.id)
	if e.withdrawn {
		return nil
	}
	if e.rating != nil {
		b.ratings[e.id] = e.rating
	}
	b.aliases.join(e.alike)
	counted := map[string]bool{}
	for i, p := range e.packages {
		if err := b.addRow(e, p, i == 0, !counted[p.ecosystem]); err != nil {
			return err
		}
		counted[p.ecosystem] = true
	}
	return nil
}

func (b *builder) addRow(e *entry, p entryPackage, first, counts bool) error {
	value, err := json.Marshal(spooled{record: p.record, Upstream: e.upstream})
	if err != nil {
		return fmt.Errorf("encode %s: %w", e.id, err)
	}
	r := row{key: packageKey(p.ecosystem, p.name), id: b.aliases.ids[b.aliases.numberOf(e.id)], first: first, offset: b.offset, size: uint32(len(value)), entry: b.entries} //nolint:gosec // bounded by maxRecord
	if counts {
		r.ecosystem = strings.Clone(p.ecosystem)
	}
	b.rows = append(b.rows, r)
	b.offset += int64(len(value))
	_, err = b.out.Write(value)
	return err
}

// write writes the store.
func (b *builder) write(ctx context.Context, out *fileWriter) error {
	if err := b.out.Flush(); err != nil {
		return err
	}
	named, err := b.writeNames(out)
	if err != nil {
		return err
	}
	slices.SortFunc(b.rows, func(x, y row) int {
		if order := strings.Compare(x.key, y.key); order != 0 {
			return order
		}
		return strings.Compare(x.id, y.id)
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
	return out.finish(b.meta)
}

// writeNames writes what is known of each vulnerability, and returns it by every one of its ids.
func (b *builder) writeNames(out *fileWriter) (map[string]*namedVulnerability, error) {
	byName, byID := map[string]*namedVulnerability{}, make(map[string]*namedVulnerability, len(b.aliases.ids))
	for _, ids := range b.aliases.sets() {
		n := &namedVulnerability{name: nameOf(ids, func(id string) bool { _, ok := b.last[id]; return ok })}
		if len(ids) > 1 {
			n.IDs = ids
		}
		for _, id := range ids {
			byID[id] = n
			if r := b.ratings[id]; graver(r, n.Rating) {
				n.Rating = r
			}
		}
		if len(ids) > 1 || n.Rating != nil {
			byName[n.name] = n
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		value, err := json.Marshal(byName[name].vulnerability)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		if err := out.add(nameKey(name), value); err != nil {
			return nil, err
		}
	}
	return byID, nil
}

// namedVulnerability is one with its name.
type namedVulnerability struct {
	name string
	vulnerability
}

// writeRow writes an advisory's record for a package, with the names of what it is about.
func (b *builder) writeRow(out *fileWriter, r row, named map[string]*namedVulnerability) error {
	raw := make([]byte, r.size)
	if _, err := b.spool.ReadAt(raw, r.offset); err != nil {
		return err
	}
	var s spooled
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("decode %s: %w", r.id, err)
	}
	about := s.Upstream
	if len(about) == 0 {
		about = []string{s.ID}
	}
	rated := s.Rating != nil
	for _, id := range about {
		name := id
		if n := named[id]; n != nil {
			name = n.name
			rated = rated || n.Rating != nil
		}
		s.Names = append(s.Names, name)
	}
	slices.Sort(s.Names)
	s.Names = slices.Compact(s.Names)
	if len(s.Names) == 1 && s.Names[0] == s.ID {
		s.Names = nil
	}
	if r.ecosystem != "" {
		b.meta.Ecosystems[r.ecosystem]++
	}
	if r.first && !rated {
		b.meta.Unrated++
	}
	value, err := json.Marshal(s.record)
	if err != nil {
		return fmt.Errorf("encode %s: %w", r.id, err)
	}
	return out.add(r.key, value)
}

// count counts the records in force.
func (b *builder) count() {
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
