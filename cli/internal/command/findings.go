package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
	"github.com/palisade-sec/palisade/cli/internal/eventlog"
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

// slice is how much of a workload's events is shown around an incident.
type slice struct {
	events        bool
	before, after time.Duration
}

func newIncidents(opts *options) *cobra.Command {
	var limit uint32
	var around slice
	cmd := &cobra.Command{
		Use:   "incidents [ID]",
		Short: "Show what the node found, put together by where it began",
		Long: `Shows the node's findings as incidents, the gravest first: all that came of one process in one workload, be it a container's
first process, what was executed in it, or a session of the host. After an hour of quiet a new one begins. It reads the node's own
store and needs no console. The beginning of an incident's id shows that one alone.

With --events the events of its workload follow, from shortly before the first finding to shortly after the last, as the flight
recorder has them: of findings of priority error and above it sets them aside for a week.

With -o json each incident is one line of JSON, and each event one, as of palisade events.`,
		Example: `  palisade incidents
  palisade incidents 3f1a9c --events
  palisade incidents -o json | jq -r 'select(.priority == "CRITICAL") | .workload'`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usageError{fmt.Errorf("name one incident at most: see `%s --help`", cmd.CommandPath())}
			case len(args) == 0 && around.events:
				return usageError{fmt.Errorf("--events: name an incident, as `%s` shows it", cmd.CommandPath())}
			case around.before < 0 || around.after < 0:
				return usageError{errors.New("--before and --after must not be negative")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := opts.dialForFindings(limit)
			if err != nil {
				return err
			}
			defer conn.Close()
			findings, err := opts.past(cmd.Context(), conn, limit)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return opts.printIncidents(cmd, show.Incidents(findings))
			}
			return opts.printIncident(cmd, findings, args[0], around)
		},
	}
	flags := cmd.Flags()
	flags.Uint32Var(&limit, "limit", 10_000, "look at no more than so many of the last findings (1 to 10000)")
	flags.BoolVar(&around.events, "events", false, "show the workload's events around the incident, too")
	flags.DurationVar(&around.before, "before", 30*time.Second, "with --events, begin so long before the first finding")
	flags.DurationVar(&around.after, "after", 10*time.Second, "with --events, end so long after the last finding")
	return cmd
}

// printIncident shows one incident, and the events around it if they are wanted.
func (o *options) printIncident(cmd *cobra.Command, findings []*findingv1.Finding, id string, around slice) error {
	findings = slices.DeleteFunc(findings, func(f *findingv1.Finding) bool { return !strings.HasPrefix(f.GetIncident().GetId(), id) })
	incidents := show.Incidents(findings)
	if len(incidents) == 0 {
		return fmt.Errorf("no incident %q among the last findings: `palisade incidents` lists them", id)
	}
	for _, i := range incidents {
		if i.ID != incidents[0].ID {
			return usageError{fmt.Errorf("%q is the beginning of several incidents: write more of its id", id)}
		}
	}
	if err := o.printIncidents(cmd, incidents); err != nil || !around.events {
		return err
	}
	query := show.Slice(findings)
	query.Since = timestamppb.New(query.GetSince().AsTime().Add(-around.before))
	query.Until = timestamppb.New(query.GetUntil().AsTime().Add(around.after))
	return o.printEvents(cmd, query, false)
}

