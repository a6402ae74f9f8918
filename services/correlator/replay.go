package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/pprof"

	"google.golang.org/protobuf/encoding/protojson"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/recording"
	"github.com/palisade-sec/palisade/services/correlator/internal/pipeline"
	"github.com/palisade-sec/palisade/services/correlator/internal/replay"
)

// replayFlags are the words after `palisade-correlator replay`.
type replayFlags struct {
	file     string
	rules    []string
	json     bool
	findings bool
	events   uint64
	sample   uint64
	profile  string
}

// parseReplay reads them.
func parseReplay(args []string, out io.Writer) (replayFlags, error) {
	var f replayFlags
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Func("rules", "one more rule `file`, or a directory of them; may be given again", func(path string) error {
		f.rules = append(f.rules, path)
		return nil
	})
	output := flags.String("o", "text", "text or json")
	flags.BoolVar(&f.findings, "findings", false, "print each finding, one line of JSON, before the report")
	flags.Uint64Var(&f.events, "events", 0, "go over the recording again and again, with new processes and containers each time, until there were `n` events")
	flags.Uint64Var(&f.sample, "sample", 256, "time the rules on one of `n` events; 0 for none")
	flags.StringVar(&f.profile, "cpuprofile", "", "write a profile for go tool pprof to `file`")
	if err := flags.Parse(args); err != nil {
		return f, err
	}
	if flags.NArg() != 1 {
		return f, errors.New("replay: name one recording")
	}
	if *output != "text" && *output != "json" {
		return f, fmt.Errorf("-o: %q is not text or json", *output)
	}
	f.file, f.json = flags.Arg(0), *output == "json"
	return f, nil
}

// runReplay is `palisade-correlator replay`: this very binary's engine over a recording. It speaks to no other process and needs no
// privilege.
func runReplay(ctx context.Context, env daemon.Env) error {
	f, err := parseReplay(env.Args[1:], env.Stdout)
	if err != nil {
		return err
	}
	set, err := loadRules(ctx, f.rules, env.Log)
	if err != nil {
		return err
	}
	file, err := os.Open(f.file)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	defer file.Close()
	reader, err := recording.NewReader(bufio.NewReaderSize(file, 1<<20))
	if err != nil {
		return fmt.Errorf("%s: %w", f.file, err)
	}
	defer reader.Close()
	cfg := replay.Config{Engine: pipeline.DefaultConfig(), Rules: set, Sample: f.sample, Log: env.Log}
	var source replay.Source = reader
	if f.events > 0 {
		cfg.Fifth = f.events / 5
		if source, err = replay.NewLoop(reader, f.events); err != nil {
			return fmt.Errorf("%s: %w", f.file, err)
		}
	}
	if f.findings {
		cfg.Finding = func(finding *findingv1.Finding) error { return printFinding(env.Stdout, finding) }
	}
	stop, err := profileTo(f.profile)
	if err != nil {
		return err
	}
	report, err := replay.Run(ctx, cfg, source)
	if err = errors.Join(err, stop()); report == nil {
		return err
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", f.file, err)
	}
	if f.json {
		return errors.Join(report.JSON(env.Stdout), err)
	}
	return errors.Join(report.Text(env.Stdout), err)
}

// profileTo starts a profile of the processor's time, if there is a path for it.
func profileTo(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	out, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("-cpuprofile: %w", err)
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return nil, errors.Join(fmt.Errorf("-cpuprofile: %w", err), out.Close())
	}
	return func() error { pprof.StopCPUProfile(); return out.Close() }, nil
}

// printFinding writes one line. JSON escapes control characters, so that what a container chose drives no terminal.
func printFinding(w io.Writer, f *findingv1.Finding) error {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(f)
	if err != nil {
		return fmt.Errorf("print finding: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", raw)
	return err
}
