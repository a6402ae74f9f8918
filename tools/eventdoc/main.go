// Command eventdoc writes docs/events.md from the contract of events. In: an image that `buf build` made, with comments, on
// standard input. Out: Markdown on standard output: every kind of event, with the fields and constants it has.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

const (
	eventFile = "palisade/event/v1/event.proto"
	eventName = "palisade.event.v1.Event"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "eventdoc:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	raw, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(raw, &set); err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	found, err := files.FindDescriptorByName(eventName)
	if err != nil {
		return fmt.Errorf("find %s: %w", eventName, err)
	}
	event, ok := found.(protoreflect.MessageDescriptor)
	if !ok {
		return fmt.Errorf("%s is no message", eventName)
	}
	w := bufio.NewWriter(out)
	d := document{out: w, told: map[protoreflect.FullName]bool{}}
	d.write(event)
	return w.Flush()
}

// document is written from top to bottom; a message or enum is told where it is first used.
type document struct {
	out  *bufio.Writer
	told map[protoreflect.FullName]bool
	// parts are messages that others have as fields, told at the end.
	parts []protoreflect.MessageDescriptor
}

func (d *document) write(event protoreflect.MessageDescriptor) {
	fmt.Fprintf(d.out, "# Events\n\nMade from `api/%s` by `make generate`: change that, not this.\n\n", eventFile)
	fmt.Fprintf(d.out, "%s\n\nEvery event has\n\n", comment(event))
	kind := event.Oneofs().ByName("kind")
	d.fields(event, func(f protoreflect.FieldDescriptor) bool { return f.ContainingOneof() == nil })
	d.enums(event)
	fmt.Fprint(d.out, "\nand one of these kinds.\n")
	for i := range kind.Fields().Len() {
		field := kind.Fields().Get(i)
		fmt.Fprintf(d.out, "\n## %s\n\n", field.Name())
		if note := comment(field); note != "" {
			fmt.Fprintf(d.out, "%s\n\n", note)
		}
		d.message(field.Message())
	}
	fmt.Fprint(d.out, "\n# Parts of events\n")
	for len(d.parts) > 0 { // a part may have parts
		part := d.parts[0]
		d.parts = d.parts[1:]
		if !d.told[part.FullName()] {
			fmt.Fprintf(d.out, "\n## %s\n\n", part.Name())
			d.message(part)
		}
	}
}

func (d *document) message(m protoreflect.MessageDescriptor) {
	if d.told[m.FullName()] {
		fmt.Fprintf(d.out, "Fields of %s: see above.\n", m.Name())
		return
	}
	d.told[m.FullName()] = true
	fmt.Fprintf(d.out, "%s\n\n", comment(m))
	d.fields(m, func(protoreflect.FieldDescriptor) bool { return true })
	d.enums(m)
}

// enums tells those that the message's fields have.
func (d *document) enums(m protoreflect.MessageDescriptor) {
	for i := range m.Fields().Len() {
		if enum := m.Fields().Get(i).Enum(); enum != nil {
			d.enum(enum)
		}
	}
}

func (d *document) fields(m protoreflect.MessageDescriptor, keep func(protoreflect.FieldDescriptor) bool) {
	fmt.Fprint(d.out, "| field | type | meaning |\n|---|---|---|\n")
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); keep(f) {
			fmt.Fprintf(d.out, "| `%s` | %s | %s |\n", f.Name(), typeOf(f), comment(f))
			if part := f.Message(); part != nil && part.ParentFile().Package() == m.ParentFile().Package() {
				d.parts = append(d.parts, part)
			}
		}
	}
}

func (d *document) enum(e protoreflect.EnumDescriptor) {
	if d.told[e.FullName()] {
		return
	}
	d.told[e.FullName()] = true
	fmt.Fprintf(d.out, "\n%s\n\n", comment(e))
	for i := range e.Values().Len() {
		if v := e.Values().Get(i); v.Number() != 0 {
			fmt.Fprintf(d.out, "- `%s` %s\n", v.Name(), comment(v))
		}
	}
}

func typeOf(f protoreflect.FieldDescriptor) string {
	name := f.Kind().String()
	if f.Message() != nil {
		name = string(f.Message().Name())
	}
	if f.Enum() != nil {
		name = string(f.Enum().Name())
	}
	if f.IsList() {
		return "list of " + name
	}
	return name
}

// comment is what stands before a declaration, on one line.
func comment(d protoreflect.Descriptor) string {
	text := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}
