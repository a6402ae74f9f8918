package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
	"github.com/palisade-sec/palisade/cli/internal/show"
)

func newFindings(opts *options) *cobra.Command {
	var follow bool
	var limit uint32
	cmd := &cobra.Command{
		Use:   "findings",
		Short: "Show what the node found",
		Long: `Shows the node's findings, oldest first, from the node's own store: it needs no console.

With -o json each finding is one line of JSON, fields as in api/palisade/finding/v1/finding.proto.`,
		Example: `  palisade findings
  palisade findings -f
  palisade findings -o json | jq -r 'select(.action) | .rule'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := opts.dialForFindings(limit)
			if err != nil {
				return err
			}
			defer conn.Close()
			print := opts.printer(cmd.OutOrStdout())
			if follow {
				if status := opts.askStatus(cmd.Context(), "uplink"); status.PID == 0 {
					return fmt.Errorf("nothing to follow: %v", status.Warnings)
				}
				return watch(cmd.Context(), conn, limit, print)
			}
			findings, err := opts.past(cmd.Context(), conn, limit)
			for _, f := range findings {
				if err := print(f); err != nil {
					return err
				}
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on showing findings as they come")
	cmd.Flags().Uint32Var(&limit, "limit", 1000, "show at most so many of the past ones (1 to 10000)")
	return cmd
}

func newIncidents(opts *options) *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{
		Use:   "incidents",
		Short: "Show what the node found, put together by where it began",
		Long: `Shows the node's findings as incidents, the gravest first: all that came of one process in one workload, be it a container's
first process, what was executed in it, or a session of the host. After an hour of quiet a new one begins. It reads the node's own
store and needs no console.

With -o json each incident is one line of JSON.`,
		Example: `  palisade incidents
  palisade incidents -o json | jq -r 'select(.priority == "CRITICAL") | .workload'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := opts.dialForFindings(limit)
			if err != nil {
				return err
			}
			defer conn.Close()
			findings, err := opts.past(cmd.Context(), conn, limit)
			if err != nil {
				return err
			}
			return opts.printIncidents(cmd, show.Incidents(findings))
		},
	}
	cmd.Flags().Uint32Var(&limit, "limit", 10_000, "look at no more than so many of the last findings (1 to 10000)")
	return cmd
}

// dialForFindings connects to who keeps findings, of which at most limit are asked for.
func (o *options) dialForFindings(limit uint32) (*grpc.ClientConn, error) {
	if limit < 1 || limit > 10_000 {
		return nil, usageError{fmt.Errorf("--limit: %d is not 1 to 10000", limit)}
	}
	return o.dial("uplink")
}

// past are the last findings, oldest first.
func (o *options) past(ctx context.Context, conn *grpc.ClientConn, limit uint32) ([]*findingv1.Finding, error) {
	answer, err := uplinkv1.NewFindingServiceClient(conn).ListFindings(ctx, &uplinkv1.ListFindingsRequest{Limit: limit})
	if err != nil {
		return nil, o.explain("uplink", err)
	}
	findings := make([]*findingv1.Finding, 0, len(answer.GetFindings()))
	for _, stored := range answer.GetFindings() {
		findings = append(findings, stored.GetFinding())
	}
	return findings, nil
}

func (o *options) printIncidents(cmd *cobra.Command, incidents []*show.Incident) error {
	w := cmd.OutOrStdout()
	paint := painter(w)
	lines := json.NewEncoder(w)
	for _, i := range incidents {
		err := error(nil)
		if o.output == "json" {
			err = lines.Encode(i)
		} else {
			err = show.WriteIncident(w, i, paint)
		}
		if err != nil {
			return fmt.Errorf("write incident: %w", err)
		}
	}
	return nil
}

// printer writes findings in the chosen form.
func (o *options) printer(w io.Writer) func(*findingv1.Finding) error {
	if o.output == "json" {
		return func(f *findingv1.Finding) error { return findingJSON(w, f) }
	}
	paint := painter(w)
	return func(f *findingv1.Finding) error { return show.Finding(w, f, paint) }
}

func findingJSON(w io.Writer, f *findingv1.Finding) error {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(f)
	if err != nil {
		return fmt.Errorf("write finding: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", raw)
	return err
}

// missedBacklog is how many findings are asked for after the uplink was away: what came meanwhile is among them.
const missedBacklog = 1000

// watch hands over findings as they come, each once, until ctx ends; it comes back when the uplink was restarted.
func watch(ctx context.Context, conn *grpc.ClientConn, backlog uint32, take func(*findingv1.Finding) error) error {
	client := uplinkv1.NewFindingServiceClient(conn)
	seen := newRecent(4096)
	began := time.Now()
	again := false // the stream was up once
	for {
		stream, err := client.WatchFindings(ctx, &uplinkv1.WatchFindingsRequest{Backlog: backlog}, grpc.WaitForReady(true))
		for err == nil {
			var answer *uplinkv1.WatchFindingsResponse
			answer, err = stream.Recv()
			finding := answer.GetFinding().GetFinding()
			if err != nil || !seen.add(finding.GetId()) {
				continue
			}
			if again && finding.GetTime().AsTime().Before(began) {
				continue // older than this watch, and asked for only to find what was missed
			}
			if err := take(finding); err != nil {
				return err
			}
		}
		switch status.Code(err) {
		case codes.Unavailable, codes.ResourceExhausted, codes.Internal:
			backlog, again = missedBacklog, true
		default:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("watch findings: %w", err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// recent remembers the last ids it was given.
type recent struct {
	ids   map[string]bool
	order []string
	next  int
}

func newRecent(size int) *recent {
	return &recent{ids: make(map[string]bool, size), order: make([]string, size)}
}

// add reports whether id is new.
func (r *recent) add(id string) bool {
	if r.ids[id] {
		return false
	}
	delete(r.ids, r.order[r.next])
	r.order[r.next] = id
	r.ids[id] = true
	r.next = (r.next + 1) % len(r.order)
	return true
}
