package mtls

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// NodeIdentity is what a node shows to the console and whom it believes there.
type NodeIdentity struct {
	// Name of the node, from its certificate.
	Name string
	// NotAfter is when the certificate ends.
	NotAfter time.Time
	// Fingerprint changes when one of the files does.
	Fingerprint [sha256.Size]byte
	// TLS is the node's end of the channel.
	TLS *tls.Config
}

// OpenNode reads ca.crt, node.crt and node.key from directory. The error names the file; it wraps fs.ErrNotExist if
// one is not there (yet).
func OpenNode(directory, serverName string) (NodeIdentity, error) {
	files := map[string][]byte{"ca.crt": nil, "node.crt": nil, "node.key": nil}
	for name := range files {
		raw, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			return NodeIdentity{}, fmt.Errorf("read node certificate: %w", err)
		}
		files[name] = raw
	}
	fault := func(name string, err error) (NodeIdentity, error) {
		return NodeIdentity{}, fmt.Errorf("node certificate %s: %w", filepath.Join(directory, name), err)
	}
	pair, err := Pair{Certificate: files["node.crt"], Key: files["node.key"]}.Keypair()
	if err != nil {
		return fault("node.crt and node.key", err)
	}
	name, err := NodeName(pair.Leaf)
	if err != nil {
		return fault("node.crt", err)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return fault("node.crt", fmt.Errorf("expired at %s", pair.Leaf.NotAfter.Format(time.RFC3339)))
	}
	channel, err := ConsoleSide(pair, files["ca.crt"], serverName)
	if err != nil {
		return fault("ca.crt", err)
	}
	sum := sha256.Sum256(bytes.Join([][]byte{files["ca.crt"], files["node.crt"], files["node.key"]}, []byte{0}))
	return NodeIdentity{Name: name, NotAfter: pair.Leaf.NotAfter, Fingerprint: sum, TLS: channel}, nil
}

// Missing says whether err means that a certificate is not there yet, not that it is bad.
func Missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// CheckNodeName reports a name that no certificate may carry.
func CheckNodeName(name string) error {
	if !nodeName.MatchString(name) {
		return fmt.Errorf("node name %q: want up to 63 letters, digits, dots, dashes or underscores", name)
	}
	return nil
}

// ParseCertificate reads one PEM certificate.
func ParseCertificate(raw []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("parse certificate: no PEM certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	return certificate, nil
}
