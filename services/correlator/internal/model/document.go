package model

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/config"
)

// document is a model as YAML: what is exported, imported and kept on disk.
type document struct {
	Version     int           `yaml:"version"`
	ImageDigest string        `yaml:"image_digest"`
	Image       string        `yaml:"image,omitempty"`
	State       string        `yaml:"state"`
	Frozen      bool          `yaml:"frozen"`
	Observed    time.Duration `yaml:"observed"`
	Starts      uint64        `yaml:"starts"`
	Lost        uint64        `yaml:"lost,omitempty"`
	Skipped     uint64        `yaml:"skipped,omitempty"`
	Extended    time.Duration `yaml:"extended,omitempty"`
	Overflowed  []string      `yaml:"overflowed,omitempty"`
	Programs    []entry       `yaml:"programs,omitempty"`
	Directories []entry       `yaml:"written_directories,omitempty"`
	Listening   []entry       `yaml:"listening_ports,omitempty"`
	Outbound    []entry       `yaml:"outbound_ports,omitempty"`
	Domains     []entry       `yaml:"domains,omitempty"`
	Capability  []entry       `yaml:"capabilities,omitempty"`
	Syscalls    []entry       `yaml:"syscalls,omitempty"`
}

// entry is a fact. Which keys it has depends on its family.
type entry struct {
	Path     string `yaml:"path,omitempty"`
	From     string `yaml:"from,omitempty"`
	Parent   string `yaml:"parent,omitempty"`
	Name     string `yaml:"name,omitempty"`
	Protocol string `yaml:"protocol,omitempty"`
	Port     string `yaml:"port,omitempty"`
	ABI      string `yaml:"abi,omitempty"`
	Number   *int   `yaml:"number,omitempty"`
	Count    uint64 `yaml:"count"`
	First    string `yaml:"first"`
	Last     string `yaml:"last"`
}

const (
	documentVersion = 1
	// maxDocumentBytes bounds a file. A full model has under 1 MiB.
	maxDocumentBytes = 2 << 20
)

// lists are the document's, in the order of families.
func (d *document) lists() [numFamilies]*[]entry {
	return [numFamilies]*[]entry{&d.Programs, &d.Directories, &d.Listening, &d.Outbound, &d.Domains, &d.Capability, &d.Syscalls}
}

// document is a copy of the model. Making it takes no YAML, so that it can be done under a lock.
func (m *model) document() *document {
	d := &document{
		Version: documentVersion, ImageDigest: m.digest, Image: m.image, State: m.state.String(), Frozen: m.frozen, Observed: m.observed,
		Starts: m.starts, Lost: m.lost, Skipped: m.skipped, Extended: m.extended,
	}
	for f, over := range m.overflow {
		if over {
			d.Overflowed = append(d.Overflowed, families[f].name)
		}
	}
	lists := d.lists()
	for _, f := range sorted(m.facts) {
		*lists[f.Family] = append(*lists[f.Family], entryOf(f, m.facts[f]))
	}
	return d
}

func entryOf(f Fact, seen *Seen) entry {
	e := entry{Count: seen.Count, First: stamp(seen.First), Last: stamp(seen.Last)}
	switch f.Family {
	case Programs:
		e.Path, e.From, e.Parent = f.Name, origins[f.Origin], f.Parent
	case WrittenDirectories:
		e.Path = f.Name
	case ListeningPorts, OutboundPorts:
		e.Protocol, e.Port = protocolName(f.Number>>16), portName(f.Number)
	case Domains:
		e.Name = f.Name
	case Capabilities:
		e.Name = capabilityName(f.Number)
	case Syscalls:
		n := int(f.Number & 0xffff)
		e.ABI, e.Number = abis[eventv1.Abi(f.Number>>16)], &n //nolint:gosec // an Abi was put there
	case numFamilies:
	}
	return e
}

