package account

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestPasswordIsShownOnceAndKeptAsHash(t *testing.T) {
	directory := t.TempDir()
	var out bytes.Buffer
	if _, err := Open(directory, &out); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^palisade-console: admin password: ([a-z2-9-]{20,})\n$`).FindStringSubmatch(out.String())
	if line == nil {
		t.Fatalf("first start printed %q", out.String())
	}
	password := line[1]
	stored, err := os.ReadFile(filepath.Join(directory, "admin.hash"))
	if err != nil || strings.Contains(string(stored), password) || !strings.HasPrefix(string(stored), "$2") {
		t.Errorf("stored %q, %v, want a bcrypt hash", stored, err)
	}
	out.Reset()
	a, err := Open(directory, &out)
	if err != nil || out.Len() != 0 {
		t.Fatalf("second start printed %q, %v", out.String(), err)
	}
	for _, tt := range []struct {
		user, password string
		want           bool
	}{
		{"admin", password, true}, {"admin", password + "x", false}, {"root", password, false},
		{"admin", "", false}, {"admin", strings.Repeat("x", 100), false},
	} {
		if got, err := a.Verify(t.Context(), tt.user, tt.password); err != nil || got != tt.want {
			t.Errorf("Verify(%q, %q) = %v, %v, want %v", tt.user, tt.password, got, err, tt.want)
		}
	}
	if !a.Remembers("admin", password) || a.Remembers("admin", "x") || a.Remembers("root", password) {
		t.Error("Remembers must know the right password and no other")
	}
	a.now = func() time.Time { return time.Now().Add(time.Hour) }
	if a.Remembers("admin", password) {
		t.Error("Remembers must forget")
	}
}

func TestBadHashNamesTheFile(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "admin.hash")
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(directory, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Open error = %v, want it to name %s", err, path)
	}
	if err := Check(directory); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Check error = %v, want it to name %s", err, path)
	}
}

func TestSessions(t *testing.T) {
	now := time.Unix(1000, 0)
	s := NewSessions(func() time.Time { return now })
	token, err := s.Begin()
	if err != nil || len(token) != 43 {
		t.Fatalf("Begin = %q, %v, want 256 bits", token, err)
	}
	if !s.Valid(token) || s.Valid("") || s.Valid(token+"x") {
		t.Error("Valid must know the token and no other")
	}
	other, _ := s.Begin()
	s.End(other)
	if s.Valid(other) {
		t.Error("ended session is valid")
	}
	now = now.Add(SessionLifetime)
	if s.Valid(token) {
		t.Error("session is valid after 12 hours")
	}
	for range maxSessions + 10 {
		if _, err := s.Begin(); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.ends) != maxSessions {
		t.Errorf("%d sessions, want at most %d", len(s.ends), maxSessions)
	}
}

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	l := NewLimiter(func() time.Time { return now })
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for range burst {
		if _, ok := l.Take(a); !ok {
			t.Fatal("burst is too small")
		}
	}
	if wait, ok := l.Take(a); ok || wait != refill {
		t.Errorf("Take after the burst = %v, %v, want to wait %v", wait, ok, refill)
	}
	if _, ok := l.Take(b); !ok {
		t.Error("another address is held up")
	}
	l.Return(a)
	if _, ok := l.Take(a); !ok {
		t.Error("Return gave nothing back")
	}
	now = now.Add(refill)
	if _, ok := l.Take(a); !ok {
		t.Error("nothing came back with time")
	}
	six := netip.MustParseAddr("2001:db8::1")
	for range burst {
		l.Take(six)
	}
	if _, ok := l.Take(netip.MustParseAddr("2001:db8::ffff")); ok {
		t.Error("an IPv6 customer has more than one allowance")
	}
	for i := range 3 * maxAddresses {
		l.Take(netip.MustParseAddr(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)))
	}
	if len(l.buckets) > maxAddresses+1 {
		t.Errorf("%d addresses are kept, want at most %d", len(l.buckets), maxAddresses+1)
	}
}
