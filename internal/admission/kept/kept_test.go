package kept

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
)

const text = "version: 1\nserial: %d\nrules:\n  - name: all\n    trusted: {effect: block, images: [registry.example/*]}\n"

func policyText(serial int) []byte { return fmt.Appendf(nil, text, serial) }

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root's files count")
	}
}

func open(t *testing.T) (*Store, string) {
	t.Helper()
	requireRoot(t)
	directory := filepath.Join(t.TempDir(), "kept")
	store, err := Open(directory)
	if err != nil {
		t.Fatal(err)
	}
	return store, directory
}

func write(t *testing.T, directory, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(directory, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// source is a directory with a policy of people's.
func source(t *testing.T, policy []byte) string {
	t.Helper()
	requireRoot(t)
	directory := t.TempDir()
	if err := os.Chmod(directory, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, directory, PolicyName, policy)
	return directory
}

func sign(t *testing.T, directory string, policy []byte) ed25519.PrivateKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	write(t, directory, KeyName, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	write(t, directory, SignatureName, ed25519.Sign(private, policy))
	return private
}

func TestImagesAreFoundByTheirLayers(t *testing.T) {
	store, directory := open(t)
	key := Key([]string{"/layers/2", "/layers/1"})
	if _, err := store.Image(key); !errors.Is(err, ErrNone) {
		t.Errorf("Image() of nothing = %v, want %v", err, ErrNone)
	}
	want := &enforcerv1.KnownImage{Image: "a:1", Digest: "sha256:0", DiffIds: []string{"x"}}
	if err := store.PutImage(key, want); err != nil {
		t.Fatal(err)
	}
	reader, err := Look(directory)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := reader.Image(key); err != nil || !proto.Equal(got, want) {
		t.Errorf("Image() = %v, %v, want %v", got, err, want)
	}
	for _, other := range [][]string{{"/layers/1", "/layers/2"}, {"/layers/2/layers/1"}, {"/layers/2"}, nil} {
		if Key(other) == key {
			t.Errorf("Key(%q) is that of other layers", other)
		}
	}
	path := filepath.Join(directory, imagesName, key)
	if err := os.Truncate(path, 40); err != nil {
		t.Fatal(err)
	}
	if got, err := reader.Image(key); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Image() of a file that was cut off = %v, %v, want an error that names it", got, err)
	}
	if err := store.PutImage("../../escaped", want); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(directory, imagesName, "escaped")); err != nil {
		t.Errorf("a key leads out of the directory: %v", err)
	}
}