// marshal writes the document. The same facts make the same bytes.
func (d *document) marshal() ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(d), encoder.Close()); err != nil {
		return nil, fmt.Errorf("write model %s: %w", d.ImageDigest, err)
	}
	return out.Bytes(), nil
}

// parse reads a model. Faults name file and line.
func parse(file string, raw []byte) (*model, error) {
	if len(raw) > maxDocumentBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", file, maxDocumentBytes)
	}
	var d document
	if err := config.Decode(file, raw, &d); err != nil {
		return nil, err
	}
	r := reader{file: file}
	if err := yaml.Unmarshal(raw, &r.root); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	m := r.model(&d)
	return m, errors.Join(r.errs...)
}

// reader turns a document into a model, and knows where in the file things are.
type reader struct {
	file string
	root yaml.Node
	errs []error
}

// maxFaults bounds what is said about one file.
const maxFaults = 10

// fault says that what is at a key, or at one place of its list if index is not below zero, is wrong.
func (r *reader) fault(key string, index int, format string, args ...any) {
	if len(r.errs) < maxFaults {
		r.errs = append(r.errs, fmt.Errorf("%s:%d: %s: %s", r.file, r.line(key, index), key, fmt.Sprintf(format, args...)))
	}
}

func (r *reader) line(key string, index int) int {
	if len(r.root.Content) == 0 {
		return 1
	}
	top := r.root.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		if top[i].Value != key {
			continue
		}
		if list := top[i+1].Content; index >= 0 && index < len(list) {
			return list[index].Line
		}
		return top[i].Line
	}
	return 1
}

func (r *reader) model(d *document) *model {
	m := newModel(d.ImageDigest, d.Image)
	if d.Version != documentVersion {
		r.fault("version", -1, "%d is not %d", d.Version, documentVersion)
	}
	if !validDigest(d.ImageDigest) {
		r.fault("image_digest", -1, "%q is not algorithm:hexadecimal", d.ImageDigest)
	}
	if len(d.Image) > 1024 {
		r.fault("image", -1, "longer than 1024 bytes")
	}
	state := slices.Index(states[:], d.State)
	if state < 0 {
		r.fault("state", -1, "%q is not %s", d.State, strings.Join(states[:], ", "))
	}
	if d.Frozen && d.State != Active.String() {
		r.fault("frozen", -1, "a model that is %q cannot be frozen", d.State)
	}
	if d.Observed < 0 || d.Extended < 0 {
		r.fault("observed", -1, "a duration is negative")
	}
	m.state, m.frozen, m.observed, m.starts = State(max(0, state)), d.Frozen, d.Observed, d.Starts //nolint:gosec // below 3
	m.lost, m.skipped, m.extended = d.Lost, d.Skipped, d.Extended
	for i, name := range d.Overflowed {
		f, ok := familyNamed(name)
		if !ok {
			r.fault("overflowed", i, "%q is not one of %s", name, strings.Join(familyNames(), ", "))
			continue
		}
		m.overflow[f] = true
	}
	for f, list := range d.lists() {
		r.family(m, Family(f), *list) //nolint:gosec // below numFamilies
	}
	return m
}

func (r *reader) family(m *model, f Family, list []entry) {
	key := families[f].name
	if len(list) > families[f].limit {
		r.fault(key, families[f].limit, "more than %d", families[f].limit)
		return
	}
	for i := range list {
		fact, seen, err := list[i].read(f)
		switch {
		case err != nil:
			r.fault(key, i, "%v", err)
		case m.facts[fact] != nil:
			r.fault(key, i, "%s is there twice", fact)
		case m.nameBytes+len(fact.Name)+len(fact.Parent) > maxNameBytes:
			r.fault(key, i, "more than %d bytes of names", maxNameBytes)
			return
		default:
			m.put(fact, seen)
		}
	}
}

