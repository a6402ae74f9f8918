package scan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/cli/internal/ahead"
	"github.com/palisade-sec/palisade/cli/internal/show"
)

// lookAhead has images scanned until ctx ends, a line for each.
func (c *command) lookAhead(cmd *cobra.Command) error {
	tell := func(image string, vulnerabilities int, fault string) {
		if *c.Output == "json" {
			_ = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"image": image, "vulnerabilities": vulnerabilities, "error": fault}) // a reader that is gone misses it
			return
		}
		if fault != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s could not be scanned: %s\n", show.Safe(image), show.Safe(fault))
			return
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s scanned: %d vulnerabilities\n", show.Safe(image), vulnerabilities)
	}
	err := ahead.Watcher{
		Socket:  c.containerd,
		Dial:    func() (*grpc.ClientConn, error) { return c.Dial("scanner") },
		Scanned: func(image string, r *scannerv1.Report) { tell(image, len(r.GetVulnerabilities()), "") },
		Failed:  func(image string, err error) { tell(image, 0, c.Explain("scanner", err).Error()) },
	}.Run(cmd.Context())
	if errors.Is(err, context.Canceled) {
		return nil // it was stopped
	}
	return err
}
