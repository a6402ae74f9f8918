// Package scan serves ScannerService: it has layers looked at (package child), matches what is found with advisories, and keeps the
// report (package cache). One image is scanned at a time, because a scan has most of the process's memory to itself.
package scan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/advisory"
	"github.com/palisade-sec/palisade/internal/escape"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/services/scanner/internal/cache"
	"github.com/palisade-sec/palisade/services/scanner/internal/child"
)

const (
	// maxWaiting bounds the scans that wait for the one that runs.
	maxWaiting = 32
	// maxImage bounds an image's name, in bytes.
	maxImage = 1024
	// maxLines bounds the faults of a report.
	maxLines = 128
)

// Callers says who may ask for what.
func Callers() rpc.Callers {
	return rpc.Callers{
		scannerv1.ScannerService_GetReport_FullMethodName:   {"enforcer", rpc.Operator}, // admission; palisade scan
		scannerv1.ScannerService_ListReports_FullMethodName: {rpc.Operator},             // palisade scan
		scannerv1.ScannerService_Scan_FullMethodName:        {"enforcer", rpc.Operator}, // admission; palisade scan
	}
}

// Service is the scanner.
type Service struct {
	scannerv1.UnimplementedScannerServiceServer
	child      child.Config
	advisories *Advisories
	cache      *cache.Cache
	log        *slog.Logger
	metrics    *metrics

	running singleflight.Group // by digest
	turn    chan struct{}      // one scan at a time
	waiting atomic.Int64
}

// New returns a service.
func New(cfg child.Config, advisories *Advisories, kept *cache.Cache, log *slog.Logger, registry *prometheus.Registry) *Service {
	s := &Service{child: cfg, advisories: advisories, cache: kept, log: log, turn: make(chan struct{}, 1)}
	s.metrics = newMetrics(registry, func() float64 { return float64(s.waiting.Load()) })
	return s
}

// Register adds the service to a server.
func (s *Service) Register(server grpc.ServiceRegistrar) {
	scannerv1.RegisterScannerServiceServer(server, s)
}

// GetReport implements ScannerService.
func (s *Service) GetReport(ctx context.Context, req *scannerv1.GetReportRequest) (*scannerv1.GetReportResponse, error) {
	digest := req.GetImageDigest()
	if !cache.ValidDigest(digest) {
		return nil, status.Error(codes.InvalidArgument, "image_digest: want sha256: and 64 hexadecimal digits")
	}
	kept, err := s.cache.Get(digest)
	if err != nil {
		return nil, s.status(ctx, err)
	}
	newest, err := s.advisories.importedAt()
	if err != nil { // what is kept was matched with a store that is gone; it says with which
		s.log.WarnContext(ctx, "Returned a report without looking for newer advisories", "err", err)
		return &scannerv1.GetReportResponse{Report: kept.Report()}, nil
	}
	if kept.Matched.GetAdvisoriesAt().AsTime().Equal(newest) {
		return &scannerv1.GetReportResponse{Report: kept.Report()}, nil
	}
	// The answer is for all who ask at this time, so it does not end with the call of one of them.
	again, err := s.once(ctx, "match "+digest, func(ctx context.Context) (*scannerv1.Report, error) {
		m := kept.Matched
		return s.finish(ctx, kept.Scanned, &scannerv1.Report{Image: m.GetImage(), ImageDigest: digest, ScannedAt: m.GetScannedAt()})
	})
	if err != nil {
		return nil, err
	}
	return &scannerv1.GetReportResponse{Report: again}, nil
}

// ListReports implements ScannerService.
func (s *Service) ListReports(ctx context.Context, _ *scannerv1.ListReportsRequest) (*scannerv1.ListReportsResponse, error) {
	reports, err := s.cache.List()
	if err != nil {
		return nil, s.status(ctx, err)
	}
	return &scannerv1.ListReportsResponse{Reports: reports}, nil
}