// read is the fact that an entry of a family stands for. The entry must have the keys of that family, and no other.
func (e entry) read(f Family) (Fact, *Seen, error) {
	first, err := time.Parse(time.RFC3339, e.First)
	last, lastErr := time.Parse(time.RFC3339, e.Last)
	if err = errors.Join(err, lastErr); err != nil {
		return Fact{}, nil, fmt.Errorf("first and last must be times such as 2026-01-31T12:00:00Z: %w", errors.Join(err))
	}
	seen := &Seen{Count: e.Count, First: first.Unix(), Last: last.Unix()}
	fact := Fact{Family: f}
	switch f {
	case Programs:
		origin := slices.Index(origins[:], e.From)
		if origin < 0 {
			return fact, nil, fmt.Errorf("from: %q is not %s", e.From, strings.Join(origins[:], ", "))
		}
		fact.Name, fact.Parent, fact.Origin = e.Path, e.Parent, Origin(origin) //nolint:gosec // below 3
	case WrittenDirectories:
		fact.Name = e.Path
	case ListeningPorts, OutboundPorts:
		fact.Number, err = parsePort(e.Protocol, e.Port)
	case Domains:
		fact.Name = e.Name
	case Capabilities:
		number, ok := capabilityNumber(e.Name)
		if !ok {
			return fact, nil, fmt.Errorf("name: %q is no capability", e.Name)
		}
		fact.Number = number
	case Syscalls:
		fact.Number, err = parseSyscall(e.ABI, e.Number)
	case numFamilies:
	}
	if err == nil && (f == Programs || f == WrittenDirectories || f == Domains) && fact.Name == "" {
		err = errors.New("what it is about is missing")
	}
	if want := entryOf(fact, seen); err == nil && !sameKeys(e, want) {
		err = fmt.Errorf("has keys that %s do not have, or not as they are written", families[f].noun)
	}
	return fact, seen, err
}

// sameKeys compares two entries but for the way their times are written.
func sameKeys(a, b entry) bool {
	if (a.Number == nil) != (b.Number == nil) || a.Number != nil && *a.Number != *b.Number {
		return false
	}
	a.Number, b.Number, a.First, a.Last = nil, nil, b.First, b.Last
	return a == b
}

func parsePort(protocol, port string) (uint32, error) {
	var number uint64
	var err error
	switch protocol {
	case "tcp":
		number = protocolTCP
	case "udp":
		number = protocolUDP
	default:
		number, err = strconv.ParseUint(protocol, 10, 8)
	}
	if err != nil {
		return 0, fmt.Errorf("protocol: %q is not tcp, udp or a number below 256", protocol)
	}
	if port == "ephemeral" {
		return uint32(number)<<16 | ephemeral, nil //nolint:gosec // below 256
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == ephemeral {
		return 0, fmt.Errorf("port: %q is not ephemeral or a number below 65535", port)
	}
	return portNumber(uint32(number), uint32(n)), nil //nolint:gosec // below 256, below 65536
}

func parseSyscall(abi string, number *int) (uint32, error) {
	for value, name := range abis {
		if name == abi && number != nil && *number >= 0 && *number < math.MaxUint16 {
			return uint32(value)<<16 | uint32(*number), nil //nolint:gosec // 1 to 3, below 65536
		}
	}
	return 0, errors.New("abi must be native, compat32 or x32, and number a system call's")
}

// validDigest says whether a text is a digest as OCI writes it: an algorithm, a colon, hexadecimal digits.
func validDigest(text string) bool {
	algorithm, hex, ok := strings.Cut(text, ":")
	return ok && algorithm != "" && len(algorithm) <= 32 && len(hex) >= 32 && len(hex) <= 128 &&
		strings.Trim(algorithm, "abcdefghijklmnopqrstuvwxyz0123456789") == "" && strings.Trim(hex, "0123456789abcdef") == ""
}

// begins says whether a digest, with or without its algorithm, begins so.
func begins(digest, prefix string) bool {
	_, hex, _ := strings.Cut(digest, ":")
	return prefix != "" && (strings.HasPrefix(digest, prefix) || strings.HasPrefix(hex, prefix))
}
