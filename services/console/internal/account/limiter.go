package account

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// burst is how many wrong passwords an address may send at once, refill how long until it may send one more.
	burst  = 5
	refill = 10 * time.Second
	// maxAddresses bounds memory. Beyond it, strangers share one allowance.
	maxAddresses = 4096
)

// Limiter slows down guessing, per address: an IPv4 address, or an IPv6 /64, which is one customer. Only wrong
// passwords count. It is safe for concurrent use.
type Limiter struct {
	now func() time.Time

	mu      sync.Mutex
	buckets map[netip.Prefix]bucket // guarded by mu
	swept   time.Time               // guarded by mu
}

type bucket struct {
	tokens float64
	at     time.Time
}

// NewLimiter returns a limiter that has seen nobody.
func NewLimiter(now func() time.Time) *Limiter {
	return &Limiter{now: now, buckets: map[netip.Prefix]bucket{}}
}

// Take uses one of the address's attempts; wait is how long until there is one if there is none.
func (l *Limiter) Take(address netip.Addr) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := l.key(address)
	b := l.current(key)
	if b.tokens < 1 {
		return time.Duration((1 - b.tokens) * float64(refill)), false
	}
	b.tokens--
	l.buckets[key] = b
	return 0, true
}

// Return gives an attempt back: the password was right.
func (l *Limiter) Return(address netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := l.key(address)
	b := l.current(key)
	b.tokens = min(b.tokens+1, burst)
	l.buckets[key] = b
}

func (l *Limiter) current(key netip.Prefix) bucket {
	now := l.now()
	b, ok := l.buckets[key]
	if !ok {
		return bucket{tokens: burst, at: now}
	}
	b.tokens = min(b.tokens+float64(now.Sub(b.at))/float64(refill), burst)
	b.at = now
	return b
}

// key is where an address's attempts are counted.
func (l *Limiter) key(address netip.Addr) netip.Prefix {
	address = address.Unmap()
	bits := 32
	if address.Is6() {
		bits = 64
	}
	prefix, err := address.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	if _, known := l.buckets[prefix]; !known && len(l.buckets) >= maxAddresses {
		l.forget()
		if len(l.buckets) >= maxAddresses {
			return netip.Prefix{}
		}
	}
	return prefix
}

// forget drops those that have all their attempts again, at most once a second: strangers must not make it work.
func (l *Limiter) forget() {
	now := l.now()
	if now.Sub(l.swept) < time.Second {
		return
	}
	l.swept = now
	for key := range l.buckets {
		if l.current(key).tokens >= burst {
			delete(l.buckets, key)
		}
	}
}
