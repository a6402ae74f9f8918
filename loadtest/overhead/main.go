// Command overhead measures what a node costs the programs on its host: loops of system calls without a node, with one,
// and without one again, in the same run on the same machine. It prints medians and their ratio; a figure alone, or one
// from another run, says nothing.
//
// # Privileges
//
// Runs as root, because it starts `palisade up`. The loops touch a temporary directory and loopback.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/palisade-sec/palisade/internal/daemon"
)

func main() { daemon.Main("overhead", run) }

// result is one operation's cost, nanoseconds, medians of the rounds.
type result struct {
	Operation string  `json:"operation"`
	Without   float64 `json:"without_ns"`
	With      float64 `json:"with_ns"`
	Ratio     float64 `json:"ratio"`
}

func run(ctx context.Context, env daemon.Env) error {
	flags := flag.NewFlagSet(env.Name, flag.ContinueOnError)
	palisade := flags.String("palisade", "bin/palisade", "`path` of the palisade command")
	rounds := flags.Int("rounds", 5, "measurements of each operation in each phase")
	format := flags.String("o", "text", "text or json")
	if err := flags.Parse(env.Args); err != nil {
		return err
	}
	directory, err := os.MkdirTemp("", "palisade-overhead-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	operations := operations(directory)

	// Half of the rounds without a node come before and half after, so that a machine that gets slower or faster
	// meanwhile does not pass for the node's doing.
	without, with := samples{}, samples{}
	if err := without.take(ctx, operations, *rounds); err != nil {
		return err
	}
	if err := withNode(*palisade, func() error { return with.take(ctx, operations, *rounds) }); err != nil {
		return err
	}
	if err := without.take(ctx, operations, *rounds); err != nil {
		return err
	}
	return print(env.Stdout, *format, compare(operations, without, with))
}

// samples are nanoseconds an operation, by operation.
type samples map[string][]float64

func (s samples) take(ctx context.Context, operations []operation, rounds int) error {
	for range rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, op := range operations {
			began := time.Now()
			for range op.times {
				if err := op.run(); err != nil {
					return fmt.Errorf("%s: %w", op.name, err)
				}
			}
			s[op.name] = append(s[op.name], float64(time.Since(began).Nanoseconds())/float64(op.times))
		}
	}
	return nil
}

// withNode runs a node of its own around measure.
func withNode(palisade string, measure func() error) error {
	directory := filepath.Join("/run", "palisade-overhead")
	node := exec.Command(palisade, "up", "--ephemeral", "--run", directory,
		"--nodes-listen", "127.0.0.1:18184", "--people-listen", "127.0.0.1:18183")
	node.Stderr = os.Stderr
	if err := node.Start(); err != nil {
		return fmt.Errorf("start a node: %w", err)
	}
	stop := func() error {
		err := node.Process.Signal(syscall.SIGINT)
		return errors.Join(err, node.Wait())
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if exec.Command(palisade, "status", "--run", directory).Run() == nil {
			break
		}
		if time.Now().After(deadline) {
			return errors.Join(errors.New("the node is not healthy after 30 s"), stop())
		}
	}
	return errors.Join(measure(), stop())
}

func compare(operations []operation, without, with samples) []result {
	results := make([]result, 0, len(operations))
	for _, op := range operations {
		r := result{Operation: op.name, Without: median(without[op.name]), With: median(with[op.name])}
		r.Ratio = r.With / r.Without
		results = append(results, r)
	}
	return results
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func print(out io.Writer, format string, results []result) error {
	if format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(results)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "operation\twithout node\twith node\tratio\t")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%.0f ns\t%.0f ns\t%.2f\t\n", r.Operation, r.Without, r.With, r.Ratio)
	}
	return table.Flush()
}
