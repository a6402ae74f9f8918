package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/cli/internal/launch"
)

const (
	// shortestDigest is how many hexadecimal digits name an image.
	shortestDigest = 12
	// askTime bounds a question; matching a large report anew takes a second or two.
	askTime = time.Minute
)

// keptReport is the report of an image that the node's scanner keeps.
func (c *command) keptReport(ctx context.Context, image string) (*scannerv1.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	reports, err := c.reports(ctx)
	if err != nil {
		return nil, err
	}
	digest, err := find(reports, image)
	if err != nil {
		return nil, err
	}
	conn, err := c.Dial("scanner")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, err := scannerv1.NewScannerServiceClient(conn).GetReport(ctx, &scannerv1.GetReportRequest{ImageDigest: digest})
	if err != nil {
		return nil, c.Explain("scanner", err)
	}
	return answer.GetReport(), nil
}

// find is the digest of the image that is meant: by name, digest, or the beginning of that.
func find(reports []*scannerv1.Report, image string) (string, error) {
	var found []string
	prefix := strings.TrimPrefix(image, "sha256:")
	for _, r := range reports {
		hex := strings.TrimPrefix(r.GetImageDigest(), "sha256:")
		_, byDigest := strings.CutPrefix(image, r.GetImage()+"@")
		if r.GetImage() == image || byDigest && strings.HasSuffix(image, "@"+r.GetImageDigest()) || len(prefix) >= shortestDigest && strings.HasPrefix(hex, prefix) {
			found = append(found, r.GetImageDigest())
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("there is no report of %s: images are scanned when a container of them is created; see `palisade scan --list`", shown(image))
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%s is the name of several images: name one of %s", shown(image), strings.Join(found, ", "))
}

// scanDirectory runs the scanner's program over a root directory.
func (c *command) scanDirectory(ctx context.Context, diagnostics io.Writer) (*scannerv1.Report, error) {
	root, err := filepath.Abs(c.rootfs)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return nil, fmt.Errorf("--rootfs: %w", err)
	}
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return nil, errors.Join(fmt.Errorf("--rootfs: %s is no directory", root), err)
	}
	binary := filepath.Join(c.binaries, "palisade-scanner")
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("find the scanner: %w: name its directory with --bin", err)
	}
	var answer bytes.Buffer
	if err := launch.Engine(ctx, binary, []string{"once", "-advisories", c.advisories, root}, &answer, diagnostics); err != nil {
		return nil, err
	}
	report := &scannerv1.Report{}
	if err := proto.Unmarshal(answer.Bytes(), report); err != nil {
		return nil, fmt.Errorf("read the scanner's report: %w", err)
	}
	report.Image = root
	return report, nil
}
