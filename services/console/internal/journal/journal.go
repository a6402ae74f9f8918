// Package journal keeps findings durably, in order of arrival: a JetStream stream in a NATS server inside this process,
// which listens nowhere. What Append has acknowledged is on disk. Age and size bound it; the oldest goes first.
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName = "FINDINGS"
	subject    = "findings"
	nodeHeader = "Palisade-Node"
	// duplicates is how long the stream itself knows an id again; the index knows it as long as the finding is kept.
	duplicates = 2 * time.Minute
	// startWait is how long recovering what is on disk may take.
	startWait = 2 * time.Minute
	// maxMessageBytes bounds one finding; the uplink takes none over 1 MiB.
	maxMessageBytes = 4 << 20
	// parallel bounds batches under way; the server takes 50.
	parallel = 32
)

// Retention bounds what is kept.
type Retention struct {
	MaxAge   time.Duration `yaml:"max_age"`
	MaxBytes int64         `yaml:"max_bytes"`
}

// DefaultRetention is 30 days or 1 GiB.
func DefaultRetention() Retention { return Retention{MaxAge: 30 * 24 * time.Hour, MaxBytes: 1 << 30} }

// Validate reports every fault, each starting with its key.
func (r Retention) Validate() error {
	var errs []error
	if r.MaxAge < time.Hour {
		errs = append(errs, fmt.Errorf("retention.max_age: %v is under 1h", r.MaxAge))
	}
	if r.MaxBytes < 16<<20 {
		errs = append(errs, fmt.Errorf("retention.max_bytes: %d is under 16777216", r.MaxBytes))
	}
	return errors.Join(errs...)
}

// Journal is safe for concurrent use.
type Journal struct {
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	slots  chan struct{}
}

// Open opens the journal in directory, which nobody else may have open. Close it at the end.
func Open(ctx context.Context, directory string, retention Retention, log *slog.Logger) (*Journal, error) {
	embedded, err := server.NewServer(&server.Options{
		ServerName: "palisade-console", DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: directory, SyncAlways: true,
		JetStreamMaxMemory: 32 << 20, JetStreamMaxStore: retention.MaxBytes + 64<<20,
		MaxPayload: maxMessageBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	embedded.SetLoggerV2(natsLog{log}, false, false, false)
	j := &Journal{server: embedded, slots: make(chan struct{}, parallel)}
	embedded.Start()
	if err := j.connect(ctx, retention); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", directory, err), j.Close())
	}
	return j, nil
}

func (j *Journal) connect(ctx context.Context, retention Retention) (err error) {
	if !j.server.ReadyForConnections(startWait) {
		return fmt.Errorf("not ready after %v", startWait)
	}
	j.conn, err = nats.Connect("", nats.InProcessServer(j.server), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	j.js, err = jetstream.New(j.conn)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, startWait)
	defer stop()
	j.stream, err = j.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{subject},
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxAge: retention.MaxAge, MaxBytes: retention.MaxBytes, MaxMsgSize: maxMessageBytes,
		Duplicates: duplicates, Compression: jetstream.S2Compression,
		AllowAtomicPublish: true,
	})
	return err
}

// Close stops the server; what was acknowledged stays.
func (j *Journal) Close() error {
	if j.conn != nil {
		j.conn.Close()
	}
	j.server.Shutdown()
	j.server.WaitForShutdown()
	return nil
}

// State is where the journal stands.
type State struct {
	// ID is another one when the journal was begun anew.
	ID string
	// First and Last are sequence numbers; First is Last+1 if it is empty.
	First, Last uint64
	Findings    uint64
	Bytes       uint64
}

// State returns where the journal stands.
func (j *Journal) State(ctx context.Context) (State, error) {
	info, err := j.stream.Info(ctx)
	if err != nil {
		return State{}, fmt.Errorf("read journal: %w", err)
	}
	return State{
		ID:    info.Created.UTC().Format(time.RFC3339Nano),
		First: info.State.FirstSeq, Last: info.State.LastSeq,
		Findings: info.State.Msgs, Bytes: info.State.Bytes,
	}, nil
}

// natsLog passes on what the server complains about.
type natsLog struct{ log *slog.Logger }

// Noticef is not passed on.
func (l natsLog) Noticef(string, ...any) {}

// Debugf is not passed on.
func (l natsLog) Debugf(string, ...any) {}

// Tracef is not passed on.
func (l natsLog) Tracef(string, ...any) {}

// Warnf passes a complaint on.
func (l natsLog) Warnf(format string, v ...any) {
	l.log.Warn("Journal complains", "err", fmt.Sprintf(format, v...))
}

// Errorf passes a fault on.
func (l natsLog) Errorf(format string, v ...any) {
	l.log.Error("Journal has a fault", "err", fmt.Sprintf(format, v...))
}

// Fatalf passes a fault on; the server ends nothing but itself.
func (l natsLog) Fatalf(format string, v ...any) {
	l.log.Error("Journal has a fault", "err", fmt.Sprintf(format, v...))
}
