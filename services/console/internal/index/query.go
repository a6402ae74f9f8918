package index

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// maxAnswerBytes bounds one answer: a finding can have 1 MiB.
const maxAnswerBytes = 16 << 20

// Found is a finding and where it stands in the journal.
type Found struct {
	Sequence uint64
	Finding  *findingv1.Finding
}

// Query selects findings.
type Query struct {
	// Limit is how many at most.
	Limit int
	// Since leaves out what happened before it, if set.
	Since time.Time
	// After leaves out what the journal got up to this sequence number.
	After uint64
	// Oldest returns the first to arrive first, for callers that follow; otherwise the newest to happen come first.
	Oldest bool
}

// Find returns findings that match: fewer than Limit if they are very large, but always one if there is one.
func (x *Index) Find(ctx context.Context, q Query) ([]Found, error) {
	order := "time_ns DESC, sequence DESC"
	if q.Oldest {
		order = "sequence"
	}
	since := int64(0)
	if !q.Since.IsZero() {
		since = q.Since.UnixNano()
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	//nolint:gosec // order is one of two constants
	query := "SELECT sequence, raw FROM finding WHERE time_ns >= ? AND sequence > ? ORDER BY " + order + " LIMIT ?"
	rows, err := x.db.QueryContext(ctx, query, since, q.After, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("search index: %w", err)
	}
	defer rows.Close()
	var out []Found
	for total := 0; total < maxAnswerBytes && rows.Next(); {
		found := Found{Finding: new(findingv1.Finding)}
		var raw []byte
		if err := rows.Scan(&found.Sequence, &raw); err != nil {
			return nil, fmt.Errorf("search index: %w", err)
		}
		if err := proto.Unmarshal(raw, found.Finding); err != nil {
			return nil, fmt.Errorf("search index: %w", err)
		}
		out = append(out, found)
		total += len(raw)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("search index: %w", err)
	}
	return out, nil
}

// Known says which of a node's ids, at most 1000, the index has: true if that may still be amended, false if not.
func (x *Index) Known(ctx context.Context, node string, ids []string) (map[string]bool, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	args := []any{node}
	for _, id := range ids {
		args = append(args, id)
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	//nolint:gosec // the only thing added to the text is placeholders
	rows, err := x.db.QueryContext(ctx,
		"SELECT id, pending FROM finding WHERE node = ? AND id IN (?"+strings.Repeat(",?", len(ids)-1)+")", args...)
	if err != nil {
		return nil, fmt.Errorf("search index: %w", err)
	}
	defer rows.Close()
	known := map[string]bool{}
	for rows.Next() {
		var id string
		var pending bool
		if err := rows.Scan(&id, &pending); err != nil {
			return nil, fmt.Errorf("search index: %w", err)
		}
		known[id] = pending
	}
	return known, rows.Err()
}
