// Command loadtest calls every unix socket of a running node as often as it is allowed to, with ghz, and says how fast
// the answers came.
//
// Each file ghz/<case>.json is a configuration of ghz with two tags: the process to call, and the caller to be. The
// node must be one that may be thrown away: the findings it is given are stored and delivered.
//
// # Privileges
//
// Runs as root, because each ghz runs as the uid of the process it stands for, in that uid's and the sockets' group: the
// sockets ask the kernel who calls. As another uid ghz has no capability; as the operator it is root. Writes a temporary
// directory and starts nothing but ghz.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/palisade-sec/palisade/internal/daemon"
)

// settings are the command line's.
type settings struct {
	runDirectory string
	ghz          string
	protoset     string
	cases        string
	only         string
	output       string
	most         int
	longest      time.Duration
}

func main() { daemon.Main("loadtest", run) }

func run(ctx context.Context, env daemon.Env) error {
	var s settings
	flags := flag.NewFlagSet(env.Name, flag.ContinueOnError)
	flags.StringVar(&s.runDirectory, "run", "/run/palisade", "`directory` of the node's sockets")
	flags.StringVar(&s.ghz, "ghz", "ghz", "`path` of ghz (built from tools/ghz)")
	flags.StringVar(&s.protoset, "protoset", "", "`file` that `buf build -o` made of api")
	flags.StringVar(&s.cases, "cases", "ghz", "`directory` of the cases")
	flags.StringVar(&s.only, "only", "", "run only cases whose name has this `prefix`")
	flags.StringVar(&s.output, "o", "table", "output `format`, table or json")
	flags.IntVar(&s.most, "n", 0, "at most so many calls a case; 0 keeps each case's own number")
	flags.DurationVar(&s.longest, "t", 30*time.Second, "longest time a case may take")
	if err := flags.Parse(env.Args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if err := s.validate(flags.NArg()); err != nil {
		return err
	}
	r, err := newRunner(s)
	if err != nil {
		return err
	}
	defer func() { _ = r.close() }() // a temporary directory
	cases, err := loadCases(s)
	if err != nil {
		return err
	}
	results := make([]result, 0, len(cases))
	for _, c := range cases {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		results = append(results, r.run(ctx, c))
	}
	if err := write(env.Stdout, s.output, results); err != nil {
		return err
	}
	return verdict(results)
}

func (s settings) validate(words int) error {
	var errs []error
	if words > 0 {
		errs = append(errs, errors.New("unexpected argument: see -help"))
	}
	if s.output != "table" && s.output != "json" {
		errs = append(errs, fmt.Errorf("-o: %q is not table or json", s.output))
	}
	if s.most < 0 {
		errs = append(errs, fmt.Errorf("-n: %d is negative", s.most))
	}
	if s.longest <= 0 || s.longest > time.Hour {
		errs = append(errs, fmt.Errorf("-t: %v is not within 0s and 1h", s.longest))
	}
	if _, err := os.Stat(s.protoset); err != nil {
		errs = append(errs, fmt.Errorf("-protoset: %w: make it with `buf build -o FILE`", err))
	}
	if os.Getuid() != 0 {
		errs = append(errs, errors.New("not root: callers have uids of their own"))
	}
	return errors.Join(errs...)
}

// verdict is an error if any call of any case failed, or none was made.
func verdict(results []result) error {
	if len(results) == 0 {
		return errors.New("no case to run")
	}
	var failed int
	for _, r := range results {
		if r.failed() {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d cases had errors", failed, len(results))
	}
	return nil
}
