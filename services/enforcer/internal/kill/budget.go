package kill

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxRules bounds the limiters kept; a node has some hundred rules. Further ones share one limiter.
const maxRules = 4096

// budget bounds kills, so that a wrong rule, or a captured correlator, cannot empty a node.
type budget struct {
	perRule int

	mu sync.Mutex
	// total and rules are guarded by mu, since a kill takes from both or from neither.
	total *rate.Limiter
	rules map[string]*rate.Limiter
}

func newBudget(cfg Config) *budget {
	return &budget{perRule: cfg.PerRule, total: perMinute(cfg.Total), rules: map[string]*rate.Limiter{}}
}

// perMinute allows n at once, and n each minute in the long run.
func perMinute(n int) *rate.Limiter {
	return rate.NewLimiter(rate.Every(time.Minute/time.Duration(n)), n)
}

// take spends one kill, or says which budget is spent.
func (b *budget) take(rule string, now time.Time) (spent string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	limiter := b.limiter(rule)
	if limiter.TokensAt(now) < 1 {
		return "budget of the rule is spent (kill.per_rule_per_minute)"
	}
	if !b.total.AllowN(now, 1) {
		return "budget of the node is spent (kill.total_per_minute)"
	}
	limiter.AllowN(now, 1)
	return ""
}

func (b *budget) limiter(rule string) *rate.Limiter {
	if limiter, ok := b.rules[rule]; ok {
		return limiter
	}
	if len(b.rules) >= maxRules {
		rule = "" // no rule has an empty name: Kill refuses such a request
		if limiter, ok := b.rules[rule]; ok {
			return limiter
		}
	}
	limiter := perMinute(b.perRule)
	b.rules[rule] = limiter
	return limiter
}
