package vulndb

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/advisory"
)

const debian = "../../../internal/advisory/testdata/debian"

var errUsage = errors.New("usage")

func run(t *testing.T, output string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := New(&output, func(err error) error { return errors.Join(errUsage, err) })
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func TestImportThenStatus(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "advisories")
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte("{\x1b[2J"), 0o644); err != nil {
		t.Fatal(err)
	}
	imported, progress, err := run(t, "text", "import", "--directory", directory, debian, bad)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"7 advisories in " + directory + ", imported at 20", "from " + debian + ": 7 records", "1 other files were left out", "1 without a rating",
		"1 records could not be read", bad + ": not an OSV record", "Debian:12  7",
	} {
		if !strings.Contains(imported, want) {
			t.Errorf("import said %q, want %q in it", imported, want)
		}
	}
	if want := debian + ": 7 records\n" + bad + ": 1 records\n"; progress != want {
		t.Errorf("progress %q, want %q", progress, want)
	}
	if strings.Contains(imported, "\x1b") {
		t.Errorf("import said %q, want no escape", imported)
	}
	if status, _, err := run(t, "text", "status", "--directory", directory); err != nil || status != imported {
		t.Errorf("status = %q, %v, want what import said: %q", status, err, imported)
	}
	raw, _, err := run(t, "json", "status", "--directory", directory)
	var answer struct {
		Directory  string
		Advisories int
		Ecosystems map[string]int
	}
	if err != nil || json.Unmarshal([]byte(raw), &answer) != nil || answer.Directory != directory || answer.Advisories != 7 || answer.Ecosystems["Debian:12"] != 7 {
		t.Errorf("status -o json = %s, %v", raw, err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	directory := t.TempDir()
	if _, _, err := run(t, "text", "status", "--directory", directory); !errors.Is(err, advisory.ErrNone) || !strings.Contains(err.Error(), "palisade vulndb import") {
		t.Errorf("status of nothing: %v", err)
	}
	if err := os.WriteFile(filepath.Join(directory, "advisories"), bytes.Repeat([]byte("x"), 100), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t, "text", "status", "--directory", directory); !errors.Is(err, advisory.ErrDamaged) || !strings.Contains(err.Error(), "import again") {
		t.Errorf("status of a damaged store: %v", err)
	}
	for _, args := range [][]string{{"import"}, {"status", "x"}, {"x"}} {
		if _, _, err := run(t, "text", args...); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "--help`") {
			t.Errorf("vulndb %q = %v, want that it was asked for wrongly, and help", args, err)
		}
	}
	if _, _, err := run(t, "text", "import", "/dev/null", "--directory", directory); err == nil || !strings.Contains(err.Error(), "neither a file nor a directory") {
		t.Errorf("import of a device: %v", err)
	}
}
