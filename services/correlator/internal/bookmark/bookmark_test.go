package bookmark

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestBookKeepsTheLastMark(t *testing.T) {
	directory := t.TempDir()
	book, mark, err := Open(directory)
	if err != nil || mark != (Mark{}) {
		t.Fatalf("Open(empty directory) = %+v, %v, want a zero mark", mark, err)
	}
	want := Mark{Instance: "second", Last: time.Unix(2, 0).UTC()}
	for _, m := range []Mark{{Instance: "first", Last: time.Unix(1, 0).UTC()}, want} {
		if err := book.Save(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, got, err := Open(directory); err != nil || got != want {
		t.Errorf("Open after two saves = %+v, %v, want %+v", got, err, want)
	}
}

func TestOpenGoesOnWithoutAMarkThatCannotBeRead(t *testing.T) {
	for name, content := range map[string]string{"garbage": "\x00{", "another type": "[]", "empty": "", "bad time": `{"last":"x"}`} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			if err := os.WriteFile(filepath.Join(directory, fileName), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			book, mark, err := Open(directory)
			if err == nil || mark != (Mark{}) {
				t.Errorf("Open(%q) = %+v, %v, want a zero mark and an error", content, mark, err)
			}
			if err := book.Save(Mark{Instance: "x"}); err != nil {
				t.Errorf("Save over it = %v", err)
			}
		})
	}
}
