// Package certificate keeps the console's certificates: its authority, its own server certificate, and those of the
// nodes on the same machine, which it hands over in a directory. It makes what is missing and renews what ends.
package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/palisade-sec/palisade/internal/mtls"
	"github.com/palisade-sec/palisade/internal/periodic"
	"github.com/palisade-sec/palisade/internal/statedir"
)

const (
	// renewBefore is how long before its end a certificate is replaced.
	renewBefore = 30 * 24 * time.Hour
	// renewEvery is how often ends are looked at.
	renewEvery = time.Hour
	serverName = "server"
	nodeName   = "node"
)

// Enroll says which nodes get their certificates from a directory on this machine.
type Enroll struct {
	// Directory must be there. One node's ca.crt, node.crt and node.key are put right into it; of several nodes each
	// has a directory of its name below it. A set-group-id bit on it decides who may read the keys (mode 0640).
	Directory string   `yaml:"directory"`
	Nodes     []string `yaml:"nodes"`
}

// Config says where certificates are and for whom.
type Config struct {
	// Directory is below the state directory.
	Directory string
	// Hosts are the names and addresses the server certificate is for.
	Hosts  []string
	Enroll Enroll
}

// Keeper holds the certificates in use.
type Keeper struct {
	cfg       Config
	log       *slog.Logger
	now       func() time.Time
	authority *mtls.Authority
	root      *x509.Certificate
	server    atomic.Pointer[tls.Certificate]
}

// Open reads the certificates, and makes those that are missing, end soon or are for others. Errors name the file.
func Open(cfg Config, log *slog.Logger) (*Keeper, error) {
	if err := os.MkdirAll(cfg.Directory, 0o700); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	authority, err := mtls.OpenAuthority(cfg.Directory)
	if err != nil {
		return nil, fmt.Errorf("certificates in %s: %w", cfg.Directory, err)
	}
	k := &Keeper{cfg: cfg, log: log, now: time.Now, authority: authority}
	pool, err := mtls.ParseCertificate(authority.Certificate())
	if err != nil {
		return nil, err
	}
	k.root = pool
	return k, k.renew()
}

// Run renews certificates until ctx ends. A renewal that fails is logged and tried again.
func (k *Keeper) Run(ctx context.Context) error {
	return periodic.Run(ctx, renewEvery, func(ctx context.Context) error {
		if err := k.renew(); err != nil {
			k.log.ErrorContext(ctx, "Could not renew certificates", "err", err)
		}
		return nil
	})
}

// Nodes is the TLS side of 8084: nothing is answered before a node has shown its certificate.
func (k *Keeper) Nodes() (*tls.Config, error) {
	config, err := mtls.NodeSide(*k.server.Load(), k.authority.Certificate())
	if err != nil {
		return nil, err
	}
	config.Certificates, config.GetCertificate = nil, k.serve
	return config, nil
}

// People is the TLS side of 8083. It does not ask for a certificate: a node's opens nothing there.
func (k *Keeper) People() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: k.serve, ClientAuth: tls.NoClientCert}
}

func (k *Keeper) serve(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.server.Load(), nil }

func (k *Keeper) renew() error {
	errs := []error{k.renewServer()}
	for _, node := range k.cfg.Enroll.Nodes {
		if err := k.renewNode(node); err != nil {
			errs = append(errs, fmt.Errorf("enroll node %s: %w", node, err))
		}
	}
	return errors.Join(errs...)
}

func (k *Keeper) renewServer() error {
	pair, err := mtls.LoadPair(k.cfg.Directory, serverName)
	if err == nil && k.good(pair.Leaf) && slices.Equal(hostsOf(pair.Leaf), normal(k.cfg.Hosts)) {
		k.server.Store(&pair)
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("Replaced a server certificate that cannot be read", "err", err)
	}
	fresh, err := k.authority.IssueServer(k.cfg.Hosts...)
	if err != nil {
		return fmt.Errorf("server certificate: %w", err)
	}
	if err := mtls.WritePair(k.cfg.Directory, serverName, fresh, 0o600); err != nil {
		return fmt.Errorf("server certificate: %w", err)
	}
	pair, err = fresh.Keypair()
	if err != nil {
		return fmt.Errorf("server certificate: %w", err)
	}
	k.server.Store(&pair)
	k.log.Info("Issued a server certificate", "hosts", k.cfg.Hosts)
	return nil
}

func (k *Keeper) renewNode(node string) error {
	directory := k.cfg.Enroll.directoryOf(node)
	if directory != k.cfg.Enroll.Directory {
		if err := os.Mkdir(directory, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	known, err := os.ReadFile(filepath.Join(directory, "ca.crt"))
	if err == nil && bytes.Equal(known, k.authority.Certificate()) {
		pair, err := mtls.LoadPair(directory, nodeName)
		if err == nil && k.good(pair.Leaf) && pair.Leaf.Subject.CommonName == node {
			return nil
		}
	}
	fresh, err := k.authority.IssueNode(node)
	if err != nil {
		return err
	}
	// The node's certificate comes last: who sees it can use all three.
	if err := statedir.WriteFile(filepath.Join(directory, "ca.crt"), k.authority.Certificate(), 0o644); err != nil {
		return err
	}
	if err := mtls.WritePair(directory, nodeName, fresh, 0o640); err != nil {
		return err
	}
	k.log.Info("Issued a node certificate", "node", node, "directory", directory)
	return nil
}

// good says whether a certificate is ours and lasts long enough.
func (k *Keeper) good(leaf *x509.Certificate) bool {
	return leaf.CheckSignatureFrom(k.root) == nil && k.now().Add(renewBefore).Before(leaf.NotAfter)
}

func (e Enroll) directoryOf(node string) string {
	if len(e.Nodes) == 1 {
		return e.Directory
	}
	return filepath.Join(e.Directory, node)
}

// hostsOf lists what a certificate is for, in the form of normal.
func hostsOf(leaf *x509.Certificate) []string {
	hosts := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return normal(hosts)
}
