// Package web is what people meet on 8083: a page and a JSON endpoint that show findings, behind a login. It never
// writes findings, and nothing a node sends reaches a browser unescaped.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/palisade-sec/palisade/services/console/internal/account"
	"github.com/palisade-sec/palisade/services/console/internal/index"
)

const (
	// maxBodyBytes is plenty for a login form.
	maxBodyBytes   = 4 << 10
	maxHeaderBytes = 16 << 10
	// answerTimeout bounds one request's work.
	answerTimeout = 15 * time.Second
)

// Findings is where findings are looked up; *index.Index is one.
type Findings interface {
	Find(ctx context.Context, query index.Query) ([]index.Found, error)
}

// Server serves people.
type Server struct {
	findings Findings
	accounts *account.Accounts
	sessions *account.Sessions
	limiter  *account.Limiter
	log      *slog.Logger
	requests *prometheus.CounterVec
}

// New returns a server; now is the clock of sessions and limits.
func New(
	findings Findings, accounts *account.Accounts, now func() time.Time, log *slog.Logger, registry *prometheus.Registry,
) *Server {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "palisade_console_http_requests_total", Help: "Requests on 8083, by status code.",
	}, []string{"code"})
	registry.MustRegister(requests)
	return &Server{
		findings: findings, accounts: accounts, log: log, requests: requests,
		sessions: account.NewSessions(now), limiter: account.NewLimiter(now),
	}
}

// Run serves HTTPS on the listener until ctx ends, then lets running requests finish for two seconds.
func (s *Server) Run(ctx context.Context, listener net.Listener, side *tls.Config) error {
	server := &http.Server{
		Handler: s.Handler(), TLSConfig: side,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // strangers' handshakes
	}
	stopped := context.AfterFunc(ctx, func() {
		grace, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer stop()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})
	defer stopped()
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return ctx.Err()
}

// Handler answers everything on 8083.
func (s *Server) Handler() http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /healthz", healthz)
	routes.HandleFunc("GET /assets/{name}", asset)
	routes.HandleFunc("GET /login", s.loginPage)
	routes.HandleFunc("POST /login", s.login)
	routes.HandleFunc("POST /logout", s.logout)
	routes.Handle("GET /{$}", s.pageUser(s.page))
	routes.Handle("GET /api/v1/findings", s.apiUser(s.list))
	routes.Handle("/api/", s.apiUser(func(w http.ResponseWriter, _ *http.Request) {
		problem(w, http.StatusNotFound, "no such resource")
	}))
	routes.Handle("/", s.pageUser(http.NotFound))
	// A page of another origin can make a browser send requests, but not have them answered (CSRF).
	sameOrigin := http.NewCrossOriginProtection()
	return s.outermost(sameOrigin.Handler(routes))
}

// outermost sets what every answer carries, bounds every request, and survives a handler's panic.
func (s *Server) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, stop := context.WithTimeout(r.Context(), answerTimeout)
		defer stop()
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		counted := &statusWriter{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				s.log.ErrorContext(ctx, "Recovered from a panic in a handler", "err", fmt.Sprint(p))
				if counted.code == 0 {
					http.Error(counted, "internal error", http.StatusInternalServerError)
				}
			}
			s.requests.WithLabelValues(strconv.Itoa(max(counted.code, http.StatusOK))).Inc()
		}()
		next.ServeHTTP(counted, r.WithContext(ctx))
	})
}

// headers are on every answer. Read only.
var headers = map[string]string{
	"Cache-Control": "no-store",
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
		"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
	"Referrer-Policy":              "no-referrer",
	"Strict-Transport-Security":    "max-age=31536000",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
}

type statusWriter struct {
	http.ResponseWriter
	code int
}

// WriteHeader notes the code.
func (w *statusWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write answers 200 unless another code was set.
func (w *statusWriter) Write(raw []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(raw)
}

func healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n")) // the caller may have gone
}
