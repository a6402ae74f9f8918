package admit

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/admission/kept"
	"github.com/palisade-sec/palisade/services/enforcer/internal/identity"
)

const (
	// scanTime bounds one scan; the scanner's own bound is smaller.
	scanTime = 10 * time.Minute
	// retryTime is how long an image is left alone after its scan failed.
	retryTime = time.Minute
	// maxWaiting bounds the images that wait to be scanned or kept.
	maxWaiting = 256
	// reportTime bounds the question for a report.
	reportTime = 50 * time.Millisecond
)

// keeper keeps what is known of images for who decides when the enforcer does not answer.
type keeper interface {
	PutImage(key string, image *enforcerv1.KnownImage) error
}

// images knows what is known of images, and sees to it that more is.
type images struct {
	scanner scannerv1.ScannerServiceClient // nil if the node has none
	keeper  keeper
	log     *slog.Logger
	work    chan seen

	mu sync.Mutex
	// busy are the images that wait or are looked at, by digest, and failed why the last scan of one failed. Guarded by mu.
	busy   map[string]bool
	failed map[string]failure
	// stored are the images on disk by their key, with what is known of them in a few words. Guarded by mu.
	stored map[string]string
}

type failure struct {
	reason string
	until  time.Time
}

// seen is an image that a container is created of.
type seen struct {
	container identity.Container
	layers    []string
	report    *scannerv1.Report
}

func newImages(scanner scannerv1.ScannerServiceClient, k keeper, log *slog.Logger) *images {
	return &images{
		scanner: scanner, keeper: k, log: log, work: make(chan seen, maxWaiting),
		busy: map[string]bool{}, failed: map[string]failure{}, stored: map[string]string{},
	}
}

// report is what the scanner has on the container's image, or why there is nothing.
func (i *images) report(ctx context.Context, c identity.Container, layers []string) (*scannerv1.Report, string) {
	switch {
	case i.scanner == nil:
		return nil, "this node has no scanner"
	case c.Digest == "":
		return nil, "it is not known which image this is"
	}
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	answer, err := i.scanner.GetReport(ctx, &scannerv1.GetReportRequest{ImageDigest: c.Digest})
	switch {
	case err == nil && answer.GetReport() != nil:
		return answer.GetReport(), ""
	case err != nil && status.Code(err) != codes.NotFound:
		return nil, "the scanner does not answer: palisade status scanner"
	case len(layers) == 0:
		return nil, "it has not been scanned, and its file system is none that can be: palisade scan can, from a directory"
	}
	return nil, i.whyNot(c.Digest)
}

// whyNot says how far the scan is. After the question one begins (see seen).
func (i *images) whyNot(digest string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	failed, ok := i.failed[digest]
	switch {
	case i.busy[digest]:
		return "it is being scanned: try again in a moment"
	case ok && time.Now().Before(failed.until):
		return "its scan failed: " + failed.reason
	}
	return "it has not been scanned; that begins now: try again in a moment"
}

// seen has the image scanned if nothing is known of it, and kept. It does not block: if too many wait, the image's next container does it.
func (i *images) seen(c identity.Container, layers []string, report *scannerv1.Report) {
	if len(layers) == 0 || c.Image == "" && c.Digest == "" {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	key := kept.Key(layers)
	toScan := i.scans(c, report)
	known := !toScan && i.stored[key] == words(c, report)
	failed := toScan && time.Now().Before(i.failed[c.Digest].until)
	if i.busy[key] || toScan && i.busy[c.Digest] || known || failed {
		return
	}
	select {
	case i.work <- seen{container: c, layers: layers, report: report}:
		i.busy[key], i.busy[c.Digest] = true, true
	default:
		i.log.Warn("Too many images wait to be scanned", "image", c.Image)
	}
}

// scans says whether there is something to find out about an image.
func (i *images) scans(c identity.Container, report *scannerv1.Report) bool {
	return i.scanner != nil && report == nil && c.Digest != ""
}

// words tell apart what is known of an image.
func words(c identity.Container, report *scannerv1.Report) string {
	return fmt.Sprint(c.Image, " ", c.Digest, " ", report.GetScannedAt().AsTime().UnixNano(), " ", report.GetAdvisoriesAt().AsTime().UnixNano())
}

// run scans and keeps, one image at a time, until ctx ends.
func (i *images) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case image := <-i.work:
			i.look(ctx, image)
		}
	}
}

// look scans an image of which nothing is known, and keeps what is known then.
func (i *images) look(ctx context.Context, image seen) {
	key := kept.Key(image.layers)
	defer i.forget(key, image.container.Digest)
	var scanErr error
	if i.scans(image.container, image.report) {
		image.report, scanErr = i.scan(ctx, image)
		i.fail(image.container.Digest, scanErr)
	}
	err := i.keeper.PutImage(key, &enforcerv1.KnownImage{
		Image: image.container.Image, Digest: image.container.Digest, DiffIds: image.container.DiffIDs, Report: image.report,
	})
	if err != nil {
		i.log.WarnContext(ctx, "What is known of an image could not be kept", "image", image.container.Image, "err", err)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.stored) >= maxWaiting*16 {
		clear(i.stored)
	}
	i.stored[key] = words(image.container, image.report)
}

func (i *images) scan(ctx context.Context, image seen) (*scannerv1.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, scanTime)
	defer cancel()
	answer, err := i.scanner.Scan(ctx, &scannerv1.ScanRequest{
		Image: image.container.Image, ImageDigest: image.container.Digest, Layers: image.layers,
	})
	if err != nil {
		i.log.WarnContext(ctx, "An image could not be scanned", "image", image.container.Image, "err", err)
		return nil, err
	}
	return answer.GetReport(), nil
}

// fail remembers why a scan failed, or that it did not.
func (i *images) fail(digest string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.failed, digest)
	if err == nil {
		return
	}
	if len(i.failed) >= maxWaiting {
		clear(i.failed)
	}
	i.failed[digest] = failure{reason: status.Convert(err).Message(), until: time.Now().Add(retryTime)}
}

func (i *images) forget(names ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, name := range names {
		delete(i.busy, name)
	}
}
