package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/cli/internal/launch"
	"github.com/palisade-sec/palisade/internal/recording"
)

// recordLimits say when a recording is long enough; zero is no limit.
type recordLimits struct {
	events   uint64
	mib      int64
	duration time.Duration
}

func newRecord(opts *options) *cobra.Command {
	var limits recordLimits
	cmd := &cobra.Command{
		Use:   "record FILE",
		Short: "Write what the node sees to a file, for palisade replay",
		Long: `Records what the correlator's rules are run over: the processes and containers of this moment, and from then on every
batch of events and every word of the container runtime, in order. It ends at the first limit that is reached, or at Ctrl-C.

The node is never slowed down: what this command does not take in time is counted, and the file says where it is missing. The file
holds command lines and file names of everything that ran; its mode is 0600, and a file that exists is not overwritten.`,
		Example: `  palisade record incident.rec --for 10m
  palisade record incident.rec --events 1000000 --size 100`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("record: name the file to write")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return record(cmd.Context(), opts, args[0], limits, cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.Uint64Var(&limits.events, "events", 0, "end after so many events (0: no limit)")
	flags.Int64Var(&limits.mib, "size", 1024, "end once the file has so many MiB")
	flags.DurationVar(&limits.duration, "for", 0, "end after so long (0: no limit)")
	return cmd
}

func record(ctx context.Context, opts *options, path string, limits recordLimits, notes io.Writer) (err error) {
	if limits.mib < 1 || limits.duration < 0 {
		return usageError{errors.New("--size and --for must be above 0")}
	}
	conn, err := opts.dial("correlator")
	if err != nil {
		return err
	}
	defer conn.Close()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	writer, err := recording.NewWriter(file)
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil && (writer == nil || writer.Entries() == 0) {
			err = errors.Join(err, os.Remove(path)) // nothing is in it
		}
	}()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := correlatorv1.NewRecordingServiceClient(conn).Record(ctx, &correlatorv1.RecordRequest{})
	if err != nil {
		return opts.explain("correlator", err)
	}
	r := &recorder{writer: writer, limits: limits, began: time.Now()}
	if err := r.copy(ctx, cancel, stream); err != nil {
		return opts.explain("correlator", errors.Join(err, writer.Close()))
	}
	if err := errors.Join(writer.Close(), file.Sync()); err != nil {
		return err
	}
	fmt.Fprintf(notes, "Recorded %d events in %v into %s (%d bytes).\n", r.events, time.Since(r.began).Round(time.Millisecond), path, writer.Size())
	if r.missed.GetBatches() > 0 || r.missed.GetNews() > 0 {
		fmt.Fprintf(notes, "Missed, because this command was too slow: %d events in %d batches, %d times news of containers. "+
			"The file says where.\n", r.missed.GetEvents(), r.missed.GetBatches(), r.missed.GetNews())
	}
	return nil
}

// recorder copies a stream to a file.
type recorder struct {
	writer *recording.Writer
	limits recordLimits
	began  time.Time
	events uint64
	missed correlatorv1.Missed
}

// copy takes entries until a limit is reached or ctx ends, which are no errors.
func (r *recorder) copy(ctx context.Context, cancel func(), stream correlatorv1.RecordingService_RecordClient) error {
	if r.limits.duration > 0 {
		defer time.AfterFunc(r.limits.duration, cancel).Stop()
	}
	flushed := time.Now()
	for {
		answer, err := stream.Recv()
		switch {
		case ctx.Err() != nil && (err == nil || status.Code(err) == codes.Canceled):
			return nil
		case errors.Is(err, io.EOF):
			return errors.New("the correlator ended the recording")
		case err != nil:
			return err
		}
		if err := r.take(answer.GetEntry()); err != nil {
			return err
		}
		if r.full() {
			return nil
		}
		if time.Since(flushed) > time.Second { // a crash of this command costs a second
			if err := r.writer.Flush(); err != nil {
				return err
			}
			flushed = time.Now()
		}
	}
}

func (r *recorder) take(entry *correlatorv1.RecordedEntry) error {
	r.events += uint64(len(entry.GetBatch().GetBatch().GetEvents()))
	if missed := entry.GetMissed(); missed != nil {
		r.missed.Batches += missed.GetBatches()
		r.missed.Events += missed.GetEvents()
		r.missed.News += missed.GetNews()
	}
	return r.writer.Write(entry)
}

// full counts what waits for the compressor as it is, so that the file does not grow beyond its limit.
func (r *recorder) full() bool {
	return r.limits.events > 0 && r.events >= r.limits.events || r.writer.Size()+int64(r.writer.Pending()) >= r.limits.mib<<20
}

func newReplay(opts *options) *cobra.Command {
	var binaries string
	var rules []string
	var findings bool
	var events, sample uint64
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Run rules over a recording, as fast as it goes",
		Long: `Runs the correlator's own pipeline (process tree, workloads, rules) over a file of palisade record, and says what it
found, how fast it was and what each rule cost. Nobody is killed and nothing is delivered. It needs neither a node nor root.

What waits for its container on a node waits for it here, in recorded time. A file that is cut off or damaged is replayed up to
there; the error says where that is.`,
		Example: `  palisade replay incident.rec --rules new-rules.yaml --findings
  palisade replay incident.rec -o json | jq '.rules[:5]'
  palisade replay incident.rec --events 5000000        # over and over, as a benchmark`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("replay: name the file to read")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			words := []string{"replay", "-o", opts.output, "-sample", strconv.FormatUint(sample, 10), "-events", strconv.FormatUint(events, 10)}
			for _, path := range rules {
				words = append(words, "-rules", path)
			}
			if findings {
				words = append(words, "-findings")
			}
			binary := filepath.Join(binaries, "palisade-correlator")
			return launch.Engine(cmd.Context(), binary, append(words, "--", args[0]), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&binaries, "bin", executableDirectory(), "directory with the palisade-* binaries")
	flags.StringSliceVar(&rules, "rules", nil, "more rule files or directories, in Falco's language")
	flags.BoolVar(&findings, "findings", false, "print each finding, one line of JSON, before the report")
	flags.Uint64Var(&events, "events", 0, "go over the recording again and again, with new processes and containers each time, until there were so many events")
	flags.Uint64Var(&sample, "sample", 256, "time the rules on one of so many events (0: not at all)")
	return cmd
}
