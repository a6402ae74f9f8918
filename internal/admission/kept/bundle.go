package kept

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/palisade-sec/palisade/internal/admission"
)

// What a directory with a policy of people's holds.
const (
	PolicyName = "policy.yaml"
	// SignatureName is the file of the Ed25519 signature over PolicyName's content (RFC 8032), 64 bytes, as
	// `openssl pkeyutl -sign -rawin -inkey KEY -in policy.yaml -out policy.sig` writes it.
	SignatureName = "policy.sig"
	// KeyName is the file of the public key that must have signed, in PEM (RFC 7468), as `openssl pkey -pubout` writes it. While it is there
	// no other policy counts.
	KeyName = "policy.pub"
)

const (
	maxPolicyBytes = 4 << 20
	maxKeyBytes    = 4 << 10
	// maxBundleBytes is for the base64 of a policy's bytes, too.
	maxBundleBytes = maxPolicyBytes*4/3 + 64<<10
)

// ErrUnsigned says that a policy has no signature and has to have one.
var ErrUnsigned = errors.New("the policy has to be signed")

// ErrSignature says that a policy is not what was signed, or that another key has signed.
var ErrSignature = errors.New("the policy's signature does not hold")

// Bundle is a policy with the proof of where it comes from.
type Bundle struct {
	Text []byte `json:"text"`
	// Signature and Key are empty if the policy does not have to be signed. Key is PEM.
	Signature []byte `json:"signature,omitempty"`
	Key       []byte `json:"key,omitempty"`
	// Policy is what the text says.
	Policy *admission.Policy `json:"-"`
}

// ReadBundle reads a directory with a policy of people's. The error is ErrNone if there is none, ErrUnsigned, ErrSignature, or names the
// fault's file and line.
func ReadBundle(directory string) (*Bundle, error) {
	if err := ownedByRoot(directory); err != nil {
		return nil, err
	}
	b := &Bundle{}
	var err error
	for _, file := range []struct {
		name     string
		into     *[]byte
		most     int64
		optional bool
	}{
		{name: PolicyName, into: &b.Text, most: maxPolicyBytes},
		{name: SignatureName, into: &b.Signature, most: maxKeyBytes, optional: true},
		{name: KeyName, into: &b.Key, most: maxKeyBytes, optional: true},
	} {
		*file.into, err = readRoots(filepath.Join(directory, file.name), file.most)
		if err != nil && (!file.optional || !errors.Is(err, ErrNone)) {
			return nil, err
		}
	}
	return b, b.check(filepath.Join(directory, PolicyName))
}

func parseBundle(path string, raw []byte) (*Bundle, error) {
	raw, err := unseal(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b := &Bundle{}
	if err := json.Unmarshal(raw, b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, b.check(path)
}

func (b *Bundle) marshal() ([]byte, error) { return json.Marshal(b) }

// check parses the text, once it is known to be what was signed.
func (b *Bundle) check(path string) (err error) {
	if len(b.Key) > 0 {
		if err := verify(b.Key, b.Text, b.Signature); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	b.Policy, err = admission.Parse(path, b.Text)
	return err
}

func verify(key, text, signature []byte) error {
	block, rest := pem.Decode(key)
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 {
		return fmt.Errorf("%s: it is no public key in PEM", KeyName)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s: %w", KeyName, err)
	}
	public, ok := parsed.(ed25519.PublicKey)
	switch {
	case !ok:
		return fmt.Errorf("%s: it is a %T, want Ed25519", KeyName, parsed)
	case len(signature) == 0:
		return fmt.Errorf("%w: there is no %s", ErrUnsigned, SignatureName)
	case len(signature) != ed25519.SignatureSize || !ed25519.Verify(public, text, signature):
		return ErrSignature
	}
	return nil
}
