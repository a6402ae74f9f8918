package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

// Callers says who may call what: full method to names of processes. A method without a line is refused to everybody.
type Callers map[string][]string

// Operator is the name of the person at the node's command line, uid 0.
const Operator = "operator"

// standard are the methods every process serves.
var standard = Callers{
	healthpb.Health_Check_FullMethodName:               {Operator}, // readiness, by palisade up and probes
	processv1.ProcessService_GetMetrics_FullMethodName: {Operator}, // palisade metrics
	processv1.ProcessService_GetStatus_FullMethodName:  {Operator}, // palisade status
}

// UIDs says which uid each process runs as.
type UIDs map[string]uint32

// authorizer refuses a call unless its method's line names the caller. The caller learns nothing but that.
type authorizer struct {
	allowed map[string][]uint32
}

func newAuthorizer(callers Callers, uids UIDs) (authorizer, error) {
	allowed := map[string][]uint32{}
	for _, table := range []Callers{standard, callers} {
		for method, names := range table {
			for _, name := range names {
				uid, ok := uids[name]
				if !ok {
					return authorizer{}, fmt.Errorf("caller table: %s: no uid for caller %q", method, name)
				}
				allowed[method] = append(allowed[method], uid)
			}
		}
	}
	return authorizer{allowed: allowed}, nil
}

func (a authorizer) check(ctx context.Context, method string) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return status.Error(codes.PermissionDenied, "not allowed")
	}
	caller, ok := p.AuthInfo.(unixsock.Peer)
	if !ok || !slices.Contains(a.allowed[method], caller.UID) {
		return status.Error(codes.PermissionDenied, "not allowed")
	}
	return nil
}

func (a authorizer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := a.check(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (a authorizer) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := a.check(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, stream)
}

// complete reports methods that are served but have no line: a mistake in the table, which would refuse them to
// everybody. The other way round is no mistake, because a proxy's foreign methods are only in the table.
func (a authorizer) complete(served map[string]grpc.ServiceInfo) error {
	for service, info := range served {
		for _, method := range info.Methods {
			full := "/" + service + "/" + method.Name
			if _, ok := a.allowed[full]; !ok && !strings.HasPrefix(full, "/grpc.health.v1.") {
				return fmt.Errorf("caller table: no line for %s", full)
			}
		}
	}
	return nil
}
