// Package account says who may see findings: one administrator with a password that is made at the first start, shown
// once, and kept only as a hash. It also keeps the sessions of those who have logged in, and slows down those who guess.
package account

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/palisade-sec/palisade/internal/statedir"
)

const (
	// User is the administrator's name.
	User = "admin"
	// PasswordLine is the one line, on standard output at the first start, that carries the password.
	PasswordLine = "palisade-console: admin password: %s\n"
	// hashFile holds the bcrypt hash. Without it the next start makes a new password.
	hashFile = "admin.hash"
	// bcryptCost takes some 50 ms. The password has 123 random bits: the hash alone is of no use to anybody.
	bcryptCost = 10
	// maxPasswordBytes is what bcrypt looks at.
	maxPasswordBytes = 72
	// parallelChecks bounds the processor time that strangers can use.
	parallelChecks = 2
	// rememberFor is how long a checked password need not be hashed again, for callers that send it with each call.
	rememberFor = time.Minute
)

// alphabet has no characters that look like another.
const alphabet = "23456789abcdefghjkmnpqrstuvwxyz"

// Accounts checks passwords. It is safe for concurrent use.
type Accounts struct {
	hash  []byte
	slots chan struct{}
	now   func() time.Time
	key   [sha256.Size]byte // of this process, for remembered

	mu         sync.Mutex
	remembered [sha256.Size]byte // guarded by mu; keyed hash of the last good password
	until      time.Time         // guarded by mu
}

// Open reads the password's hash from directory. At the first start it makes a password, writes PasswordLine to out,
// and then keeps the hash: a crash in between shows another password next time, never none.
func Open(directory string, out io.Writer) (*Accounts, error) {
	path := filepath.Join(directory, hashFile)
	hash, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		hash, err = create(path, out)
	}
	if err != nil {
		return nil, fmt.Errorf("administrator's password: %w", err)
	}
	a, err := parse(hash)
	if err != nil {
		return nil, fmt.Errorf("administrator's password: %s: %w: remove the file to get a new password", path, err)
	}
	return a, nil
}

// Check reports a hash that cannot be used, and makes nothing.
func Check(directory string) error {
	path := filepath.Join(directory, hashFile)
	hash, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = parse(hash)
	}
	if err != nil {
		return fmt.Errorf("administrator's password: %s: %w: remove the file to get a new password", path, err)
	}
	return nil
}

func parse(hash []byte) (*Accounts, error) {
	hash = []byte(strings.TrimSpace(string(hash)))
	if _, err := bcrypt.Cost(hash); err != nil {
		return nil, err
	}
	a := &Accounts{hash: hash, slots: make(chan struct{}, parallelChecks), now: time.Now}
	if _, err := rand.Read(a.key[:]); err != nil {
		return nil, err
	}
	return a, nil
}

func create(path string, out io.Writer) ([]byte, error) {
	password, err := newPassword()
	if err != nil {
		return nil, err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcryptCost)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(out, PasswordLine, password); err != nil {
		return nil, fmt.Errorf("show it: %w", err)
	}
	return hash, statedir.WriteFile(path, hash, 0o600)
}

// newPassword is five groups of five characters, 123 bits.
func newPassword() (string, error) {
	var out strings.Builder
	for i := range 25 {
		if i > 0 && i%5 == 0 {
			out.WriteByte('-')
		}
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return "", err
		}
		out.WriteByte(alphabet[n.Int64()])
	}
	return out.String(), nil
}

// Verify says whether user and password belong together. It takes as long for a user there is not. It returns ctx's
// error if too many wait.
func (a *Accounts) Verify(ctx context.Context, user, password string) (bool, error) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	known := subtle.ConstantTimeCompare([]byte(user), []byte(User)) == 1
	// A longer password is cut for the work and refused for its length.
	err := bcrypt.CompareHashAndPassword(a.hash, []byte(password[:min(len(password), maxPasswordBytes)]))
	if err != nil || !known || len(password) > maxPasswordBytes {
		return false, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.remembered, a.until = a.mark(user, password), a.now().Add(rememberFor)
	return true, nil
}

// Remembers says whether Verify has found the same right within the last minute, without the work.
func (a *Accounts) Remembers(user, password string) bool {
	mark := a.mark(user, password)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now().Before(a.until) && hmac.Equal(mark[:], a.remembered[:])
}

func (a *Accounts) mark(user, password string) (out [sha256.Size]byte) {
	mac := hmac.New(sha256.New, a.key[:])
	mac.Write([]byte(user + "\x00" + password))
	copy(out[:], mac.Sum(nil))
	return out
}
