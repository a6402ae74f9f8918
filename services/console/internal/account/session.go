package account

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"
)

const (
	// SessionLifetime is how long a login lasts.
	SessionLifetime = 12 * time.Hour
	// maxSessions bounds memory; the one that ends first goes first.
	maxSessions = 1000
)

// Sessions are who is logged in. They live in memory: a restart logs everybody out. It keeps hashes, so that its
// memory opens nothing. It is safe for concurrent use.
type Sessions struct {
	now func() time.Time

	mu   sync.Mutex
	ends map[[sha256.Size]byte]time.Time // guarded by mu
}

// NewSessions returns an empty set.
func NewSessions(now func() time.Time) *Sessions {
	return &Sessions{now: now, ends: map[[sha256.Size]byte]time.Time{}}
}

// Begin returns the token of a new session: 256 random bits.
func (s *Sessions) Begin() (token string, err error) {
	var raw [32]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", err
	}
	token = base64.RawURLEncoding.EncodeToString(raw[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoom()
	s.ends[sha256.Sum256([]byte(token))] = s.now().Add(SessionLifetime)
	return token, nil
}

// Valid says whether the token's session goes on.
func (s *Sessions) Valid(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ends, ok := s.ends[sha256.Sum256([]byte(token))]
	return ok && s.now().Before(ends)
}

// End ends a session.
func (s *Sessions) End(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ends, sha256.Sum256([]byte(token)))
}

// makeRoom drops what has ended and, if that is not enough, the session that ends first.
func (s *Sessions) makeRoom() {
	var first [sha256.Size]byte
	var earliest time.Time
	for hash, ends := range s.ends {
		if !s.now().Before(ends) {
			delete(s.ends, hash)
			continue
		}
		if earliest.IsZero() || ends.Before(earliest) {
			first, earliest = hash, ends
		}
	}
	if len(s.ends) >= maxSessions {
		delete(s.ends, first)
	}
}
