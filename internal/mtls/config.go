package mtls

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// readPair reads name.crt and name.key. The error wraps fs.ErrNotExist only if both are absent: half a pair is a
// fault somebody must look at, not a reason to make a new one.
func readPair(directory, name string) (Pair, error) {
	certificate, certErr := os.ReadFile(filepath.Join(directory, name+".crt"))
	key, keyErr := os.ReadFile(filepath.Join(directory, name+".key"))
	if errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist) {
		return Pair{}, certErr
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return Pair{}, fmt.Errorf("read certificate %s: %s", name, err) //nolint:errorlint // see above
	}
	return Pair{Certificate: certificate, Key: key}, nil
}

func parsePair(pair Pair) (*x509.Certificate, crypto.Signer, error) {
	both, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("parse certificate: %w", err)
	}
	signer, ok := both.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("parse certificate: key cannot sign")
	}
	return both.Leaf, signer, nil
}

// LoadPair reads name.crt and name.key for use in TLS. The error names the file.
func LoadPair(directory, name string) (tls.Certificate, error) {
	base := filepath.Join(directory, name)
	pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load certificate %s.crt and its key: %w", base, err)
	}
	return pair, nil
}

// Keypair is a Pair for use in TLS.
func (p Pair) Keypair() (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(p.Certificate, p.Key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("parse certificate: %w", err)
	}
	return pair, nil
}

// NodeSide is the console's end of the channel on 8084: TLS 1.3, and no application byte before the other side has
// shown a certificate that the authority signed for a node.
func NodeSide(server tls.Certificate, authority []byte) (*tls.Config, error) {
	pool, err := poolOf(authority)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{server},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		NextProtos:   []string{"h2"},
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := NodeName(state.PeerCertificates[0])
			return err
		},
	}, nil
}

// ConsoleSide is the node's end: it shows the node's certificate and believes only a server that the same authority
// certified for serverName.
func ConsoleSide(node tls.Certificate, authority []byte, serverName string) (*tls.Config, error) {
	pool, err := poolOf(authority)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{node},
		RootCAs:      pool,
		ServerName:   serverName,
	}, nil
}

func poolOf(authority []byte) (*x509.CertPool, error) {
	block, _ := pem.Decode(authority)
	if block == nil {
		return nil, errors.New("parse authority: no PEM certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return pool, nil
}