func newEvents(opts *options) *cobra.Command {
	var query eventlog.Query
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what a workload did in the last minutes",
		Long: `Shows a workload's events from the node's flight recorder, which keeps the last minutes of each on disk, bounded, and those
around grave findings for longer. Without --workload it lists the workloads that there is something of.

It has what the kernel was asked to record: every exec, fork and exit, and of the rest what a rule in force can match. Where events
are missing a line says how many and why.

With -o json each event is one line, {"event": …}, fields as in api/palisade/event/v1/event.proto; so is what is missing, {"gap": …},
whose they are, {"workload": …}, and how it ended, {"end": …}.`,
		Example: `  palisade events
  palisade events --workload web --since 5m
  palisade events --workload 3f1a9c0b --kind exec,open --since 2026-01-02T15:04:05Z --until 1m
  palisade events --workload host --follow
  palisade events --workload web -o json | jq -r 'select(.event.exec) | .event.exec.argv | join(" ")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if query.Workload == "" {
				for _, flag := range []string{"since", "until", "kind", "limit", "follow"} {
					if cmd.Flags().Changed(flag) {
						return usageError{fmt.Errorf("--%s: name a --workload, as `palisade events` lists them", flag)}
					}
				}
				return opts.listRecorded(cmd)
			}
			if follow && (query.Until != "" || cmd.Flags().Changed("limit")) {
				return usageError{errors.New("--follow goes on for ever: it takes neither --until nor --limit")}
			}
			if query.Limit < 1 || query.Limit > 100_000 {
				return usageError{fmt.Errorf("--limit: %d is not 1 to 100000", query.Limit)}
			}
			request, err := query.Request(time.Now())
			if err != nil {
				return usageError{err}
			}
			return opts.printEvents(cmd, request, follow)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&query.Workload, "workload", "w", "", "`NAME`, pod, id or beginning of an id of a container; host; \"cgroup N\"")
	flags.StringVar(&query.Since, "since", "5m", "from so long ago on, or from a time on (RFC 3339)")
	flags.StringVar(&query.Until, "until", "", "until so long ago, or until a time")
	flags.StringSliceVar(&query.Kinds, "kind", nil, "only these classes (exec, file_open) or system calls (open); see docs/rules.md")
	flags.Uint32Var(&query.Limit, "limit", 10_000, "show at most so many, from the first on (1 to 100000)")
	flags.BoolVarP(&follow, "follow", "f", false, "go on showing events as they come")
	return cmd
}

// printEvents asks the flight recorder and prints its answers.
func (o *options) printEvents(cmd *cobra.Command, request *correlatorv1.ReadEventsRequest, follow bool) error {
	conn, err := o.dial("correlator")
	if err != nil {
		return err
	}
	defer conn.Close()
	w := cmd.OutOrStdout()
	printer := eventlog.Printer{Out: w, Notes: cmd.ErrOrStderr(), JSON: o.output == "json", Paint: painter(w)}
	read := eventlog.Read
	if follow {
		read = eventlog.Follow
	}
	err = read(cmd.Context(), conn, request, printer.Print)
	if cmd.Context().Err() != nil {
		return cmd.Context().Err()
	}
	said := show.Safe(status.Convert(err).Message())
	if slices.Contains([]codes.Code{codes.NotFound, codes.FailedPrecondition}, status.Code(err)) {
		return fmt.Errorf("%s: `palisade events` lists what is recorded", said)
	}
	if status.Code(err) == codes.InvalidArgument {
		return usageError{errors.New(said)}
	}
	if err == nil || status.Code(err) == codes.Unknown { // of printing
		return err
	}
	return o.explain("correlator", err)
}

// listRecorded shows which workloads the flight recorder has something of.
func (o *options) listRecorded(cmd *cobra.Command) error {
	answer, err := ask(cmd, o, correlatorv1.NewFlightRecorderServiceClient, correlatorv1.FlightRecorderServiceClient.ListRecorded, &correlatorv1.ListRecordedRequest{})
	if err != nil {
		return err
	}
	if o.output == "json" {
		return show.JSONLine(cmd.OutOrStdout(), answer)
	}
	return show.Recorded(cmd.OutOrStdout(), answer.GetWorkloads())
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
	for _, i := range incidents {
		err := error(nil)
		if o.output == "json" {
			err = show.IncidentJSON(w, i)
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
	if err := show.JSONLine(w, f); err != nil {
		return fmt.Errorf("write finding: %w", err)
	}
	return nil
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
