package proxy

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// errRefused says no more than the caller table does.
var errRefused = status.Error(codes.PermissionDenied, "not allowed")

// maxLoggedBytes bounds a foreign string in the log.
const maxLoggedBytes = 128

// guard turns calls away by method before a stream exists for them. An unknown method must not get as far as the
// interceptors, whose metrics are labelled by method: a caller could fill our memory with names.
type guard struct {
	known   map[string]bool
	metrics *metrics
	log     *slog.Logger
	loud    *rate.Sometimes
}

func newGuard(m *metrics, log *slog.Logger) *guard {
	g := &guard{known: map[string]bool{}, metrics: m, log: log, loud: &rate.Sometimes{First: 10, Interval: 10 * time.Second}}
	for _, table := range [][]string{standard, own, containerdMethods, criMethods} {
		for _, method := range table {
			g.known[method] = true
		}
	}
	return g
}

// tap runs under the connection's lock: a look-up and a count.
func (g *guard) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if g.known[info.FullMethodName] {
		return ctx, nil
	}
	g.metrics.refuse(reasonMethod)
	g.loud.Do(func() {
		name := info.FullMethodName
		g.log.WarnContext(ctx, "Refused a method that is not forwarded", "method", name[:min(len(name), maxLoggedBytes)])
	})
	return ctx, errRefused
}

// refusals counts the calls that the caller table turned away.
type refusals struct{ metrics *metrics }

// HandleRPC counts. No runtime answers a method of the table with PermissionDenied, so the code is ours.
func (r refusals) HandleRPC(_ context.Context, event stats.RPCStats) {
	if end, ok := event.(*stats.End); ok && status.Code(end.Error) == codes.PermissionDenied {
		r.metrics.refuse(reasonCaller)
	}
}

// TagRPC adds nothing.
func (refusals) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn adds nothing.
func (refusals) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn does nothing.
func (refusals) HandleConn(context.Context, stats.ConnStats) {}