// Scan implements ScannerService.
func (s *Service) Scan(ctx context.Context, req *scannerv1.ScanRequest) (*scannerv1.ScanResponse, error) {
	if err := check(req); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if _, err := s.advisories.importedAt(); err != nil {
		return nil, s.status(ctx, err)
	}
	image := string(escape.Append(nil, req.GetImage()))
	layers := slices.Clone(req.GetLayers())
	key := req.GetImageDigest()
	if key == "" { // of such scans each is its own
		key = fmt.Sprintf("%p", req)
	}
	report, err := s.once(ctx, key, func(ctx context.Context) (*scannerv1.Report, error) {
		scanned, err := s.look(ctx, layers)
		if err != nil {
			return nil, err
		}
		return s.finish(ctx, scanned, &scannerv1.Report{Image: image, ImageDigest: req.GetImageDigest(), ScannedAt: timestamppb.Now()})
	})
	if err != nil {
		return nil, err
	}
	return &scannerv1.ScanResponse{Report: report}, nil
}

func check(req *scannerv1.ScanRequest) error {
	if len(req.GetImage()) > maxImage {
		return fmt.Errorf("image: %d bytes, at most %d", len(req.GetImage()), maxImage)
	}
	if req.GetImageDigest() != "" && !cache.ValidDigest(req.GetImageDigest()) {
		return errors.New("image_digest: want sha256: and 64 hexadecimal digits, or nothing")
	}
	if err := child.CheckLayers(req.GetLayers()); err != nil {
		return err
	}
	for i, layer := range req.GetLayers() {
		if info, err := os.Stat(layer); err != nil || !info.IsDir() {
			return fmt.Errorf("layers: number %d is no directory that the scanner can see", i+1)
		}
	}
	return nil
}

// once has one answer made for all who ask for the same at the same time. Who stops waiting does not stop it.
func (s *Service) once(ctx context.Context, key string, f func(context.Context) (*scannerv1.Report, error)) (*scannerv1.Report, error) {
	answer := s.running.DoChan(key, func() (any, error) { return f(context.WithoutCancel(ctx)) })
	select {
	case a := <-answer:
		if a.Err != nil {
			return nil, s.status(ctx, a.Err)
		}
		report, _ := a.Val.(*scannerv1.Report)
		return report, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// errBusy says that too many wait.
var errBusy = errors.New("too many scans wait")

// look waits for its turn and has the layers looked at.
func (s *Service) look(ctx context.Context, layers []string) (*scannerv1.Report, error) {
	if s.waiting.Add(1) > maxWaiting {
		s.waiting.Add(-1)
		s.metrics.scans.WithLabelValues("refused").Inc()
		return nil, errBusy
	}
	s.turn <- struct{}{}
	s.waiting.Add(-1)
	defer func() { <-s.turn }()
	began := time.Now()
	report, err := child.Run(ctx, s.child, layers)
	s.metrics.took.Observe(time.Since(began).Seconds())
	if err != nil {
		s.metrics.scans.WithLabelValues("failed").Inc()
		return nil, err
	}
	s.metrics.scans.WithLabelValues("done").Inc()
	return report, nil
}

// finish matches what was found, and keeps it if the image has a digest.
func (s *Service) finish(ctx context.Context, scanned, report *scannerv1.Report) (*scannerv1.Report, error) {
	found, importedAt, err := s.advisories.match(ctx, scanned)
	if err != nil {
		return nil, err
	}
	report.AdvisoriesAt = timestamppb.New(importedAt)
	report.Vulnerabilities = found.Vulnerabilities
	report.Faults = slices.Concat(scanned.GetFaults(), found.Faults)
	report.Faults = report.Faults[:min(len(report.Faults), maxLines)]
	entry := cache.Entry{Scanned: scanned, Matched: report}
	if report.GetImageDigest() != "" {
		if err := s.cache.Put(entry); err != nil { // the answer is none the worse
			s.log.ErrorContext(ctx, "A report is not kept", "err", err)
		}
	}
	return entry.Report(), nil
}

// status turns an error into one for callers, who are the enforcer and root.
func (s *Service) status(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, cache.ErrNone):
		return status.Error(codes.NotFound, "the image has not been scanned")
	case errors.Is(err, advisory.ErrNone):
		return status.Error(codes.FailedPrecondition, "there are no advisories: import some with `palisade vulndb import`")
	case errors.Is(err, errBusy):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, child.ErrFailed):
		s.log.WarnContext(ctx, "Scan failed", "err", err)
		return status.Error(codes.ResourceExhausted, string(escape.Append(nil, err.Error())))
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	s.log.ErrorContext(ctx, "Call failed", "err", err)
	return status.Error(codes.Internal, "see the scanner's log")
}
