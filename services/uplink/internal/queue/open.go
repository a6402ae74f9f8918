package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/palisade-sec/palisade/internal/periodic"
)

const (
	// valueThreshold is the size in bytes from which a finding goes to the value log; smaller ones, nearly all, live
	// compressed in the tree.
	valueThreshold = 32 << 10
	// attempts is how often opening may end in the death of the process before the database is taken for corrupt:
	// Badger answers some damage with a fault signal or an exit that nobody can catch.
	attempts = 3
	// retries is how often one process tries, so long apart.
	retries    = 3
	retryPause = 100 * time.Millisecond
	// reasonFile, in a database set aside, says what was wrong with it.
	reasonFile = "REASON"
	// collectEvery is how often the value log is searched for room.
	collectEvery = 5 * time.Minute
)

// databaseOptions keep the process small: the whole node has 120 MiB.
func databaseOptions(directory string) badger.Options {
	return badger.DefaultOptions(directory).
		WithLoggingLevel(badger.ERROR).WithLogger(nil).
		WithSyncWrites(true).
		WithDetectConflicts(false). // there is one writer
		WithMetricsEnabled(false).
		WithNumGoroutines(1).
		WithNumMemtables(2).WithMemTableSize(4 << 20).
		WithNumCompactors(2).WithNumLevelZeroTables(2).WithNumLevelZeroTablesStall(8).
		WithBaseTableSize(2 << 20).WithBaseLevelSize(8 << 20).
		WithValueThreshold(valueThreshold).WithValueLogFileSize(16 << 20).
		WithBlockCacheSize(2 << 20).WithIndexCacheSize(1 << 20).
		WithCompression(options.Snappy).
		WithChecksumVerificationMode(options.OnTableAndBlockRead)
}

// open opens the database and reads the index, and sets a database aside that cannot be read.
func (q *Queue) open() error {
	directory, marker := q.path, q.path+".opening"
	if err := q.room(); err != nil {
		// Earlier tries may have died of the same, so they say nothing about the database.
		return errors.Join(err, os.RemoveAll(marker))
	}
	tries := countTries(marker)
	err := errors.New("opening it ended the process several times")
	if tries < attempts {
		if err := os.WriteFile(marker, []byte(strconv.Itoa(tries+1)), 0o600); err != nil {
			return err
		}
		err = q.attemptAgain(directory)
	}
	if err != nil && !environmental(err) {
		reason := []byte(err.Error() + "\n") // for whoever examines it
		if writeErr := os.WriteFile(filepath.Join(directory, reasonFile), reason, 0o600); writeErr != nil {
			err = errors.Join(err, writeErr)
		}
		aside := directory + corruptSuffix + q.now().UTC().Format("20060102T150405.000Z")
		if renameErr := os.Rename(directory, aside); renameErr != nil {
			return errors.Join(err, renameErr)
		}
		q.log.Error("Set a corrupt queue aside and began a new one", "err", err, "directory", aside)
		err = q.attempt(directory)
	}
	return errors.Join(err, os.RemoveAll(marker))
}

// attemptAgain tries to open the database a few times: setting findings aside is not done on one failure that the next
// try, on the same files, does not show.
func (q *Queue) attemptAgain(directory string) error {
	var err error
	for try := range retries {
		if try > 0 {
			q.log.Warn("Could not open the queue; trying again", "err", err)
			time.Sleep(retryPause)
		}
		if err = q.attempt(directory); err == nil || environmental(err) {
			return err
		}
	}
	return err
}

// environmental says whether the fault is around the database and not in it: setting it aside would not help.
func environmental(err error) bool {
	if strings.Contains(err.Error(), "Cannot acquire directory lock") {
		return true // another process has it open, so it cannot be that bad
	}
	for _, cause := range []error{
		fs.ErrPermission, syscall.EPERM, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
	} {
		// Badger's y.Wrap keeps the text of an error and not the error.
		if errors.Is(err, cause) || strings.Contains(err.Error(), cause.Error()) {
			return true
		}
	}
	return false
}

func countTries(marker string) int {
	raw, err := os.ReadFile(marker)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil {
		return 0
	}
	return n
}

// attempt opens the database once. Badger panics on some damage; that is an error here.
func (q *Queue) attempt(directory string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("read database: %v", p)
		}
	}()
	q.db, err = badger.Open(databaseOptions(directory))
	if err != nil {
		return err
	}
	if err := q.reload(); err != nil {
		return errors.Join(err, q.db.Close())
	}
	return nil
}

// reload reads the index from the database.
func (q *Queue) reload() error {
	fresh := index{}
	txn := q.db.NewTransaction(false)
	defer txn.Discard()
	keys := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{findingPrefix}})
	defer keys.Close()
	marks := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{deliveredPrefix}})
	defer marks.Close()
	marks.Rewind()
	for keys.Rewind(); keys.Valid(); keys.Next() {
		sequence, rank, _, ok := splitFindingKey(keys.Item().Key())
		if !ok {
			return fmt.Errorf("read database: strange key of %d bytes", len(keys.Item().Key()))
		}
		fresh.last = sequence
		bytes := sizeOf(keys.Item().ValueSize())
		for marks.Valid() && markOf(marks.Item().Key()) < sequence {
			marks.Next()
		}
		if marks.Valid() && markOf(marks.Item().Key()) == sequence {
			fresh.delivered.push(sequence, bytes)
			continue
		}
		fresh.pending[rank].push(sequence, bytes)
	}
	unreported, err := counter(txn, unreportedKey)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.index = fresh
	q.dropped.unreported = unreported
	return nil
}

// sizeOf bounds the size of a stored value to what the index keeps; findings are far below. For what is in the value
// log Badger knows it to within a few bytes.
func sizeOf[T int | int64](n T) uint32 { return uint32(max(0, min(int64(n), math.MaxUint32))) } //nolint:gosec // bounded

func markOf(key []byte) uint64 {
	if len(key) != 9 {
		return 0
	}
	return binary.BigEndian.Uint64(key[1:])
}

// counter reads eight bytes; zero if they are not there.
func counter(txn *badger.Txn, key string) (n uint64, err error) {
	item, err := txn.Get([]byte(key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read database: %w", err)
	}
	err = item.Value(func(raw []byte) error {
		if len(raw) == 8 {
			n = binary.BigEndian.Uint64(raw)
		}
		return nil
	})
	return n, err
}

// Collect gives disk space of the value log back, now and then, until ctx ends.
func (q *Queue) Collect(ctx context.Context) error {
	return periodic.Run(ctx, collectEvery, func(ctx context.Context) error {
		for ctx.Err() == nil && q.db.RunValueLogGC(0.5) == nil { // until there is nothing left to rewrite
		}
		return nil
	})
}
