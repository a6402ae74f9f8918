// Package document reads a YAML file in which every key must be known, and tells of each fault the file, the line and the column.
// Data in: bytes; data out: mappings whose values are asked for by key and type, and the faults. It opens no file. It also
// has what other readers of YAML need to name a place: package rule's, for example.
package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// Limits, against files made to exhaust memory.
const (
	maxBytes  = 4 << 20
	maxFaults = 50
)

// Error is a fault in a document.
type Error struct {
	Position Position
	Msg      string
	// Text is the line of the file.
	Text string
}

// Error is the place, the fault, and the line with a caret below the place.
func (e *Error) Error() string { return Fault(e.Position, e.Msg, e.Text) }

// File is a document under reading. Faults gather in it, so that people see all of them at once.
type File struct {
	name   string
	lines  []string
	faults []error
}

// Parse reads a file of one document, whose root must be a mapping. name is for messages. The mapping can be asked for values even
// after a fault; what Err returns in the end counts.
func Parse(name string, raw []byte) (*File, Mapping) {
	f := &File{name: name}
	if len(raw) > maxBytes {
		f.fail(1, 1, "file is larger than %d bytes", maxBytes)
		return f, Mapping{file: f}
	}
	f.lines = SplitLines(string(raw))
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	var doc yaml.Node
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		f.fail(1, 1, "file is empty")
		return f, Mapping{file: f}
	}
	if err == nil {
		if next := decoder.Decode(new(yaml.Node)); next == nil {
			f.fail(1, 1, "more than one YAML document")
		} else if !errors.Is(next, io.EOF) {
			err = next
		}
	}
	if err != nil {
		line, column, msg := SyntaxError(f.lines, err)
		f.fail(line, column, "%s", msg)
		return f, Mapping{file: f}
	}
	return f, Value{file: f, node: doc.Content[0], what: "file"}.Mapping()
}

// Err is all faults found so far, joined, each an *Error; nil if there are none.
func (f *File) Err() error { return errors.Join(f.faults...) }

// Failed says whether there are faults.
func (f *File) Failed() bool { return len(f.faults) > 0 }

func (f *File) fail(line, column int, format string, args ...any) {
	switch {
	case len(f.faults) > maxFaults:
		return
	case len(f.faults) == maxFaults:
		format, args = "too many faults, the rest is not shown", nil
	}
	f.faults = append(f.faults, &Error{
		Position: Position{File: f.name, Line: line, Column: column}, Msg: fmt.Sprintf(format, args...), Text: lineAt(f.lines, line),
	})
}

// Faults takes the joined error of one or several files apart. An error that is no fault of a file gives none.
func Faults(err error) []*Error {
	var faults []*Error
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // errors.Join's own type, from Err
		for _, e := range joined.Unwrap() {
			faults = append(faults, Faults(e)...)
		}
		return faults
	}
	if fault, ok := errors.AsType[*Error](err); ok {
		faults = append(faults, fault)
	}
	return faults
}
