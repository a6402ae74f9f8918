// Package window is the window on runtimes that speak Docker's HTTP API (Docker, Podman). Data in: requests of the
// correlator on a unix socket of the window's own; data out: the runtime's answers.
//
// Nothing of a request is passed on. Its target is compared to the byte with a literal table, and the request that the
// runtime sees is built from the table's line: so there is nothing to smuggle in a header, a body or a second spelling
// of a path. No protocol is switched, no redirect followed.
package window

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

const (
	// maxHeaderBytes bounds a request's head. The correlator's has some hundred.
	maxHeaderBytes = 4 << 10
	// maxResponseBytes bounds an answer that is not a stream.
	maxResponseBytes = 16 << 20
	// headTime is how long a caller may take for a request's head, idleTime how long a connection may rest.
	headTime = 5 * time.Second
	idleTime = time.Minute
	// maxLoggedBytes bounds a foreign string in the log.
	maxLoggedBytes = 128
	// requestsPerSecond bounds what a runtime is asked.
	requestsPerSecond = 500
	requestBurst      = 1000
)

// Window forwards requests to one runtime. It is safe for concurrent use.
type Window struct {
	name      string
	cfg       Config
	uids      rpc.UIDs
	transport *http.Transport
	metrics   *metrics
	counts    counts
	log       *slog.Logger
	loud      *rate.Sometimes
	limit     *rate.Limiter
}

// newWindow returns a window on the runtime that serves cfg.Socket, for the processes of these uids that the table names.
func newWindow(name string, cfg Config, uids rpc.UIDs, m *metrics, log *slog.Logger) *Window {
	return &Window{
		name: name, cfg: cfg, uids: uids, transport: newTransport(cfg), metrics: m, log: log,
		loud:  &rate.Sometimes{First: 10, Interval: 10 * time.Second},
		limit: rate.NewLimiter(requestsPerSecond, requestBurst),
	}
}

// peerKey is where a connection's peer is kept.
type peerKey struct{}

// Run serves the window on the listener until ctx ends.
func (w *Window) Run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           w,
		ReadHeaderTimeout: headTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // foreign text; what is refused is counted
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if peer, err := unixsock.PeerOf(conn); err == nil {
				return context.WithValue(ctx, peerKey{}, peer)
			}
			return ctx
		},
		DisableGeneralOptionsHandler: true,
	}
	stopped := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stopped()
	defer w.transport.CloseIdleConnections()
	if err := server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

// ServeHTTP forwards a request of the table and refuses every other.
func (w *Window) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	line, reason := w.judge(in)
	if reason != "" {
		w.refuse(in.Context(), reason, in)
		out.Header().Set("Connection", "close") // what else is on this connection is not read
		http.Error(out, "not allowed", http.StatusForbidden)
		return
	}
	if !w.limit.Allow() {
		http.Error(out, "too many requests", http.StatusTooManyRequests)
		return
	}
	w.counts.forwards.Add(1)
	w.metrics.forwarded.WithLabelValues(w.name, line.label).Inc()
	ctx := in.Context()
	if !line.stream {
		limited, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
		defer cancel()
		ctx = limited
	}
	// The target has been compared with the table, so it is what the table says.
	answer, err := w.ask(ctx, in.RequestURI)
	if err != nil {
		http.Error(out, "container runtime is not reachable", http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	w.copyBack(out, answer, line)
}

// judge is the table's line for a request, or the reason why it is refused.
func (w *Window) judge(in *http.Request) (line route, reason string) {
	peer, ok := in.Context().Value(peerKey{}).(unixsock.Peer)
	if !ok || peer.UID != w.uids[caller] && peer.UID != w.uids[asker] {
		return line, reasonCaller
	}
	line, reason = judge(in)
	if reason == "" && peer.UID != w.uids[caller] && !line.asked {
		return route{}, reasonCaller
	}
	return line, reason
}

// judge looks at everything of a request but who sent it.
func judge(in *http.Request) (line route, reason string) {
	line, ok := find(in.RequestURI)
	switch {
	case in.Method != http.MethodGet:
		return line, reasonMethod
	case in.Host != host || in.ProtoMajor != 1:
		return line, reasonHost
	case in.ContentLength != 0 || len(in.TransferEncoding) > 0 || len(in.Trailer) > 0 || in.Header.Get("Expect") != "" || in.Header.Get("Content-Length") != "":
		return line, reasonBody
	case in.Header.Get("Upgrade") != "" || hasUpgrade(in.Header["Connection"]):
		return line, reasonSwitch
	case !ok:
		return line, reasonTarget
	}
	return line, ""
}

// hasUpgrade says whether a Connection header wants more than to be kept or closed.
func hasUpgrade(values []string) bool {
	for _, v := range values {
		if v != "close" && v != "keep-alive" {
			return true
		}
	}
	return false
}

func (w *Window) refuse(ctx context.Context, reason string, in *http.Request) {
	w.counts.refusals.Add(1)
	w.metrics.refused.WithLabelValues(w.name, reason).Inc()
	w.loud.Do(func() {
		w.log.WarnContext(ctx, "Refused a request that is not forwarded", "runtime", w.name, "reason", reason,
			"method", in.Method[:min(len(in.Method), maxLoggedBytes)], "target", in.RequestURI[:min(len(in.RequestURI), maxLoggedBytes)])
	})
}

// copyBack passes on status, type and body, and nothing else of an answer.
func (w *Window) copyBack(out http.ResponseWriter, answer *http.Response, line route) {
	if answer.StatusCode < http.StatusOK || (answer.StatusCode >= 300 && answer.StatusCode < 400) { // no switch, no redirect
		http.Error(out, "container runtime is not reachable", http.StatusBadGateway)
		return
	}
	if kind := answer.Header.Get("Content-Type"); kind != "" {
		out.Header().Set("Content-Type", kind)
	}
	out.WriteHeader(answer.StatusCode)
	sent := w.metrics.bytes.WithLabelValues(w.name)
	if line.stream {
		w.copyStream(out, answer.Body)
		return
	}
	n, err := io.Copy(out, io.LimitReader(answer.Body, maxResponseBytes+1))
	sent.Add(float64(n))
	if err != nil || n > maxResponseBytes {
		panic(http.ErrAbortHandler) // net/http's word for: break the connection off, so that half an answer is not taken for one
	}
}

// copyStream passes on what comes, as it comes, until either side leaves.
func (w *Window) copyStream(out http.ResponseWriter, body io.Reader) {
	control := http.NewResponseController(out)
	if control.Flush() != nil {
		return
	}
	sent := w.metrics.bytes.WithLabelValues(w.name)
	buffer := make([]byte, 32<<10)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			if _, writeErr := out.Write(buffer[:n]); writeErr != nil || control.Flush() != nil {
				return
			}
			sent.Add(float64(n))
		}
		if err != nil {
			return
		}
	}
}
