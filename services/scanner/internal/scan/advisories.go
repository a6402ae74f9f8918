package scan

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/advisory"
	"github.com/palisade-sec/palisade/services/scanner/internal/child"
)

// Advisories is the store, opened anew when another one was imported. It is safe for concurrent use.
type Advisories struct {
	dir string
	mu  sync.RWMutex
	// store is nil until one could be opened. Guarded by mu.
	store *advisory.Store
}

// NewAdvisories is the store in a directory. It need not be there yet.
func NewAdvisories(dir string) *Advisories { return &Advisories{dir: dir} }

// Close closes the store.
func (a *Advisories) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.store == nil {
		return nil
	}
	err := a.store.Close()
	a.store = nil
	return err
}

// use calls f with the newest store, which stays open for as long. The error wraps advisory.ErrNone or advisory.ErrDamaged, or is f's.
func (a *Advisories) use(f func(*advisory.Store) error) error {
	if err := a.refresh(); err != nil {
		return err
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.store == nil {
		return advisory.ErrNone // closed in the meantime
	}
	return f(a.store)
}

// refresh opens the store if there is another than the one that is open. If that is gone, or cannot be opened, the open one is the best
// there is.
func (a *Advisories) refresh() error {
	a.mu.RLock()
	current := a.store != nil
	if current {
		replaced, err := a.store.Replaced()
		current = err != nil || !replaced
	}
	a.mu.RUnlock()
	if current {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	next, err := advisory.Open(a.dir)
	if err != nil && a.store != nil {
		return nil //nolint:nilerr // the old one is still open
	}
	if err != nil {
		return err
	}
	if a.store != nil {
		err = a.store.Close()
	}
	a.store = next
	return err
}

// match adds to what a scan found what the advisories say of it.
func (a *Advisories) match(ctx context.Context, scanned *scannerv1.Report) (found advisory.Matches, importedAt time.Time, err error) {
	err = a.use(func(s *advisory.Store) error {
		importedAt = s.Metadata().ImportedAt
		found, err = s.Match(ctx, scanned.GetPackages())
		return err
	})
	return found, importedAt, err
}

// importedAt is when the newest store was imported; the zero time if there is none.
func (a *Advisories) importedAt() (when time.Time, err error) {
	err = a.use(func(s *advisory.Store) error {
		when = s.Metadata().ImportedAt
		return nil
	})
	return when, err
}

// Describe is a line for people about the store.
func (a *Advisories) Describe() (line string, damaged bool) {
	err := a.use(func(s *advisory.Store) error {
		m := s.Metadata()
		line = fmt.Sprintf("%d, imported %s", m.Advisories, m.ImportedAt.UTC().Format(time.RFC3339))
		return nil
	})
	if errors.Is(err, advisory.ErrNone) {
		return "none: import some with `palisade vulndb import`", false
	}
	if err != nil {
		return err.Error(), true
	}
	return line, false
}

// Once scans layers and matches what is in them, for who keeps no reports.
func Once(ctx context.Context, cfg child.Config, advisories *Advisories, layers []string) (*scannerv1.Report, error) {
	if _, err := advisories.importedAt(); err != nil {
		return nil, err
	}
	report, err := child.Run(ctx, cfg, layers)
	if err != nil {
		return nil, err
	}
	found, importedAt, err := advisories.match(ctx, report)
	if err != nil {
		return nil, err
	}
	report.ScannedAt, report.AdvisoriesAt = timestamppb.Now(), timestamppb.New(importedAt)
	report.Vulnerabilities = found.Vulnerabilities
	report.Faults = append(report.Faults, found.Faults...)
	return report, nil
}
