package sample

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/uapi"
)

// Decoded is a sample that was read.
type Decoded struct {
	Name    string
	Context *field.Context
}

// Decode reads a sample. All that is wrong with it is in the errors; the context is then not to be used.
func Decode(s rule.Sample) (Decoded, []*rule.Error) {
	d := &decoder{sample: s, errs: &[]*rule.Error{}}
	d.open(s.Node)
	event := &eventv1.Event{Sequence: 1, BoottimeNs: now, Time: timestamppb.New(wallClock())}
	out := Decoded{Name: d.str("name"), Context: &field.Context{Event: event, Workload: d.workload()}}
	class := d.str("event")
	out.Context.Process = d.process(event)
	out.Context.Accounts = d.accounts(out.Context.Process)
	d.result(event)
	if fill, ok := classes[class]; ok {
		fill(d, event, out.Context)
	} else if class == "" {
		d.fail(s.Node, "sample has no event: name a class, as in docs/rules.md")
	} else {
		d.fail(d.values["event"], "unknown class of event %q", class)
		return out, *d.errs
	}
	if out.Name == "" {
		out.Name = class
	}
	d.done("sample of class " + class)
	return out, *d.errs
}

// decoder reads one mapping. Every key that is asked for is one that may be there.
type decoder struct {
	sample rule.Sample
	errs   *[]*rule.Error
	values map[string]*yaml.Node
	keys   map[string]*yaml.Node
	asked  map[string]bool
}

func (d *decoder) fail(node *yaml.Node, format string, args ...any) {
	*d.errs = append(*d.errs, d.sample.Errorf(node, format, args...))
}

// open begins with a mapping.
func (d *decoder) open(node *yaml.Node) {
	d.values, d.keys, d.asked = map[string]*yaml.Node{}, map[string]*yaml.Node{}, map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if value.Kind == yaml.AliasNode && value.Alias != nil {
			value = value.Alias
		}
		if d.values[key.Value] != nil {
			d.fail(key, "key %q is here twice", key.Value)
		}
		d.keys[key.Value], d.values[key.Value] = key, value
	}
}

// inner reads the mapping within this one.
func (d *decoder) inner(node *yaml.Node) *decoder {
	in := &decoder{sample: d.sample, errs: d.errs}
	in.open(node)
	return in
}

// done reports keys that nobody asked for.
func (d *decoder) done(what string) {
	for name, key := range d.keys {
		if d.asked[name] {
			continue
		}
		var known []string
		for k := range d.asked {
			known = append(known, k)
		}
		d.fail(key, "%s has no key %q: there are %s", what, name, sortedWords(known))
	}
}

func (d *decoder) get(key string) *yaml.Node {
	d.asked[key] = true
	return d.values[key]
}

// str is a scalar, empty if it is absent.
func (d *decoder) str(key string) string {
	node := d.get(key)
	if node == nil {
		return ""
	}
	if node.Kind != yaml.ScalarNode {
		d.fail(node, "%s must be a string", key)
		return ""
	}
	return node.Value
}

// strs is a sequence of scalars, or one scalar split at its blanks.
func (d *decoder) strs(key string) []string {
	node := d.get(key)
	switch {
	case node == nil:
		return nil
	case node.Kind == yaml.ScalarNode:
		return strings.Fields(node.Value)
	case node.Kind != yaml.SequenceNode:
		d.fail(node, "%s must be a sequence of strings", key)
		return nil
	}
	out := make([]string, 0, len(node.Content))
	for _, item := range node.Content {
		if item.Kind != yaml.ScalarNode {
			d.fail(item, "%s must be a sequence of strings", key)
			continue
		}
		out = append(out, item.Value)
	}
	return out
}

func (d *decoder) boolean(key string) bool {
	s := d.str(key)
	if s != "" && s != "true" && s != "false" {
		d.fail(d.values[key], "%s must be true or false, not %q", key, s)
	}
	return s == "true"
}

// number is a decimal, 0x or 0o number of so many bits, byDefault if it is absent.
func (d *decoder) number(key string, bits int, byDefault uint64) uint64 {
	s := d.str(key)
	if s == "" {
		return byDefault
	}
	n, err := strconv.ParseUint(s, 0, bits)
	if err != nil {
		d.fail(d.values[key], "%s must be a number below 2^%d, not %q", key, bits, s)
	}
	return n
}

func (d *decoder) number32(key string, byDefault uint32) uint32 {
	return uint32(d.number(key, 32, uint64(byDefault))) //nolint:gosec // parsed as 32 bits
}

// maxWord is the highest number that has a name (of ptrace).
const maxWord = 0x5000

// word is a name that the kernel's user API has for a number, or the number.
func (d *decoder) word(key string, nameOf func(uint64) string, byDefault uint64) uint64 {
	s := d.str(key)
	if s == "" {
		return byDefault
	}
	if n, err := strconv.ParseUint(s, 0, 64); err == nil {
		return n
	}
	for n := range uint64(maxWord) {
		if nameOf(n) == s {
			return n
		}
	}
	d.fail(d.values[key], "%s is unknown as %s", s, key)
	return 0
}

// bits are names of bits, joined.
func (d *decoder) bits(key string, table []uapi.Bit) uint64 {
	var mask uint64
	for _, s := range d.strs(key) {
		found := false
		for _, b := range table {
			if b.Name == s {
				mask |= b.Mask
				found = true
			}
		}
		if !found {
			d.fail(d.values[key], "%s is unknown as one of %s", s, key)
		}
	}
	return mask
}

// result is SUCCESS, the name of an error, or a number; absent it is not known.
func (d *decoder) result(event *eventv1.Event) {
	s := d.str("result")
	switch {
	case s == "":
		return
	case s == "SUCCESS":
	case strings.HasPrefix(s, "E"):
		n := int64(0)
		for n < 200 && uapi.Errno(uint64(n)) != s { //nolint:gosec // not negative
			n++
		}
		if n == 200 {
			d.fail(d.values["result"], "%s is no error", s)
		}
		event.Result = -n
	default:
		n, err := strconv.ParseInt(s, 0, 64)
		if err != nil {
			d.fail(d.values["result"], "result must be SUCCESS, the name of an error or a number, not %q", s)
		}
		event.Result = n
	}
	event.ResultKnown = true
}
