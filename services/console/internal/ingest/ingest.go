// Package ingest is what nodes meet on 8084: one method, over mutual TLS. A node's name comes from its certificate and
// is stamped on everything it sends.
package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consolev1 "github.com/palisade-sec/palisade/api/palisade/console/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/mtls"
)

const (
	maxFindings     = 1000
	maxFindingBytes = 1 << 20
	idBytes         = 32
	// storeTimeout bounds a push whose caller set no deadline.
	storeTimeout = 30 * time.Second
)

// Journal keeps findings durably.
type Journal interface {
	Append(ctx context.Context, node string, findings []*findingv1.Finding) (stored int, err error)
}

// Index knows which findings are kept already.
type Index interface {
	// Known are those of the ids that are: true if they may still be amended.
	Known(ctx context.Context, node string, ids []string) (map[string]bool, error)
}

// Server serves nodes.
type Server struct {
	consolev1.UnimplementedIngestServiceServer
	journal Journal
	index   Index
	log     *slog.Logger
	metrics metrics
	grpc    *grpc.Server
}

// New returns a server that takes findings from whoever side lets in.
func New(side *tls.Config, journal Journal, index Index, log *slog.Logger, registry *prometheus.Registry) (*Server, error) {
	options, err := interceptors(log, registry)
	if err != nil {
		return nil, err
	}
	s := &Server{journal: journal, index: index, log: log, metrics: newMetrics(registry)}
	s.grpc = grpc.NewServer(append(options, grpc.Creds(credentials.NewTLS(side)))...)
	consolev1.RegisterIngestServiceServer(s.grpc, s)
	return s, nil
}

// Run serves on the listener until ctx ends, then lets running calls finish for two seconds.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	stopped := context.AfterFunc(ctx, func() {
		force := time.AfterFunc(2*time.Second, s.grpc.Stop)
		defer force.Stop()
		s.grpc.GracefulStop()
	})
	defer stopped()
	if err := s.grpc.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return ctx.Err()
}

// PushFindings keeps findings, each once, and answers when they are on disk.
func (s *Server) PushFindings(
	ctx context.Context, req *consolev1.PushFindingsRequest,
) (*consolev1.PushFindingsResponse, error) {
	node, err := nodeOf(ctx)
	if err != nil {
		return nil, err
	}
	ids, err := check(req.GetFindings())
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(ctx, storeTimeout)
	defer stop()
	known, err := s.index.Known(ctx, node, ids)
	if err != nil {
		// The index only saves work here: what it does not know now, it will not show twice later.
		s.log.WarnContext(ctx, "Could not search the index", "err", err)
	}
	stored, err := s.journal.Append(ctx, node, fresh(node, req.GetFindings(), known))
	if err != nil {
		s.log.ErrorContext(ctx, "Could not keep findings", "err", err, "node", node)
		return nil, status.Error(codes.Unavailable, "findings cannot be kept now")
	}
	s.metrics.in.Add(float64(stored))
	s.metrics.duplicates.Add(float64(len(ids) - stored))
	return &consolev1.PushFindingsResponse{Stored: uint32(stored)}, nil //nolint:gosec // at most maxFindings
}

// fresh are the findings that are to be kept, as the node's: those that are not known, or amend what is.
func fresh(node string, findings []*findingv1.Finding, known map[string]bool) []*findingv1.Finding {
	var out []*findingv1.Finding
	if known == nil {
		known = map[string]bool{}
	}
	for _, finding := range findings {
		pending := finding.GetWorkload().GetMetadata() == findingv1.MetadataState_METADATA_STATE_PENDING
		amendable, kept := known[finding.GetId()]
		if kept && (!amendable || pending) {
			continue
		}
		known[finding.GetId()] = pending
		finding.Node = node
		out = append(out, finding)
	}
	return out
}

// check refuses a push that is not as the contract says, and returns its ids.
func check(findings []*findingv1.Finding) ([]string, error) {
	if n := len(findings); n > maxFindings {
		return nil, status.Errorf(codes.InvalidArgument, "findings: %d are more than %d", n, maxFindings)
	}
	ids := make([]string, len(findings))
	for i, finding := range findings {
		ids[i] = finding.GetId()
		if !validID(ids[i]) {
			return nil, status.Errorf(codes.InvalidArgument, "findings[%d]: id is not 32 lower-case hex digits", i)
		}
		if size := proto.Size(finding); size > maxFindingBytes {
			return nil, status.Errorf(codes.InvalidArgument, "findings[%d]: %d bytes are more than %d", i, size, maxFindingBytes)
		}
		if finding.GetTime() != nil && finding.GetTime().CheckValid() != nil {
			return nil, status.Errorf(codes.InvalidArgument, "findings[%d]: time is not valid", i)
		}
	}
	return ids, nil
}

func validID(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(id) == idBytes
}

// nodeOf is the name in the verified certificate of the connection.
func nodeOf(ctx context.Context) (string, error) {
	refused := status.Error(codes.Unauthenticated, "not a node")
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", refused
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return "", refused
	}
	node, err := mtls.NodeName(info.State.VerifiedChains[0][0])
	if err != nil {
		return "", refused
	}
	return node, nil
}
