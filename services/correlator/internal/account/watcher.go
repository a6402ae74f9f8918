package account

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	gatev1 "github.com/palisade-sec/palisade/api/palisade/gate/v1"
	"github.com/palisade-sec/palisade/internal/periodic"
)

// Config says how to ask.
type Config struct {
	// Every is how often the gate is asked whether the files have changed.
	Every time.Duration `yaml:"every"`
	// Timeout bounds one call.
	Timeout time.Duration `yaml:"timeout"`
}

// DefaultConfig knows a new user after two seconds.
func DefaultConfig() Config { return Config{Every: 2 * time.Second, Timeout: 5 * time.Second} }

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if c.Every < 10*time.Millisecond || c.Every > time.Hour {
		errs = append(errs, fmt.Errorf("accounts.every: %v is not from 10ms to 1h", c.Every))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("accounts.timeout: %v is not positive", c.Timeout))
	}
	return errors.Join(errs...)
}

// Watcher asks the gate for the host's accounts.
type Watcher struct {
	cfg    Config
	client gatev1.AccountServiceClient
	tables chan *Table
	log    *slog.Logger

	known string // version of the table that was sent last; only Run's goroutine uses it

	mu    sync.Mutex
	table *Table // sent last, nil if none was; guarded by mu
	err   error  // of the last call; guarded by mu
}

// New returns a watcher that asks over a connection to the gate.
func New(cfg Config, gate grpc.ClientConnInterface, log *slog.Logger) *Watcher {
	return &Watcher{cfg: cfg, client: gatev1.NewAccountServiceClient(gate), tables: make(chan *Table), log: log}
}

// Tables is where a table arrives when the files have changed, the first at the start. It is never closed.
func (w *Watcher) Tables() <-chan *Table { return w.tables }

// State says for people who is known by name. Safe for concurrent use.
func (w *Watcher) State() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.table == nil && w.err != nil {
		return fmt.Sprintf("none, known by number only: %v", w.err)
	}
	if w.table == nil {
		return "not asked for yet"
	}
	users, groups := w.table.Len()
	text := fmt.Sprintf("%d users and %d groups have names", users, groups)
	if w.err != nil {
		text += fmt.Sprintf(", which may be old: %v", w.err)
	}
	return text
}

// Run asks until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	if err := w.look(ctx); err != nil {
		return err
	}
	return periodic.Run(ctx, w.cfg.Every, w.look)
}

// look takes in a change. That the gate does not answer ends nothing: names that are known stay.
func (w *Watcher) look(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	answer, err := w.client.ReadAccounts(call, &gatev1.ReadAccountsRequest{Known: w.known}, grpc.WaitForReady(true))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.mu.Lock()
	if err != nil && w.err == nil {
		w.log.WarnContext(ctx, "Cannot tell the host's users by name", "err", err)
	}
	w.err = err
	w.mu.Unlock()
	if err != nil || answer.GetVersion() == w.known {
		return nil
	}
	table := Parse(answer.GetPasswd(), answer.GetGroup())
	select {
	case w.tables <- table:
	case <-ctx.Done():
		return ctx.Err()
	}
	w.known = answer.GetVersion()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.table = table
	return nil
}