func TestTheOldestImagesGo(t *testing.T) {
	store, directory := open(t)
	images := filepath.Join(directory, imagesName)
	for i := range maxImages {
		name := fmt.Sprint(i)
		write(t, images, name, nil)
		at := time.Unix(int64(1_000_000+i), 0)
		if err := os.Chtimes(filepath.Join(images, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.PutImage("new", &enforcerv1.KnownImage{}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(images)
	if err != nil || len(entries) != maxImages-spare+1 {
		t.Errorf("%d images, %v, want %d", len(entries), err, maxImages-spare+1)
	}
	for name, want := range map[string]bool{"0": false, fmt.Sprint(spare - 1): false, fmt.Sprint(spare): true, fmt.Sprint(maxImages - 1): true, "new": true} {
		if _, err := os.Stat(filepath.Join(images, name)); (err == nil) != want {
			t.Errorf("image %s: %v, want it there: %v", name, err, want)
		}
	}
}

func TestAPolicyIsNeverRolledBack(t *testing.T) {
	store, directory := open(t)
	if _, err := store.Policy(); !errors.Is(err, ErrNone) {
		t.Errorf("Policy() of nothing = %v, want %v", err, ErrNone)
	}
	for _, step := range []struct {
		serial int
		want   error
	}{{serial: 2}, {serial: 2}, {serial: 1, want: ErrRollback}, {serial: 3}} {
		b, err := ReadBundle(source(t, policyText(step.serial)))
		if err != nil {
			t.Fatal(err)
		}
		if err := store.PutPolicy(b); !errors.Is(err, step.want) {
			t.Errorf("PutPolicy(serial %d) = %v, want %v", step.serial, err, step.want)
		}
	}
	if policy, err := store.Policy(); err != nil || policy.Serial != 3 {
		t.Errorf("Policy() = %+v, %v, want serial 3", policy, err)
	}
	raw, err := os.ReadFile(filepath.Join(directory, bundleName))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"cut off": raw[:len(raw)-1], "changed": append(raw[:len(raw)-1:len(raw)-1], raw[len(raw)-1]^1), "empty": nil} {
		write(t, directory, bundleName, content)
		if policy, err := store.Policy(); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: Policy() = %+v, %v, want an error", name, policy, err)
		}
	}
	if err := errors.Join(store.RemovePolicy(), store.RemovePolicy()); err != nil {
		t.Errorf("RemovePolicy() = %v", err)
	}
}

func TestWhereAKeyIsOnlySignedPoliciesCount(t *testing.T) {
	policy := policyText(1)
	directory := source(t, policy)
	private := sign(t, directory, policy)
	good, err := ReadBundle(directory)
	if err != nil {
		t.Fatal(err)
	}
	write(t, directory, PolicyName, policyText(2))
	if _, err := ReadBundle(directory); !errors.Is(err, ErrSignature) {
		t.Errorf("ReadBundle() of another text = %v, want %v", err, ErrSignature)
	}
	write(t, directory, SignatureName, ed25519.Sign(private, policyText(2))[:63])
	if _, err := ReadBundle(directory); !errors.Is(err, ErrSignature) {
		t.Errorf("ReadBundle() of a signature that is cut off = %v, want %v", err, ErrSignature)
	}
	if err := os.Remove(filepath.Join(directory, SignatureName)); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadBundle(directory); !errors.Is(err, ErrUnsigned) {
		t.Errorf("ReadBundle() without a signature = %v, want %v", err, ErrUnsigned)
	}
	store, _ := open(t)
	if err := store.PutPolicy(good); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Policy(); err != nil {
		t.Errorf("Policy() = %v", err)
	}
	unsigned, err := ReadBundle(source(t, policyText(9)))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.PutPolicy(unsigned); !errors.Is(err, ErrUnsigned) {
		t.Errorf("PutPolicy() of an unsigned one over a signed one = %v, want %v", err, ErrUnsigned)
	}
}

// The documented commands make what is read.
func TestOpensslSigns(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl on this machine")
	}
	directory := source(t, policyText(1))
	for _, args := range [][]string{
		{"genpkey", "-algorithm", "ed25519", "-out", "key"},
		{"pkey", "-in", "key", "-pubout", "-out", KeyName},
		{"pkeyutl", "-sign", "-rawin", "-inkey", "key", "-in", PolicyName, "-out", SignatureName},
	} {
		cmd := exec.Command("openssl", args...)
		cmd.Dir = directory
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v: %s", args, err, out)
		}
	}
	if err := os.Chmod(filepath.Join(directory, KeyName), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadBundle(directory); err != nil {
		t.Errorf("ReadBundle() = %v", err)
	}
}

func TestOnlyRootsFilesCount(t *testing.T) {
	for name, spoil := range map[string]func(directory string) error{
		"writable file":      func(d string) error { return os.Chmod(filepath.Join(d, PolicyName), 0o666) },
		"another's file":     func(d string) error { return os.Chown(filepath.Join(d, PolicyName), 1, 1) },
		"writable directory": func(d string) error { return os.Chmod(d, 0o777) },
		"link": func(d string) error {
			return errors.Join(os.Rename(filepath.Join(d, PolicyName), filepath.Join(d, "x")), os.Symlink("x", filepath.Join(d, PolicyName)))
		},
		"directory": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, PolicyName)), os.Mkdir(filepath.Join(d, PolicyName), 0o700))
		},
		"too large": func(d string) error { return os.Truncate(filepath.Join(d, PolicyName), maxPolicyBytes+1) },
	} {
		directory := source(t, policyText(1))
		if err := spoil(directory); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadBundle(directory); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: ReadBundle() = %v, want an error", name, err)
		}
	}
	if _, err := ReadBundle(filepath.Join(t.TempDir(), "nowhere")); !errors.Is(err, ErrNone) {
		t.Errorf("ReadBundle() of no directory = %v, want %v", err, ErrNone)
	}
}

func FuzzBundle(f *testing.F) {
	b := &Bundle{Text: policyText(1)}
	raw, err := b.marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"text":"","key":"LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KLS0tLS1FTkQgUFVCTElDIEtFWS0tLS0tCg=="}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if b, err := parseBundle("f", seal(raw)); err == nil && b.Policy == nil {
			t.Errorf("parseBundle(%q) is no error and no policy", raw)
		}
		if content, err := unseal(raw); err == nil && len(content) != len(raw)-sealBytes {
			t.Errorf("unseal(%q) = %q", raw, content)
		}
	})
}
