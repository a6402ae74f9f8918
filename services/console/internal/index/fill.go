package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/periodic"
	"github.com/palisade-sec/palisade/services/console/internal/journal"
)

// Run fills the index as findings come, until ctx ends. A broken database is replaced and filled from the start.
func (x *Index) Run(ctx context.Context) error {
	for {
		err := x.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		x.log.ErrorContext(ctx, "Could not fill the index", "err", err)
		if corrupt(err) || errors.Is(err, errForeign) {
			err = x.replace(ctx)
			if err != nil {
				x.log.ErrorContext(ctx, "Could not rebuild the index", "err", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryWait):
		}
	}
}

func (x *Index) replace(ctx context.Context) error {
	state, err := x.journal.State(ctx)
	if err != nil {
		return err
	}
	return x.rebuild(ctx, state.ID)
}

func (x *Index) follow(ctx context.Context) error {
	state, err := x.journal.State(ctx)
	if err != nil {
		return err
	}
	x.mu.RLock()
	after, err := x.place(ctx, state.ID)
	x.mu.RUnlock()
	if err != nil {
		return err
	}
	return x.journal.Follow(ctx, after, func(records []journal.Record) error { return x.insert(ctx, records) })
}

// insert stores records and the new place together.
func (x *Index) insert(ctx context.Context, records []journal.Record) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	tx, err := x.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	statement, err := tx.PrepareContext(ctx,
		`INSERT INTO finding (node, id, sequence, time_ns, pending, raw) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (node, id) DO UPDATE SET sequence = excluded.sequence, time_ns = excluded.time_ns, pending = 0, raw = excluded.raw
		WHERE finding.pending AND NOT excluded.pending`)
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	defer statement.Close()
	for _, record := range records {
		if err := insertOne(ctx, statement, record); err != nil {
			return fmt.Errorf("write index: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, "UPDATE place SET sequence = ?", records[len(records)-1].Sequence); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

func insertOne(ctx context.Context, statement *sql.Stmt, record journal.Record) error {
	var finding findingv1.Finding
	if err := proto.Unmarshal(record.Raw, &finding); err != nil {
		return nil // not ours; the journal keeps it, nobody can be shown it
	}
	// A node's clock decides the order of its findings, but none may put itself first for years.
	at := finding.GetTime().AsTime()
	if at.After(record.Received) {
		at = record.Received
	}
	pending := finding.GetWorkload().GetMetadata() == findingv1.MetadataState_METADATA_STATE_PENDING
	_, err := statement.ExecContext(ctx, record.Node, finding.GetId(), record.Sequence, at.UnixNano(), pending, record.Raw)
	return err
}

// Prune forgets, now and then, what the journal has dropped, until ctx ends.
func (x *Index) Prune(ctx context.Context) error {
	return periodic.Run(ctx, pruneEvery, func(ctx context.Context) error {
		if err := x.prune(ctx); err != nil && ctx.Err() == nil {
			x.log.WarnContext(ctx, "Could not prune the index", "err", err)
		}
		return nil
	})
}

func (x *Index) prune(ctx context.Context) error {
	state, err := x.journal.State(ctx)
	if err != nil {
		return err
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, err = x.db.ExecContext(ctx, "DELETE FROM finding WHERE sequence < ?", state.First)
	return err
}
