// Package index finds findings quickly. It is a SQLite database that holds nothing of its own: it is filled from the
// journal, catches up after a restart, and is thrown away and built again whenever it does not fit or cannot be read.
// Its primary key is (node, id), so a finding is shown once however often it comes: as it came first, or, if its container was not
// known then, as it came when that was.
package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"github.com/palisade-sec/palisade/services/console/internal/journal"
)

const (
	// layout changes with the tables; an index of another layout is built again.
	layout = "2"
	// pruneEvery is how often findings are forgotten that the journal has dropped.
	pruneEvery = time.Minute
	// retryWait is the pause after a fault.
	retryWait = time.Second
)

const schema = `
CREATE TABLE IF NOT EXISTS finding (
	node TEXT NOT NULL,
	id TEXT NOT NULL,
	sequence INTEGER NOT NULL,
	time_ns INTEGER NOT NULL,
	pending INTEGER NOT NULL,
	raw BLOB NOT NULL,
	PRIMARY KEY (node, id)
);
CREATE INDEX IF NOT EXISTS finding_sequence ON finding (sequence);
CREATE INDEX IF NOT EXISTS finding_time ON finding (time_ns, sequence);
CREATE TABLE IF NOT EXISTS place (layout TEXT NOT NULL, journal TEXT NOT NULL, sequence INTEGER NOT NULL);
`

// Journal is what the index is filled from; *journal.Journal is one.
type Journal interface {
	State(ctx context.Context) (journal.State, error)
	Follow(ctx context.Context, after uint64, handle func([]journal.Record) error) error
}

// Index is safe for concurrent use.
type Index struct {
	directory string
	journal   Journal
	log       *slog.Logger

	mu sync.RWMutex // held for writing while the database is replaced
	db *sql.DB      // guarded by mu
}

// Open opens the index in directory, or begins a new one if there is none or it cannot be read. Run fills it.
func Open(ctx context.Context, directory string, source Journal, log *slog.Logger) (*Index, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	x := &Index{directory: directory, journal: source, log: log}
	state, err := source.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	if x.db, err = openDatabase(ctx, directory); err == nil {
		var place uint64
		place, err = x.place(ctx, state.ID)
		if err == nil && place <= state.Last {
			return x, nil
		}
	}
	if err != nil && !errors.Is(err, errForeign) {
		log.WarnContext(ctx, "Threw away an index that cannot be read", "err", err)
	}
	return x, x.rebuild(ctx, state.ID)
}

// Close closes the database.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.db.Close()
}

func openDatabase(ctx context.Context, directory string) (*sql.DB, error) {
	pragmas := url.Values{"_pragma": {
		"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(5000)", "cache_size(-2000)",
	}}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(directory, "index.db")+"?"+pragmas.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// errForeign says that the database was filled from another journal, by another version, or not at all.
var errForeign = errors.New("index of another journal or layout")

// place is the journal's sequence number up to which the index is filled.
func (x *Index) place(ctx context.Context, journalID string) (sequence uint64, err error) {
	var id, version string
	row := x.db.QueryRowContext(ctx, "SELECT layout, journal, sequence FROM place")
	err = row.Scan(&version, &id, &sequence)
	if errors.Is(err, sql.ErrNoRows) || err == nil && (id != journalID || version != layout) {
		return 0, errForeign
	}
	if err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	return sequence, nil
}

// rebuild removes the database and begins an empty one.
func (x *Index) rebuild(ctx context.Context, journalID string) (err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.db != nil {
		_ = x.db.Close() // it is thrown away
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		err := os.Remove(filepath.Join(x.directory, "index.db"+suffix))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rebuild index: %w", err)
		}
	}
	if x.db, err = openDatabase(ctx, x.directory); err != nil {
		return fmt.Errorf("rebuild index: %w", err)
	}
	_, err = x.db.ExecContext(ctx, "INSERT INTO place VALUES (?, ?, 0)", layout, journalID)
	if err != nil {
		return fmt.Errorf("rebuild index: %w", err)
	}
	return nil
}

// corrupt says whether the database itself is broken.
func corrupt(err error) bool {
	var fault *sqlite.Error
	if !errors.As(err, &fault) {
		return false
	}
	switch fault.Code() & 0xff { // the rest is detail
	case sqlitelib.SQLITE_CORRUPT, sqlitelib.SQLITE_NOTADB, sqlitelib.SQLITE_FORMAT, sqlitelib.SQLITE_READONLY:
		return true
	}
	return false
}
