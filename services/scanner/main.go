package main

import (
	"context"

	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/services/scanner/internal/child"
)

func main() { daemon.Main("scanner", run) }

func run(ctx context.Context, env daemon.Env) error {
	if len(env.Args) > 0 && env.Args[0] == child.Word {
		return child.Main(ctx, env.Args[1:], env.Stdout)
	}
	return nil
}
