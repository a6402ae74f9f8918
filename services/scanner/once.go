package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/palisade-sec/palisade/internal/advisory"
	"github.com/palisade-sec/palisade/services/scanner/internal/child"
	"github.com/palisade-sec/palisade/services/scanner/internal/scan"
)

// onceWord begins the command line of `palisade scan --rootfs` where no node runs.
const onceWord = "once"

// once scans layers with the rights of who calls, in a process restricted as the service's are, and writes the report (protobuf).
func once(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet(onceWord, flag.ContinueOnError)
	advisories := flags.String("advisories", advisory.Directory, "`directory` that `palisade vulndb import` wrote")
	limit := flags.Duration("time", 5*time.Minute, "bound of the scan")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := child.CheckLayers(flags.Args()); err != nil {
		return err
	}
	store := scan.NewAdvisories(*advisories)
	defer store.Close()
	cfg := child.Config{Scratch: os.TempDir(), Time: *limit, Bounds: child.DefaultBounds()}
	report, err := scan.Once(ctx, cfg, store, flags.Args())
	if err != nil {
		return err
	}
	raw, err := proto.Marshal(report)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	_, err = out.Write(raw)
	return err
}
