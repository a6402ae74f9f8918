package runclog

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What runC itself writes for an error is what this package writes for the same message.
func TestErrorIsToldAsRuncTellsIt(t *testing.T) {
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("there is no runC on this host: install Debian's package runc")
	}
	tests := []struct {
		name  string
		flags []string
		json  bool
		log   bool
	}{
		{"on standard error", nil, false, false},
		{"JSON on standard error", []string{"--log-format", "json"}, true, false},
		{"in a log", nil, false, true},
		{"in a JSON log", []string{"--log-format", "json"}, true, true},
	}
	const message = `no "quotes" & <tags> of \ é ` + "\x1b"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			directory := t.TempDir()
			log := Log{JSON: tt.json}
			if tt.log {
				log.Path = filepath.Join(directory, "log")
				tt.flags = append(tt.flags, "--log", log.Path)
			}
			var want, got bytes.Buffer
			command := exec.Command("runc", append(tt.flags, "--root", directory, "spec", "--bundle", filepath.Join(directory, message))...)
			command.Stderr = &want
			if err := command.Run(); command.ProcessState.ExitCode() != 1 {
				t.Fatalf("runc: %v", err)
			}
			wantLog := take(t, log.Path)
			// runC says what it could not do, with its bundle's name in it.
			told := "chdir " + filepath.Join(directory, message) + ": no such file or directory"
			stamp := stampOf(t, want.String()+wantLog)
			if err := log.Error(&got, stamp, told); err != nil {
				t.Fatal(err)
			}
			if got.String() != want.String() {
				t.Errorf("standard error = %s, runC's is %s", got.String(), want.String())
			}
			if gotLog := take(t, log.Path); gotLog != wantLog {
				t.Errorf("log = %s, runC's is %s", gotLog, wantLog)
			}
		})
	}
}

func take(t *testing.T, path string) string {
	t.Helper()
	if path == "" {
		return ""
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

var rfc3339 = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)`)

func stampOf(t *testing.T, text string) time.Time {
	t.Helper()
	stamp, err := time.Parse(time.RFC3339, rfc3339.FindString(text))
	if err != nil {
		t.Fatalf("no time in %s: %v", text, err)
	}
	return stamp
}

func TestALineIsAppended(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Log{Path: path}).Error(&bytes.Buffer{}, time.Now(), "two\nlines"); err != nil {
		t.Fatal(err)
	}
	if got := take(t, path); !strings.HasPrefix(got, "before\n") || strings.Count(got, "\n") != 2 || !strings.Contains(got, `msg="two\nlines"`) {
		t.Errorf("log = %q, want what was there and one line", got)
	}
}

func TestALogThatCannotBeWritten(t *testing.T) {
	var stderr bytes.Buffer
	if err := (Log{Path: "/nonexistent/log"}).Error(&stderr, time.Now(), "what happened"); err == nil {
		t.Error("Error = nil, want that the log cannot be written")
	}
	if got := stderr.String(); got != "open /nonexistent/log: no such file or directory\nwhat happened\n" {
		t.Errorf("standard error = %q", got)
	}
}
