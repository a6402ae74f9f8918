package admit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/internal/runcshim/standing"
)

// shim follows where the shim stands, which somebody else watches who sees all of the host.
type shim struct {
	directory string
	outbox    outbox
	log       *slog.Logger

	mu    sync.Mutex
	state standing.State // guarded by mu
	err   error          // why it is not known; guarded by mu
}

// look takes in what the watcher wrote down.
func (s *shim) look(ctx context.Context) {
	state, err := standing.Read(s.directory, time.Now())
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, standing.ErrStale) {
		s.log.DebugContext(ctx, "It is not known where the shim stands", "err", err)
	}
	s.mu.Lock()
	changed := !state.Time.Equal(s.state.Time) || (err == nil) != (s.err == nil)
	s.state, s.err = state, err
	s.mu.Unlock()
	if !changed {
		return
	}
	places := make([]*correlatorv1.ShimPlace, len(state.Places))
	for i, place := range state.Places {
		places[i] = &correlatorv1.ShimPlace{Path: place.Path, Engines: place.Engines, Covered: place.Covered}
	}
	s.outbox.ReportShim(state.InForce(), places)
}

// String is for people.
func (s *shim) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	covered := 0
	for _, place := range s.state.Places {
		if place.Covered {
			covered++
		}
	}
	switch {
	case errors.Is(s.err, fs.ErrNotExist):
		return standing.ErrStale.Error()
	case s.err != nil:
		return s.err.Error()
	case covered == 0:
		return "not installed"
	}
	return fmt.Sprintf("in the place of %d of %d runtimes", covered, len(s.state.Places))
}
