// Package ahead has images scanned as soon as containerd has them, so that the first container of one finds the report.
//
// In: containerd's images, those that are there and those that come. Out: calls of the node's scanner, one at a time, for images that it has no report
// of. It reads no image itself: it asks containerd in which directories the layers are, and the scanner reads those.
//
// # Privileges
//
// Root, for containerd's socket. It creates a view of an image's layers for as long as their scan takes, which keeps them from being
// deleted meanwhile; a lease removes it if this process dies.
package ahead

import (
	"context"
	"errors"
	"fmt"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

const (
	// retry is the time between attempts to reach containerd, and at what could not be scanned yet.
	retry = 5 * time.Second
	// tries is how often an image is looked at: one that is pulled is told of before its layers are unpacked.
	tries = 24
	// noAdvisories is how long the scanner is left alone that has nothing to match with.
	noAdvisories = time.Minute
	// scanTime bounds one scan; the scanner's own bound is smaller.
	scanTime = 10 * time.Minute
	// maxWaiting bounds the images that wait.
	maxWaiting = 4096
)

// Watcher is who looks ahead.
type Watcher struct {
	// Socket is containerd's.
	Socket string
	// Dial connects to the node's scanner.
	Dial func() (*grpc.ClientConn, error)
	// Scanned is told of each image that was scanned, and Failed of one that could not be: its first container tries again. Each may be nil.
	Scanned func(image string, report *scannerv1.Report)
	Failed  func(image string, err error)
}

// image is one that waits.
type image struct{ namespace, name string }

// errLater says that an image cannot be scanned yet.
var errLater = errors.New("it is not unpacked")

// Run looks ahead until ctx ends. It returns no other error: without it images are scanned when a container of them is created.
func (w Watcher) Run(ctx context.Context) error {
	conn, err := w.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		_ = w.follow(ctx, scannerv1.NewScannerServiceClient(conn)) // containerd is not there, or went away: it may come
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
}

// follow is one connection to containerd.
func (w Watcher) follow(ctx context.Context, scanner scannerv1.ScannerServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	containerd, err := client.New(w.Socket, client.WithTimeout(retry))
	if err != nil {
		return err
	}
	defer containerd.Close()
	told, failed := containerd.Subscribe(ctx, `topic=="/images/create"`, `topic=="/images/update"`)
	waiting, err := present(ctx, containerd)
	if err != nil {
		return err
	}
	tried := map[image]int{}
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case envelope := <-told:
			if i, ok := named(envelope); ok && len(waiting) < maxWaiting {
				waiting = append(waiting, i)
				delete(tried, i)
			}
			continue
		case <-after(wait, len(waiting) > 0):
		}
		i := waiting[0]
		waiting, wait = waiting[1:], 0
		err := w.visit(ctx, containerd, scanner, i)
		tried[i]++
		switch {
		case err == nil:
			delete(tried, i)
		case status.Code(err) == codes.FailedPrecondition:
			waiting, wait = append(waiting, i), noAdvisories
		case (errors.Is(err, errLater) || status.Code(err) == codes.ResourceExhausted || status.Code(err) == codes.Unavailable) && tried[i] < tries:
			waiting, wait = append(waiting, i), retry
		case w.Failed != nil && !errors.Is(err, errLater):
			w.Failed(i.name, err)
		}
	}
}

// after is time.After, or never.
func after(wait time.Duration, ever bool) <-chan time.Time {
	if !ever {
		return nil
	}
	return time.After(wait)
}

// present are the images of all namespaces.
func present(ctx context.Context, containerd *client.Client) ([]image, error) {
	all, err := containerd.NamespaceService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containerd's namespaces: %w", err)
	}
	var found []image
	for _, namespace := range all {
		images, err := containerd.ImageService().List(namespaces.WithNamespace(ctx, namespace))
		if err != nil {
			return nil, fmt.Errorf("list the images of %s: %w", namespace, err)
		}
		for _, i := range images {
			found = append(found, image{namespace, i.Name})
		}
	}
	return found[:min(len(found), maxWaiting)], nil
}

// named is the image that an event is about.
func named(envelope *events.Envelope) (image, bool) {
	if envelope == nil || envelope.Event == nil {
		return image{}, false
	}
	event, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		return image{}, false
	}
	switch event := event.(type) {
	case *eventsapi.ImageCreate:
		return image{envelope.Namespace, event.GetName()}, true
	case *eventsapi.ImageUpdate:
		return image{envelope.Namespace, event.GetName()}, true
	}
	return image{}, false
}

// visit has an image scanned of which there is no report.
func (w Watcher) visit(ctx context.Context, containerd *client.Client, scanner scannerv1.ScannerServiceClient, i image) error {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, i.namespace), scanTime)
	defer cancel()
	found, err := containerd.GetImage(ctx, i.name)
	if errdefs.IsNotFound(err) {
		return nil // it was removed meanwhile
	}
	if err != nil {
		return err
	}
	digest := found.Target().Digest.String()
	kept, err := scanner.GetReport(ctx, &scannerv1.GetReportRequest{ImageDigest: digest})
	if kept.GetReport() != nil || err != nil && status.Code(err) != codes.NotFound {
		return err
	}
	layers, done, err := unpacked(ctx, containerd, found)
	if err != nil {
		return err
	}
	defer done()
	answer, err := scanner.Scan(ctx, &scannerv1.ScanRequest{Image: i.name, ImageDigest: digest, Layers: layers})
	if err == nil && w.Scanned != nil {
		w.Scanned(i.name, answer.GetReport())
	}
	return err
}
