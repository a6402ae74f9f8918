package mtls

import (
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// handshake runs one TLS connection and returns the first application byte's fate at the client.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write([]byte("x"))
	}()
	raw, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = io.ReadFull(tls.Client(raw, client), make([]byte, 1))
	return err
}

func mustPair(t *testing.T, pair Pair, err error) tls.Certificate {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pair.Keypair()
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func TestNodeSide(t *testing.T) {
	authority, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	issued := func(pair Pair, err error) tls.Certificate { return mustPair(t, pair, err) }
	server := issued(authority.IssueServer("localhost"))
	nodeSide, err := NodeSide(server, authority.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		client tls.Certificate
		max    uint16
		wantOK bool
	}{
		{name: "a node's certificate", client: issued(authority.IssueNode("node-1")), wantOK: true},
		{name: "no certificate"},
		{name: "a node of another authority", client: issued(other.IssueNode("node-1"))},
		{name: "the console's own server certificate", client: server},
		{name: "TLS 1.2", client: issued(authority.IssueNode("node-1")), max: tls.VersionTLS12},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, err := ConsoleSide(tt.client, authority.Certificate(), "localhost")
			if err != nil {
				t.Fatal(err)
			}
			if tt.client.Certificate == nil {
				client.Certificates = nil
			}
			if tt.max != 0 {
				client.MinVersion, client.MaxVersion = tt.max, tt.max
			}
			if err := handshake(t, nodeSide, client); (err == nil) != tt.wantOK {
				t.Errorf("first byte: %v, want it to arrive: %v", err, tt.wantOK)
			}
		})
	}
}

func TestOpenAuthorityKeepsWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	if string(first.Certificate()) != string(second.Certificate()) {
		t.Error("OpenAuthority made a second authority in the same directory")
	}
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: mode %v, %v, want 0600", info.Mode(), err)
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenAuthority with half a pair = %v, want an error, not a new authority", err)
	}
}

func TestIssueNodeRefusesNamesThatAreNoNames(t *testing.T) {
	authority, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "a b", "../x", "-a", strings.Repeat("a", 64), "a\x1b[31m", "ä"} {
		if _, err := authority.IssueNode(name); err == nil {
			t.Errorf("IssueNode(%q) = nil error, want a refusal", name)
		}
	}
	pair, err := authority.IssueNode("node-1.example")
	if got, err := NodeName(mustPair(t, pair, err).Leaf); err != nil || got != "node-1.example" {
		t.Errorf("NodeName = %q, %v, want node-1.example", got, err)
	}
}
