package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/cli/internal/node"
	"github.com/palisade-sec/palisade/cli/internal/show"
	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

// statusTimeout bounds how long one process is waited for.
const statusTimeout = 3 * time.Second

func newStatus(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:   "status [PROCESS]",
		Short: "Show whether every process does its job",
		Long: `Asks every process of the node, or one, how it is. The exit code is 0 if all of them are healthy, 1 if not, so it
also serves as a health check.`,
		Example: `  palisade status
  palisade status collector
  palisade status -o json | jq '.[] | select(.healthy | not)'
  palisade status collector -o json | jq '.[].tables.hooks[] | select(.state != "fires")'`,
		Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := opts.processNames(args)
			if err != nil {
				return err
			}
			statuses := make([]show.Status, 0, len(names))
			unhealthy := 0
			for _, name := range names {
				status := opts.askStatus(cmd.Context(), name)
				if !status.Healthy {
					unhealthy++
				}
				statuses = append(statuses, status)
			}
			if err := opts.printStatuses(cmd.OutOrStdout(), statuses); err != nil {
				return err
			}
			if unhealthy > 0 {
				return fmt.Errorf("%d of %d processes are not healthy", unhealthy, len(names))
			}
			return nil
		},
	}
}

// processNames are the node's processes, or the one asked for.
func (o *options) processNames(args []string) ([]string, error) {
	table, err := privilege.Load()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, row := range table.Processes {
		if node.Runs(o.run, row.Name) {
			names = append(names, row.Name)
		}
	}
	if len(args) == 0 {
		return names, nil
	}
	if _, err := table.Row(args[0]); err != nil {
		return nil, usageError{fmt.Errorf("no process %q: there are %v", args[0], names)}
	}
	return args, nil
}

func (o *options) printStatuses(w io.Writer, statuses []show.Status) error {
	if o.output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(statuses)
	}
	return show.Statuses(w, statuses, painter(w))
}

// askStatus asks one process. One that does not answer is unhealthy, with the reason.
func (o *options) askStatus(ctx context.Context, process string) show.Status {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	failed := func(err error) show.Status {
		return show.Status{Process: process, Warnings: []string{o.explain(process, err).Error()}}
	}
	conn, err := o.dial(process)
	if err != nil {
		return show.Status{Process: process, Warnings: []string{err.Error()}}
	}
	defer conn.Close()
	var other peer.Peer
	answer, err := processv1.NewProcessServiceClient(conn).GetStatus(ctx, &processv1.GetStatusRequest{}, grpc.Peer(&other))
	if err != nil {
		return failed(err)
	}
	status := show.Status{
		Process: process, Healthy: answer.GetHealthy(), Warnings: answer.GetWarnings(), Version: answer.GetVersion(),
		PID: answer.GetPid(), Started: answer.GetStarted().AsTime(), Facts: map[string]string{},
		Tables: answer.GetTables(),
	}
	// The process may have a pid namespace of its own; the kernel says what its pid is here.
	if credentials, ok := other.AuthInfo.(unixsock.Peer); ok && credentials.PID != 0 {
		status.PID = credentials.PID
	}
	for _, fact := range answer.GetFacts() {
		status.Facts[fact.GetName()] = fact.GetValue()
		status.FactOrder = append(status.FactOrder, fact.GetName())
	}
	return status
}

func newMetrics(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:     "metrics PROCESS",
		Short:   "Print a process's metrics in Prometheus's text format",
		Example: `  palisade metrics collector | grep lost`,
		Args:    atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("which process? See `%s --help`", cmd.CommandPath())}
			}
			if _, err := opts.processNames(args); err != nil {
				return err
			}
			conn, err := opts.dial(args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
			defer cancel()
			answer, err := processv1.NewProcessServiceClient(conn).GetMetrics(ctx, &processv1.GetMetricsRequest{})
			if err != nil {
				return opts.explain(args[0], err)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), answer.GetText())
			return err
		},
	}
}
