package account

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatev1 "github.com/palisade-sec/palisade/api/palisade/gate/v1"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\n"
	group  = "root:x:0:\n"
)

// etc is a directory with account files, and a service that reads them.
func etc(t *testing.T) (directory string, service *Service) {
	t.Helper()
	directory = t.TempDir()
	write(t, filepath.Join(directory, "passwd"), passwd)
	write(t, filepath.Join(directory, "group"), group)
	return directory, New(Config{Directory: directory}, slog.New(slog.DiscardHandler))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, s *Service, known string) *gatev1.ReadAccountsResponse {
	t.Helper()
	answer, err := s.ReadAccounts(t.Context(), &gatev1.ReadAccountsRequest{Known: known})
	if err != nil {
		t.Fatalf("ReadAccounts(%q) = %v", known, err)
	}
	return answer
}

func TestReadAccounts(t *testing.T) {
	directory, s := etc(t)
	first := ask(t, s, "")
	if string(first.GetPasswd()) != passwd || string(first.GetGroup()) != group || first.GetVersion() == "" {
		t.Errorf("ReadAccounts() = %v, want the files", first)
	}
	if again := ask(t, s, first.GetVersion()); again.GetVersion() != first.GetVersion() || len(again.GetPasswd())+len(again.GetGroup()) > 0 {
		t.Errorf("ReadAccounts() of what is known = %v, want the version alone", again)
	}
	// useradd writes a new file and renames it.
	write(t, filepath.Join(directory, "passwd+"), passwd+"web:x:33:33::/:/bin/false\n")
	if err := os.Rename(filepath.Join(directory, "passwd+"), filepath.Join(directory, "passwd")); err != nil {
		t.Fatal(err)
	}
	if news := ask(t, s, first.GetVersion()); !strings.Contains(string(news.GetPasswd()), "web") || news.GetVersion() == first.GetVersion() {
		t.Errorf("ReadAccounts() after useradd = %v, want the new file", news)
	}
	if err := s.Err(); err != nil {
		t.Errorf("Err() = %v after an answer", err)
	}
}

func TestWhatIsNoAccountFileIsRefused(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	write(t, outside, "secret")
	tests := []struct {
		name  string
		spoil func(path string) error
		want  codes.Code
	}{
		{"not there", func(string) error { return nil }, codes.NotFound},
		{"FIFO without a writer", func(path string) error { return syscall.Mkfifo(path, 0o600) }, codes.FailedPrecondition},
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }, codes.FailedPrecondition},
		{"link out of the directory", func(path string) error { return os.Symlink(outside, path) }, codes.FailedPrecondition},
		{"link to itself", func(path string) error { return os.Symlink("passwd", path) }, codes.FailedPrecondition},
		{"too large", func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("\n"), maxBytes+1), 0o600) }, codes.FailedPrecondition},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			directory, s := etc(t)
			path := filepath.Join(directory, "passwd")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(path); err != nil {
				t.Fatal(err)
			}
			answer, err := s.ReadAccounts(t.Context(), &gatev1.ReadAccountsRequest{})
			if status.Code(err) != tt.want || answer != nil {
				t.Errorf("ReadAccounts() = %v, %v, want code %v", answer, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), directory) {
				t.Errorf("%v tells a path", err)
			}
			if s.Err() == nil {
				t.Error("Err() = nil after a refusal")
			}
		})
	}
}

func TestNobodyIsNamedWithoutADirectory(t *testing.T) {
	_, err := New(Config{}, slog.New(slog.DiscardHandler)).ReadAccounts(t.Context(), &gatev1.ReadAccountsRequest{})
	if status.Code(err) != codes.NotFound {
		t.Errorf("ReadAccounts() = %v, want NotFound", err)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default configuration: %v", err)
	}
	if err := (Config{Directory: "etc"}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "accounts.directory: ") {
		t.Errorf("Validate() of a relative directory = %v", err)
	}
}
