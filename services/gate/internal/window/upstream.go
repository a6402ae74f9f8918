package window

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/internal/unixsock"
)

// Config says where a runtime is.
type Config struct {
	// Socket is the runtime's HTTP socket. One that is not there now may come later.
	Socket string `yaml:"socket"`
	// UID serves it. A socket that somebody else serves is not the runtime's.
	UID uint32 `yaml:"uid"`
	// Timeout bounds a request that is no stream.
	Timeout time.Duration `yaml:"timeout"`
}

// DefaultDocker is Docker as distributions install it.
func DefaultDocker() Config { return Config{Socket: "/run/docker.sock", Timeout: 5 * time.Second} }

// DefaultPodman is the service of root's Podman, podman.socket.
func DefaultPodman() Config {
	return Config{Socket: "/run/podman/podman.sock", Timeout: 5 * time.Second}
}

// Validate reports every fault, each with the runtime's name before its key.
func (c Config) Validate(name string) error {
	var errs []error
	if !filepath.IsAbs(c.Socket) {
		errs = append(errs, fmt.Errorf("%s.socket: %q is not an absolute path", name, c.Socket))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("%s.timeout: %v is not positive", name, c.Timeout))
	}
	return errors.Join(errs...)
}

// newTransport connects to the runtime's socket, and to nobody else who serves it.
func newTransport(cfg Config) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return unixsock.Dial(ctx, cfg.Socket, cfg.UID, time.Second)
		},
		DisableCompression:     true,
		MaxIdleConns:           4,
		IdleConnTimeout:        idleTime,
		ResponseHeaderTimeout:  cfg.Timeout,
		MaxResponseHeaderBytes: 16 << 10,
	}
}

// ask makes the runtime's request for a target of the table.
func (w *Window) ask(ctx context.Context, target string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://runtime"+target, http.NoBody) //nolint:gosec // G704: the target is one of a literal table, and the transport dials one socket
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", w.name, err)
	}
	request.Header.Set("User-Agent", "palisade-gate")
	answer, err := w.transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", w.name, err)
	}
	return answer, nil
}

// State is what a runtime looks like from here.
type State struct {
	// Present says that its socket is there.
	Present bool
	// Version is empty if it does not answer.
	Version            string
	Forwarded, Refused uint64
}

// State asks the runtime for its version, if its socket is there.
func (w *Window) State(ctx context.Context) State {
	s := State{Forwarded: w.counts.forwards.Load(), Refused: w.counts.refusals.Load()}
	if _, err := os.Stat(w.cfg.Socket); errors.Is(err, os.ErrNotExist) {
		return s
	}
	s.Present = true
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	answer, err := w.ask(ctx, "/version")
	if err != nil {
		return s
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err == nil && answer.StatusCode == http.StatusOK {
		s.Version = parseVersion(raw)
	}
	return s
}

// parseVersion reads the version out of an answer to /version; "unknown" if there is none that people can read.
func parseVersion(raw []byte) string {
	var answer struct{ Version string }
	v := ""
	if json.Unmarshal(raw, &answer) == nil {
		v = answer.Version
	}
	strange := func(r rune) bool { return r <= ' ' || r > '~' }
	if v == "" || len(v) > maxLoggedBytes || strings.IndexFunc(v, strange) >= 0 {
		return "unknown"
	}
	return v
}

// sorted is a map's keys in order.
func sorted(windows map[string]*Window) []string {
	names := make([]string, 0, len(windows))
	for name := range windows {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
