package admit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/palisade-sec/palisade/internal/admission"
	"github.com/palisade-sec/palisade/internal/admission/kept"
)

// policies has the policy that is in force.
type policies struct {
	directory string
	store     *kept.Store
	log       *slog.Logger

	mu       sync.Mutex
	policy   *admission.Policy // nil if none is in force; guarded by mu
	bundle   *kept.Bundle      // of it, if it came from the directory; guarded by mu
	fault    error             // why what is in the directory is not in force; guarded by mu
	reported string            // the last fault that was logged; guarded by mu
}

// newPolicies begins with the policy that was in force last: what the directory has now may be faulty.
func newPolicies(ctx context.Context, directory string, store *kept.Store, log *slog.Logger) *policies {
	p := &policies{directory: directory, store: store, log: log}
	last, err := store.Policy()
	if err != nil && !errors.Is(err, kept.ErrNone) {
		log.WarnContext(ctx, "The admission policy that was in force last cannot be used", "err", err)
	}
	p.policy = last
	p.look(ctx)
	return p
}

// current is the policy in force, nil if there is none.
func (p *policies) current() *admission.Policy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.policy
}

// standing is the policy in force and why what is in the directory is not, nil if it is.
func (p *policies) standing() (*admission.Policy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.policy, p.fault
}

// look takes in what is in the directory. A policy that is faulty leaves the one in force as it is; one that is gone takes it away,
// unless policies have to be signed: an absence is not.
func (p *policies) look(ctx context.Context) {
	bundle, err := kept.ReadBundle(p.directory)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case errors.Is(err, kept.ErrNone):
		err = p.remove(ctx)
	case err == nil && p.bundle != nil && bytes.Equal(bundle.Text, p.bundle.Text) && bytes.Equal(bundle.Key, p.bundle.Key):
	case err == nil:
		if err = p.store.PutPolicy(bundle); err == nil {
			p.policy, p.bundle = bundle.Policy, bundle
			p.log.InfoContext(ctx, "An admission policy is in force", "rules", len(p.policy.Rules), "serial", p.policy.Serial, "dry_run", p.policy.DryRun)
		}
	}
	p.fault = err
	p.report(ctx)
}

// remove takes the policy out of force. p.mu is held.
func (p *policies) remove(ctx context.Context) error {
	if p.policy == nil {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(p.directory, kept.KeyName)); err == nil {
		return fmt.Errorf("%s is gone, and policies have to be signed here, which an absence is not", filepath.Join(p.directory, kept.PolicyName))
	}
	if err := p.store.RemovePolicy(); err != nil {
		return err
	}
	p.policy, p.bundle = nil, nil
	p.log.WarnContext(ctx, "There is no admission policy any more: every container is created", "directory", p.directory)
	return nil
}

// report logs a fault once. p.mu is held.
func (p *policies) report(ctx context.Context) {
	said := ""
	if p.fault != nil {
		said = p.fault.Error()
	}
	if said != p.reported && said != "" {
		p.log.ErrorContext(ctx, "The admission policy is not taken: the one before stays in force", "err", p.fault)
	}
	p.reported = said
}
