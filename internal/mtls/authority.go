// Package mtls makes and reads the certificates of the channel between nodes and console. The console is the only
// authority: it signs its own server certificate and the nodes' client certificates, and trusts nothing else.
package mtls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"path/filepath"
	"regexp"
	"time"

	"github.com/palisade-sec/palisade/internal/statedir"
)

// How long certificates last. Renewal is the console's and the uplink's job, well before the end.
const (
	authorityLifetime = 10 * 365 * 24 * time.Hour
	leafLifetime      = 365 * 24 * time.Hour
	// clockSkew is how far a node's clock may be behind.
	clockSkew = 5 * time.Minute
)

// nodeName is what may stand in a node's certificate: it ends up in logs, file names and pages.
var nodeName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$`)

// Authority signs certificates. It is safe for concurrent use.
type Authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	now         func() time.Time
}

// Pair is a certificate and its private key, both PEM.
type Pair struct {
	Certificate []byte
	Key         []byte
}

// OpenAuthority reads ca.crt and ca.key from directory, and makes both first if neither is there.
func OpenAuthority(directory string) (*Authority, error) {
	pair, err := readPair(directory, "ca")
	if errors.Is(err, fs.ErrNotExist) {
		return createAuthority(directory)
	}
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	return parseAuthority(pair)
}

func createAuthority(directory string) (*Authority, error) {
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: "Palisade console authority"},
		NotAfter:              time.Now().Add(authorityLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	pair, err := sign(template, nil, time.Now())
	if err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", err)
	}
	if err := WritePair(directory, "ca", pair, 0o600); err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", err)
	}
	return parseAuthority(pair)
}

func parseAuthority(pair Pair) (*Authority, error) {
	certificate, key, err := parsePair(pair)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	if !certificate.IsCA {
		return nil, errors.New("open certificate authority: ca.crt is not an authority's certificate")
	}
	return &Authority{certificate: certificate, key: key, now: time.Now}, nil
}

// Certificate is the authority's own certificate, PEM, for those who are to trust it.
func (a *Authority) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// IssueServer returns a server certificate for the hosts, names or IP addresses.
func (a *Authority) IssueServer(hosts ...string) (Pair, error) {
	template := x509.Certificate{
		Subject:     pkix.Name{CommonName: "palisade-console"},
		NotAfter:    a.now().Add(leafLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, host)
	}
	return sign(template, a, a.now())
}

// IssueNode returns a client certificate that makes its holder the node called name: letters, digits, dots, dashes
// and underscores, at most 63.
func (a *Authority) IssueNode(name string) (Pair, error) {
	if !nodeName.MatchString(name) {
		return Pair{}, fmt.Errorf("node name %q: want up to 63 letters, digits, dots, dashes or underscores", name)
	}
	return sign(x509.Certificate{
		Subject:     pkix.Name{CommonName: name, OrganizationalUnit: []string{nodeUnit}},
		NotAfter:    a.now().Add(leafLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a, a.now())
}

// nodeUnit marks a certificate as a node's (subject OU).
const nodeUnit = "palisade-node"

// NodeName is the name in a verified client certificate, or an error if it is not a node's.
func NodeName(certificate *x509.Certificate) (string, error) {
	units := certificate.Subject.OrganizationalUnit
	if len(units) != 1 || units[0] != nodeUnit || !nodeName.MatchString(certificate.Subject.CommonName) {
		return "", errors.New("certificate is not a node's")
	}
	return certificate.Subject.CommonName, nil
}

// sign makes a key and a certificate for it, signed by parent, or by itself if parent is nil.
func sign(template x509.Certificate, parent *Authority, now time.Time) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, fmt.Errorf("make serial number: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore = now.Add(-clockSkew)
	issuer, signer := &template, crypto.Signer(key)
	if parent != nil {
		issuer, signer = parent.certificate, parent.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, issuer, key.Public(), signer)
	if err != nil {
		return Pair{}, fmt.Errorf("sign certificate: %w", err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode key: %w", err)
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
	}, nil
}

// WritePair writes name.crt and name.key to directory; the key gets mode. Each file appears whole or not at all, the
// key first: whoever sees the certificate can use it.
func WritePair(directory, name string, pair Pair, mode fs.FileMode) error {
	if err := statedir.WriteFile(filepath.Join(directory, name+".key"), pair.Key, mode); err != nil {
		return err
	}
	return statedir.WriteFile(filepath.Join(directory, name+".crt"), pair.Certificate, 0o644)
}
