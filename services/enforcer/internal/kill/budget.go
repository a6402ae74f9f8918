package kill

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxShares bounds the limiters kept. Only a kill makes one, and an idle one is forgotten, so the default total
	// never comes near it. Further rules and containers share one limiter.
	maxShares = 4096
	// idle is how long a limiter takes to be full again, whatever its size.
	idle = time.Minute
)

// share is whose budget a kill is taken from. The container is in it so that one container cannot spend with trivial
// offenders what is to end the offender in another.
type share struct{ rule, container string }

// budget bounds kills, so that a wrong rule, or a captured correlator, cannot empty a node.
type budget struct {
	perShare int

	mu sync.Mutex
	// What follows is guarded by mu, since a kill takes from its share and from the total, or from neither.
	total  *rate.Limiter
	shares map[share]*rate.Limiter
	swept  time.Time
}

func newBudget(cfg Config) *budget {
	return &budget{perShare: cfg.PerRule, total: perMinute(cfg.Total), shares: map[share]*rate.Limiter{}}
}

// perMinute allows n at once, and n each minute in the long run.
func perMinute(n int) *rate.Limiter {
	return rate.NewLimiter(rate.Every(time.Minute/time.Duration(n)), n)
}

// take spends one kill, or says which budget is spent.
func (b *budget) take(of share, now time.Time) (spent string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	of, limiter := b.limiter(of, now)
	if limiter.TokensAt(now) < 1 {
		return "budget of the rule in this container is spent (kill.per_rule_per_minute)"
	}
	if !b.total.AllowN(now, 1) {
		return "budget of the node is spent (kill.total_per_minute)"
	}
	limiter.AllowN(now, 1)
	b.shares[of] = limiter // only now: what killed nothing is not worth remembering
	return ""
}

// limiter returns the limiter for a share, which is not kept yet if it is new, and the share it is to be kept under.
func (b *budget) limiter(of share, now time.Time) (share, *rate.Limiter) {
	b.sweep(now)
	if limiter, ok := b.shares[of]; ok {
		return of, limiter
	}
	if len(b.shares) >= maxShares {
		of = share{} // no rule has an empty name: Kill refuses such a request
		if limiter, ok := b.shares[of]; ok {
			return of, limiter
		}
	}
	return of, perMinute(b.perShare)
}

// sweep forgets, once in a while, the limiters that are full: new ones would allow the same.
func (b *budget) sweep(now time.Time) {
	if now.Sub(b.swept) < idle {
		return
	}
	b.swept = now
	for of, limiter := range b.shares {
		if limiter.TokensAt(now) >= float64(b.perShare) {
			delete(b.shares, of)
		}
	}
}
