package mtls_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/mtls"
	"github.com/palisade-sec/palisade/internal/statedir"
)

func enrolled(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	authority, err := mtls.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.IssueNode("node-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := statedir.WriteFile(filepath.Join(directory, "ca.crt"), authority.Certificate(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := mtls.WritePair(directory, "node", pair, 0o640); err != nil {
		t.Fatal(err)
	}
	return directory
}

func TestOpenNode(t *testing.T) {
	identity, err := mtls.OpenNode(enrolled(t), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	if identity.Name != "node-1" {
		t.Errorf("OpenNode name = %q, want node-1", identity.Name)
	}
}

func TestOpenNodeNamesTheFile(t *testing.T) {
	for _, name := range []string{"ca.crt", "node.crt", "node.key"} {
		directory := enrolled(t)
		path := filepath.Join(directory, name)
		if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := mtls.OpenNode(directory, "localhost")
		if err == nil || !strings.Contains(err.Error(), name) || mtls.Missing(err) {
			t.Errorf("OpenNode with garbage in %s error = %v, want one that names it", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := mtls.OpenNode(directory, "localhost"); !mtls.Missing(err) {
			t.Errorf("OpenNode without %s error = %v, want one that says it is missing", name, err)
		}
	}
}
