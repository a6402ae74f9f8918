package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/cli/internal/demo"
	"github.com/palisade-sec/palisade/cli/internal/show"
	"github.com/palisade-sec/palisade/internal/daemon"
)

const (
	// seenWithin is how long after an attack's end the demo waits for the node to notice it.
	seenWithin = 5 * time.Second
	// attackWithin is how long an attack may take, which is the container runtime's doing: the longest sleeps for 20 s.
	attackWithin = time.Minute
)

func newDemo(opts *options) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Do three harmless attacks in a container and see what the node makes of them",
		Long: `Starts a small container through containerd (image ` + demo.Image + `, made on the spot from the host's
busybox), does three harmless attacks in it and removes it. After each it waits for the node's finding.

The exit code is 0 if the node noticed all of them, 1 if not.`,
		Example: `  palisade demo
  palisade demo -o json | jq '.attacks[] | {rule, seen_after_ms, killed}'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), opts, socket, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&socket, "containerd-socket", "/run/containerd/containerd.sock", "containerd's socket")
	return cmd
}

// demoReport is what -o json prints.
type demoReport struct {
	ContainerID string         `json:"container_id"`
	Image       string         `json:"image"`
	Attacks     []attackReport `json:"attacks"`
	// StillRunning says that the container itself never noticed.
	StillRunning bool `json:"still_running"`
}

type attackReport struct {
	Rule        string `json:"rule"`
	Seen        bool   `json:"seen"`
	SeenAfterMs int64  `json:"seen_after_ms"`
	FindingID   string `json:"finding_id"`
	ExitCode    uint32 `json:"exit_code"`
	Killed      bool   `json:"killed"`
	Action      string `json:"action"`
}

func runDemo(ctx context.Context, opts *options, socket string, out io.Writer) error {
	if status := opts.askStatus(ctx, "uplink"); status.PID == 0 { // without its console it still keeps findings
		return fmt.Errorf("no node to watch the demo: %v", status.Warnings)
	}
	findings := make(chan *findingv1.Finding, 256)
	report := demoReport{Image: demo.Image}
	attacks := func(ctx context.Context) error {
		var err error
		report, err = attackContainer(ctx, socket, findings, opts.narrator(out))
		return err
	}
	err := daemon.RunAll(ctx, seenWithin,
		daemon.Task{Name: "findings", Run: func(ctx context.Context) error { return collect(ctx, opts, findings) }},
		daemon.Task{Name: "demo", Run: attacks},
	)
	if err == nil && opts.output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	}
	return errors.Join(err, report.missed())
}

func (r demoReport) missed() error {
	for _, attack := range r.Attacks {
		if !attack.Seen {
			return fmt.Errorf("the node did not report %q within %v of its end", attack.Rule, seenWithin)
		}
	}
	return nil
}

// narrator tells people what happens; with -o json it is silent.
func (o *options) narrator(out io.Writer) func(format string, args ...any) {
	if o.output == "json" {
		return func(string, ...any) {}
	}
	return func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
}

// collect passes on the node's findings as they come.
func collect(ctx context.Context, opts *options, findings chan<- *findingv1.Finding) error {
	conn, err := opts.dial("uplink")
	if err != nil {
		return err
	}
	defer conn.Close()
	return watch(ctx, conn, 0, func(f *findingv1.Finding) error {
		select {
		case findings <- f:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
}

func attackContainer(ctx context.Context, socket string, findings <-chan *findingv1.Finding, say func(string, ...any),
) (report demoReport, err error) {
	say("Starting a container from %s …", demo.Image)
	container, err := demo.Start(ctx, socket)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, container.Close(ctx)) }()
	report = demoReport{ContainerID: container.ID(), Image: demo.Image}
	say("Container %s runs as pid %d.\n", container.ID(), container.PID())
	for i, attack := range demo.Attacks {
		say("%d. %s.", i+1, sentence(attack.Story))
		result, err := oneAttack(ctx, container, attack, findings)
		if err != nil {
			return report, err
		}
		report.Attacks = append(report.Attacks, result)
		say("%s\n", result.text())
	}
	report.StillRunning, err = container.Running(ctx)
	if report.StillRunning {
		say("The container itself still runs; removing it.")
	}
	return report, err
}

// oneAttack runs it and waits for its finding, which may come before the attack has ended. How long a start takes is the
// host's speed, so the wait for the finding is counted from the end.
func oneAttack(ctx context.Context, container *demo.Container, attack demo.Attack, findings <-chan *findingv1.Finding,
) (attackReport, error) {
	ctx, cancel := context.WithTimeout(ctx, attackWithin+seenWithin)
	defer cancel()
	began := time.Now()
	type outcome struct {
		result demo.Result
		err    error
	}
	ended := make(chan outcome, 1)
	go func() { // ends with the attack or the context
		result, err := container.Run(ctx, attack, fmt.Sprintf("attack-%d", began.UnixNano()))
		ended <- outcome{result, err}
	}()
	report := attackReport{Rule: attack.Rule}
	var late <-chan time.Time // of the finding, once the attack has ended
	for wait := ended; !report.Seen || wait != nil; {
		select {
		case f := <-findings:
			if f.GetRule() == attack.Rule && f.GetWorkload().GetContainerId() == container.ID() && !report.Seen {
				report.found(f, time.Since(began))
			}
		case end := <-wait:
			if end.err != nil {
				return report, end.err
			}
			report.ExitCode, report.Killed, wait = end.result.ExitCode, end.result.Killed(), nil
			late = time.After(seenWithin)
		case <-late:
			return report, nil
		case <-ctx.Done():
			return report, fmt.Errorf("%s: %w", attack.Rule, ctx.Err())
		}
	}
	return report, nil
}

func (r *attackReport) found(f *findingv1.Finding, after time.Duration) {
	r.Seen, r.SeenAfterMs, r.FindingID = true, after.Milliseconds(), f.GetId()
	if f.GetAction() != nil {
		r.Action = show.ActionText(f.GetAction())
	}
}

func (r attackReport) text() string {
	if !r.Seen {
		return "   The node did NOT report it."
	}
	text := fmt.Sprintf("   Seen after %d ms: %s", r.SeenAfterMs, r.Rule)
	if r.Action != "" {
		text += "\n   " + r.Action
	}
	if r.Killed {
		text += " (exit code 137)"
	}
	return text
}

// sentence is text with a capital first letter.
func sentence(text string) string {
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return text
	}
	return string(text[0]-'a'+'A') + text[1:]
}
