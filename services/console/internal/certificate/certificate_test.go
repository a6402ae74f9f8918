package certificate

import (
	"crypto/tls"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/mtls"
)

func open(t *testing.T, cfg Config) *Keeper {
	t.Helper()
	k, err := Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func config(t *testing.T) Config {
	return Config{
		Directory: filepath.Join(t.TempDir(), "certificates"), Hosts: []string{"localhost", "::1", "127.0.0.1"},
		Enroll: Enroll{Directory: t.TempDir(), Nodes: []string{"node-1"}},
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestCertificatesAreMadeOnceAndReplacedWhenTheyMustBe(t *testing.T) {
	cfg := config(t)
	open(t, cfg)
	server, node := filepath.Join(cfg.Directory, "server.crt"), filepath.Join(cfg.Enroll.Directory, "node.crt")
	firstServer, firstNode := content(t, server), content(t, node)
	if info, err := os.Stat(filepath.Join(cfg.Enroll.Directory, "node.key")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("node.key mode = %v, %v, want 0640", info.Mode(), err)
	}
	k := open(t, cfg)
	if content(t, server) != firstServer || content(t, node) != firstNode {
		t.Error("second start made new certificates")
	}
	k.now = func() time.Time { return time.Now().Add(340 * 24 * time.Hour) }
	if err := k.renew(); err != nil {
		t.Fatal(err)
	}
	if content(t, server) == firstServer || content(t, node) == firstNode {
		t.Error("certificates that end within 30 days were kept")
	}
	secondServer, secondNode := content(t, server), content(t, node)
	cfg.Hosts = append(cfg.Hosts, "console.example")
	open(t, cfg)
	if content(t, server) == secondServer || content(t, node) != secondNode {
		t.Error("another host must change the server's certificate and no other")
	}
	if err := os.RemoveAll(cfg.Directory); err != nil {
		t.Fatal(err)
	}
	open(t, cfg)
	if content(t, node) == secondNode {
		t.Error("node keeps a certificate of another authority")
	}
}

func TestSeveralNodesHaveDirectories(t *testing.T) {
	cfg := config(t)
	cfg.Enroll.Nodes = []string{"a", "b"}
	open(t, cfg)
	for _, node := range cfg.Enroll.Nodes {
		identity, err := mtls.OpenNode(filepath.Join(cfg.Enroll.Directory, node), "localhost")
		if err != nil || identity.Name != node {
			t.Errorf("OpenNode(%s) = %q, %v", node, identity.Name, err)
		}
	}
}

func TestPeopleAreNotAskedForCertificates(t *testing.T) {
	side := open(t, config(t)).People()
	if side.ClientAuth != tls.NoClientCert || side.MinVersion < tls.VersionTLS12 {
		t.Errorf("People() = %+v, want no client certificates and TLS 1.2", side)
	}
}

func TestCheckMakesNothingAndNamesFaults(t *testing.T) {
	cfg := config(t)
	if err := cfg.Check(); err != nil {
		t.Errorf("Check before the first start = %v, want nil", err)
	}
	if _, err := os.Stat(cfg.Directory); !os.IsNotExist(err) {
		t.Errorf("Check made %s", cfg.Directory)
	}
	open(t, cfg)
	for _, name := range []string{"ca.crt", "server.key"} {
		path := filepath.Join(cfg.Directory, name)
		good := content(t, path)
		write(t, path, "garbage", 0o600)
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), cfg.Directory) {
			t.Errorf("Check with a bad %s = %v, want an error that names it", name, err)
		}
		write(t, path, good, 0o600)
	}
	cfg.Enroll.Directory = "/nowhere"
	if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), "enroll.directory") {
		t.Errorf("Check without enroll.directory = %v, want an error that names it", err)
	}
	bad := Config{Enroll: Enroll{Directory: "relative", Nodes: []string{"../x"}}}.Validate()
	for _, key := range []string{"hosts:", "enroll.nodes:", "enroll.directory:"} {
		if bad == nil || !strings.Contains(bad.Error(), key) {
			t.Errorf("Validate = %v, want it to name %s", bad, key)
		}
	}
}

func write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}
