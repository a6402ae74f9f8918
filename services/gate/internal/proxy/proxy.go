// Package proxy is the window on the runtimes that speak gRPC, containerd and CRI-O: it passes the calls of two literal tables on to
// their sockets, byte for byte, and refuses all others before a byte of theirs is read. Requests come in from the correlator,
// answers come back from the runtimes; the proxy parses neither. A method is in one table, and goes to that table's runtime.
//
// Every method of the table takes exactly one request, so a call needs no goroutine of its own: read one frame, send
// it, close, copy frames back.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// maxRequestBytes bounds a request: an id, or a few filters.
	maxRequestBytes = 1 << 20
	// maxResponseBytes bounds a response. containerd itself sends no more (defaults.DefaultMaxSendMsgSize).
	maxResponseBytes = 16 << 20
	// namespaceKey is the only metadata that passes: which of containerd's namespaces a call is about. None passes to CRI-O.
	namespaceKey = "containerd-namespace"
	// maxNamespaceBytes is containerd's own limit of an identifier.
	maxNamespaceBytes = 76
)

// errUnreachable is all a caller learns about why a runtime does not answer.
var errUnreachable = status.Error(codes.Unavailable, "container runtime is not reachable")

// Proxy forwards calls to one containerd and one CRI-O. It is safe for concurrent use.
type Proxy struct {
	conn    *grpc.ClientConn // containerd's
	crio    *grpc.ClientConn
	codec   codec
	guard   *guard
	metrics *metrics
}

// New returns a proxy to the runtimes that serve the sockets. It does not connect before the first call. Close it when done.
func New(containerd, crio Config, log *slog.Logger, registry *prometheus.Registry) (*Proxy, error) {
	m, err := newMetrics(registry)
	if err != nil {
		return nil, err
	}
	p := &Proxy{codec: newCodec(), guard: newGuard(m, log), metrics: m}
	if p.conn, err = dial(containerd); err != nil {
		return nil, err
	}
	if p.crio, err = dial(crio); err != nil {
		return nil, errors.Join(err, p.conn.Close())
	}
	return p, nil
}

// Close ends the connections and every call on them.
func (p *Proxy) Close() error { return errors.Join(p.conn.Close(), p.crio.Close()) }

// ServerOptions make a server fit for Register: raw frames, bounded, and no method beside the table.
func (p *Proxy) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(p.codec),
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxSendMsgSize(maxResponseBytes),
		grpc.InTapHandle(p.guard.tap),
		grpc.StatsHandler(refusals{p.metrics}),
	}
}

// Register adds the tables' methods to a server that was made with ServerOptions. Its interceptors see them as they
// see any other method.
func (p *Proxy) Register(server grpc.ServiceRegistrar) {
	services := map[string]*grpc.ServiceDesc{}
	for _, table := range []struct {
		methods []string
		handler func(method string) grpc.StreamHandler
	}{
		{containerdMethods, func(method string) grpc.StreamHandler { return p.handler(p.conn, method, namespace) }},
		{criMethods, func(method string) grpc.StreamHandler { return p.handler(p.crio, method, nothing) }},
	} {
		for _, full := range table.methods {
			service, method := split(full)
			if services[service] == nil {
				services[service] = &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
			}
			services[service].Streams = append(services[service].Streams, grpc.StreamDesc{
				StreamName:    method,
				Handler:       table.handler(full),
				ServerStreams: true, // a unary answer is a stream of one
			})
		}
	}
	for _, service := range services {
		server.RegisterService(service, p)
	}
}

// handler forwards one call of a method, with the metadata that may pass. The call's deadline and its cancellation are those of the caller.
func (p *Proxy) handler(conn *grpc.ClientConn, method string, passing func(context.Context) (metadata.MD, error)) grpc.StreamHandler {
	return func(_ any, in grpc.ServerStream) error {
		ctx, cancel := context.WithCancel(in.Context())
		defer cancel() // lets go of the runtime's side, however this one ends
		pairs, err := passing(ctx)
		if err != nil {
			return err
		}
		var request frame
		if err := in.RecvMsg(&request); err != nil {
			return err
		}
		p.metrics.forward(method, request.data.Len())
		out, err := open(metadata.NewOutgoingContext(ctx, pairs), conn, method, &request)
		if err != nil {
			return outcome(err)
		}
		return p.copyBack(in, out)
	}
}

// open starts the call to the runtime with its one request.
func open(ctx context.Context, conn *grpc.ClientConn, method string, request *frame) (grpc.ClientStream, error) {
	out, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		request.data.Free()
		return nil, err
	}
	// io.EOF says that the call has ended already; the reason comes with the first read.
	if err := out.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return out, out.CloseSend()
}

// copyBack passes on header, frames, trailer and status.
func (p *Proxy) copyBack(in grpc.ServerStream, out grpc.ClientStream) error {
	for first := true; ; first = false {
		var response frame
		err := out.RecvMsg(&response)
		if err != nil {
			in.SetTrailer(out.Trailer())
			return outcome(err)
		}
		if header, err := out.Header(); first && err == nil {
			if err := in.SetHeader(header); err != nil {
				return fmt.Errorf("pass header on: %w", err)
			}
		}
		p.metrics.responseBytes.Add(float64(response.data.Len()))
		if err := in.SendMsg(&response); err != nil {
			return err
		}
	}
}

// namespace is the metadata that may pass to containerd.
func namespace(ctx context.Context) (metadata.MD, error) {
	values := metadata.ValueFromIncomingContext(ctx, namespaceKey)
	switch {
	case len(values) == 0:
		return nil, nil
	case len(values) > 1 || len(values[0]) > maxNamespaceBytes:
		return nil, status.Error(codes.InvalidArgument, "not a containerd namespace")
	}
	return metadata.Pairs(namespaceKey, values[0]), nil
}

// nothing is the metadata that may pass to CRI-O.
func nothing(context.Context) (metadata.MD, error) { return nil, nil }

// outcome is what the caller is told about the end of a call: the runtime's own status, without the paths in which our
// side of the connection explains why there is none.
func outcome(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	if status.Code(err) == codes.Unavailable {
		return errUnreachable
	}
	return err
}
