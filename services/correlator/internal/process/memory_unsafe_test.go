package process

import (
	"strings"
	"testing"
	"unsafe"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// An exec's text is one string (package decode). Of a long one the tree keeps a part, and that must not keep the whole.
func TestALongExecIsNotKeptWhole(t *testing.T) {
	text := "/bin/sh/tmp/" + strings.Repeat("x", 32<<10)
	exec := &eventv1.Exec{Exe: &eventv1.File{Path: text[:7]}, Cwd: text[7:12], Argv: []string{text[5:7], text[12:13], text[13:]}}
	tree := New(10)
	entry := tree.Apply(&eventv1.Event{Process: &eventv1.ProcessKey{Pid: 7, StartBoottimeNs: 1}, Kind: &eventv1.Event_Exec{Exec: exec}})
	kept := append([]string{entry.Image.Name, entry.Image.Exe, entry.Image.Cwd}, entry.Image.Argv...)
	if len(kept) != 6 || !entry.Image.ArgvCut || entry.Image.Name != "sh" || entry.Image.Cwd != "/tmp/" {
		t.Fatalf("image = %q, want name, path, directory and three arguments", kept)
	}
	begin := uintptr(unsafe.Pointer(unsafe.StringData(text)))
	for _, s := range kept {
		if at := uintptr(unsafe.Pointer(unsafe.StringData(s))); at >= begin && at < begin+uintptr(len(text)) {
			t.Errorf("%.10q is a part of the exec's text", s)
		}
	}
}
