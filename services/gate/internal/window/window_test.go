package window

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/dockertest"
	"github.com/palisade-sec/palisade/internal/rpc"
)

const someID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// open serves a window on the runtime at upstream, to this test's own uid.
func open(t *testing.T, upstream string) (*Set, string) {
	t.Helper()
	me := uint32(os.Getuid()) //nolint:gosec // never negative
	return openAs(t, upstream, me, me)
}

// openAs says whose the runtime and the correlator are.
func openAs(t *testing.T, upstream string, runtime, correlator uint32) (*Set, string) {
	t.Helper()
	directory, err := os.MkdirTemp("", "pw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	set, err := NewSet(map[string]Config{"docker": {Socket: upstream, UID: runtime, Timeout: 5 * time.Second}},
		rpc.UIDs{"correlator": correlator, "enforcer": correlator + 1}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("NewSet() error = %v", err)
	}
	tasks, err := set.Tasks(rpc.Sockets{Directory: directory, Group: os.Getgid()})
	if err != nil {
		t.Fatalf("Tasks() error = %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, task := range tasks {
		running.Go(func() { _ = task.Run(ctx) })
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	return set, filepath.Join(directory, "gate-docker.sock")
}

// raw sends bytes and returns the status of the answer, 0 if there is none.
func raw(t *testing.T, socket, request string) int {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return 0
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20))
	return answer.StatusCode
}

func get(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: gate\r\n\r\n" }

// recorder is a runtime that remembers what it was asked.
type recorder struct {
	mu      sync.Mutex
	reached []string
	handle  http.HandlerFunc
}

func (r *recorder) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	r.mu.Lock()
	r.reached = append(r.reached, in.Method+" "+in.RequestURI+" "+fmt.Sprint(len(in.Header)))
	r.mu.Unlock()
	if r.handle != nil {
		r.handle(out, in)
	}
}

func (r *recorder) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.reached)
}

func serve(t *testing.T, handle http.HandlerFunc) (*recorder, string) {
	t.Helper()
	directory, err := os.MkdirTemp("", "pw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	socket := filepath.Join(directory, "up.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{handle: handle}
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return r, socket
}

func TestRefusesEveryOtherSpelling(t *testing.T) {
	upstream, socket := serve(t, nil)
	set, gate := open(t, socket)
	refused := map[string]string{
		"POST":               "POST /containers/json HTTP/1.1\r\nHost: gate\r\n\r\n",
		"DELETE":             "DELETE /containers/" + someID + "/json HTTP/1.1\r\nHost: gate\r\n\r\n",
		"HEAD":               "HEAD /_ping HTTP/1.1\r\nHost: gate\r\n\r\n",
		"CONNECT":            "CONNECT gate HTTP/1.1\r\nHost: gate\r\n\r\n",
		"OPTIONS *":          "OPTIONS * HTTP/1.1\r\nHost: gate\r\n\r\n",
		"double slash":       get("//containers/json"),
		"slash at the end":   get("/containers/json/"),
		"dots":               get("/images/../containers/json"),
		"dot":                get("/./containers/json"),
		"encoded dots":       get("/images/%2e%2e/containers/json"),
		"encoded slash":      get("/containers/" + someID + "%2fjson"),
		"encoded letter":     get("/container%73/json"),
		"encoded null":       get("/containers/json%00"),
		"semicolon":          get("/containers/json;x"),
		"query":              get("/containers/json?all=1"),
		"empty query":        get("/containers/json?"),
		"other filter":       get("/events?filters=%7B%7D"),
		"version prefix":     get("/v1.41/containers/json"),
		"name":               get("/containers/victim/json"),
		"short id":           get("/containers/0123456789ab/json"),
		"upper case id":      get("/containers/" + strings.ToUpper(someID) + "/json"),
		"logs":               get("/containers/" + someID + "/logs?stdout=1"),
		"attach":             get("/containers/" + someID + "/attach/ws"),
		"archive":            get("/containers/" + someID + "/archive?path=/etc/shadow"),
		"export":             get("/containers/" + someID + "/export"),
		"images":             get("/images/json"),
		"secrets":            get("/secrets"),
		"absolute form":      get("http://gate/containers/json"),
		"other host":         "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n",
		"host in the target": "GET http://gate/_ping HTTP/1.1\r\nHost: evil\r\n\r\n",
		"body":               "GET /_ping HTTP/1.1\r\nHost: gate\r\nContent-Length: 1\r\n\r\nx",
		"chunked":            "GET /_ping HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"both lengths":       "GET /_ping HTTP/1.1\r\nHost: gate\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"expectation":        "GET /_ping HTTP/1.1\r\nHost: gate\r\nExpect: 100-continue\r\n\r\n",
		"upgrade":            "GET /_ping HTTP/1.1\r\nHost: gate\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
		"connection header":  "GET /_ping HTTP/1.1\r\nHost: gate\r\nConnection: close, X-Registry-Auth\r\n\r\n",
	}
	for name, request := range refused {
		if got := raw(t, gate, request); got != http.StatusForbidden {
			t.Errorf("%s: status = %d, want 403", name, got)
		}
	}
	if got, want := set.windows["docker"].counts.refusals.Load(), uint64(len(refused)); got != want {
		t.Errorf("refused = %d, want %d", got, want)
	}
	// These do not get as far as the table: they are no HTTP, or too long.
	for name, request := range map[string]string{
		"two hosts":        "GET /_ping HTTP/1.1\r\nHost: gate\r\nHost: evil\r\n\r\n",
		"two lengths":      "GET /_ping HTTP/1.1\r\nHost: gate\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n",
		"space before :":   "GET /_ping HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding : chunked\r\n\r\n",
		"unknown encoding": "GET /_ping HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: xchunked\r\n\r\n",
		"long head":        "GET /_ping HTTP/1.1\r\nHost: gate\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
		"http2":            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"newline":          "GET /_ping\nX HTTP/1.1\r\nHost: gate\r\n\r\n",
	} {
		if got := raw(t, gate, request); got >= 200 && got < 300 {
			t.Errorf("%s: status = %d, want a refusal", name, got)
		}
	}
	if got := upstream.seen(); len(got) != 0 {
		t.Errorf("reached the runtime: %q", got)
	}
}

func TestASecondRequestBehindARefusedOneIsNotRead(t *testing.T) {
	upstream, socket := serve(t, nil)
	_, gate := open(t, socket)
	raw(t, gate, "POST /_ping HTTP/1.1\r\nHost: gate\r\nContent-Length: 0\r\n\r\n"+get("/_ping"))
	raw(t, gate, "GET /_ping HTTP/1.1\r\nHost: gate\r\nContent-Length: 60\r\n\r\n"+get("/version"))
	if got := upstream.seen(); len(got) != 0 {
		t.Errorf("reached the runtime: %q", got)
	}
}

func TestNothingOfARequestIsPassedOn(t *testing.T) {
	upstream, socket := serve(t, nil)
	_, gate := open(t, socket)
	for _, target := range []string{"/_ping", "/containers/json", EventsTarget, "/containers/" + someID + "/json", "/images/sha256:" + someID + "/json"} {
		if got := raw(t, gate, "GET "+target+" HTTP/1.1\r\nHost: gate\r\nX-Registry-Auth: secret\r\nCookie: a\r\n\r\n"); got != http.StatusOK {
			t.Errorf("GET %s: status = %d, want 200", target, got)
		}
		if seen := upstream.seen(); len(seen) == 0 || seen[len(seen)-1] != "GET "+target+" 1" { // our User-Agent
			t.Errorf("runtime saw %q, want GET %s with one header", seen, target)
		}
	}
}

func TestAnswersAreBounded(t *testing.T) {
	_, socket := serve(t, func(out http.ResponseWriter, in *http.Request) {
		switch in.RequestURI {
		case "/version":
			out.Header().Set("Location", "/secrets")
			out.WriteHeader(http.StatusFound)
		case "/containers/json":
			chunk := make([]byte, 1<<20)
			for range maxResponseBytes>>20 + 1 {
				_, _ = out.Write(chunk)
			}
		case "/_ping":
			out.Header().Set("Upgrade", "tcp")
			out.WriteHeader(http.StatusSwitchingProtocols)
		}
	})
	_, gate := open(t, socket)
	if got := raw(t, gate, get("/version")); got != http.StatusBadGateway {
		t.Errorf("a redirect: status = %d, want 502", got)
	}
	if got := raw(t, gate, get("/_ping")); got != http.StatusBadGateway {
		t.Errorf("another protocol: status = %d, want 502", got)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", gate) }}}
	answer, err := client.Get("http://gate/containers/json")
	if err != nil {
		t.Fatalf("Get() error = %v", err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err == nil {
		t.Error("an answer that is too long ends like a whole one")
	}
}

func TestRuntimesThatAreNotThere(t *testing.T) {
	set, gate := open(t, "/nowhere/docker.sock")
	if got := raw(t, gate, get("/_ping")); got != http.StatusBadGateway {
		t.Errorf("status = %d, want 502", got)
	}
	status := &processv1.GetStatusResponse{Healthy: true}
	if n := set.Describe(t.Context(), status); n != 0 || !status.GetHealthy() || status.GetFacts()[0].GetValue() != "not on this node" {
		t.Errorf("Describe() = %d, %v, want healthy without docker", n, status)
	}
	dead := filepath.Join(t.TempDir(), "dead.sock")
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	set, _ = open(t, dead)
	if set.Describe(t.Context(), status); status.GetHealthy() || len(status.GetWarnings()) != 1 {
		t.Errorf("Describe() of a socket that nobody serves = %v, want a warning", status)
	}
}

func TestOthersAreRefused(t *testing.T) {
	upstream, socket := serve(t, nil)
	me := uint32(os.Getuid()) //nolint:gosec // never negative
	set, gate := openAs(t, socket, me, me+1)
	if got := raw(t, gate, get("/_ping")); got != http.StatusForbidden || set.windows["docker"].counts.refusals.Load() != 1 {
		t.Errorf("status for another uid = %d, want 403, counted", got)
	}
	_, gate = openAs(t, socket, me+1, me)
	if got := raw(t, gate, get("/_ping")); got != http.StatusBadGateway {
		t.Errorf("status with another uid's runtime = %d, want 502", got)
	}
	if got := upstream.seen(); len(got) != 0 {
		t.Errorf("reached the runtime: %q", got)
	}
}

func TestRealDocker(t *testing.T) {
	daemon := dockertest.Start(t)
	image := daemon.Image(t, dockertest.ImageName)
	id := daemon.Docker(t, "run", "--detach", "--network", "none", "--name", "victim", dockertest.ImageName, "/bin/sleep", "1000")
	set, gate := open(t, daemon.Socket)
	for _, target := range []string{"/_ping", "/version", "/containers/json", "/containers/" + id + "/json", "/images/" + image + "/json", EventsTarget} {
		if target == EventsTarget {
			continue // has no end
		}
		if got := raw(t, gate, get(target)); got != http.StatusOK {
			t.Errorf("GET %s: status = %d, want 200", target, got)
		}
	}
	refused := []string{
		"POST /containers/" + id + "/kill", "POST /containers/" + id + "/stop", "POST /containers/" + id + "/exec",
		"POST /containers/create", "POST /build", "POST /containers/prune", "DELETE /containers/" + id + "?force=1",
		"DELETE /images/" + image + "?force=1", "PUT /containers/" + id + "/archive?path=/", "GET /containers/" + id + "/logs?stdout=1",
		"GET /containers/" + id + "/../" + id + "/export", "POST /containers/" + id + "/json",
	}
	for _, line := range refused {
		if got := raw(t, gate, line+" HTTP/1.1\r\nHost: gate\r\nContent-Length: 0\r\n\r\n"); got != http.StatusForbidden {
			t.Errorf("%s: status = %d, want 403", line, got)
		}
	}
	if got := set.windows["docker"].counts.refusals.Load(); got != uint64(len(refused)) {
		t.Errorf("refused = %d, want %d", got, len(refused))
	}
	if got := daemon.Docker(t, "ps", "--quiet", "--no-trunc"); got != id {
		t.Errorf("after the refusals, containers = %q, want %q alive", got, id)
	}
	status := &processv1.GetStatusResponse{Healthy: true}
	if set.Describe(t.Context(), status) != 1 || !strings.HasPrefix(status.GetFacts()[0].GetValue(), "answers, version ") {
		t.Errorf("Describe() = %v, want docker's version", status)
	}
	daemon.Down(t)
	if got := raw(t, gate, get("/_ping")); got != http.StatusBadGateway {
		t.Errorf("status with docker gone = %d, want 502", got)
	}
	daemon.Up(t)
	if got := raw(t, gate, get("/_ping")); got != http.StatusOK {
		t.Errorf("status with docker back = %d, want 200", got)
	}
}

// FuzzRequest: whatever bytes come, what passes is a line of the table to the byte, with the method GET and no body.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		get("/_ping"), get("/containers/" + someID + "/json"), get("/containers/json?all=1"), get("//_ping"), get("http://gate/_ping"),
		"POST /_ping HTTP/1.1\r\nHost: gate\r\n\r\n", "GET /_ping HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /_ping HTTP/1.0\r\nHost: gate\r\nUpgrade: h2c\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(data))))
		if err != nil {
			return
		}
		line, reason := judge(in)
		if reason != "" {
			return
		}
		want := line.head
		if line.variable != nil {
			want = in.RequestURI
			if id := strings.TrimSuffix(strings.TrimPrefix(want, line.head), line.tail); strings.Trim(strings.TrimPrefix(id, "sha256:"), "0123456789abcdef") != "" {
				t.Errorf("id %q passes", id)
			}
		}
		if in.Method != http.MethodGet || in.RequestURI != want || in.ContentLength != 0 || in.TransferEncoding != nil || in.Host != host {
			t.Errorf("%q passes as %q", data, line.label)
		}
	})
}

// FuzzVersion: whatever the runtime says, its version is a short word.
func FuzzVersion(f *testing.F) {
	f.Add([]byte(`{"Version":"20.10.24+dfsg1"}`))
	f.Add([]byte(`{"Version":"\u001b[2J"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := parseVersion(data); got == "" || len(got) > maxLoggedBytes || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("parseVersion(%q) = %q", data, got)
		}
	})
}

// The enforcer has the list cut down to one container, and an image. All else is the correlator's.
func TestTheEnforcerAsksForTheContainerThatIsBeingCreatedOnly(t *testing.T) {
	upstream, socket := serve(t, nil)
	me := uint32(os.Getuid()) //nolint:gosec // never negative
	_, gate := openAs(t, socket, me, me-1)
	const created = "/containers/json?all=1&filters=%7B%22id%22%3A%5B%22" + someID + "%22%5D%7D"
	for target, want := range map[string]int{
		created:                                                       http.StatusOK,
		"/images/sha256:" + someID + "/json":                          http.StatusOK,
		strings.Replace(created, "f", "F", 1):                         http.StatusForbidden,
		strings.Replace(created, someID, someID[1:], 1):               http.StatusForbidden,
		strings.Replace(created, someID, "%22%2C%22name%22%3A%5B", 1): http.StatusForbidden,
		created + "&size=1":                                           http.StatusForbidden,
		"/containers/json":                                            http.StatusForbidden,
		"/containers/json?all=1":                                      http.StatusForbidden,
		"/containers/" + someID + "/json":                             http.StatusForbidden,
		EventsTarget:                                                  http.StatusForbidden,
		"/version":                                                    http.StatusForbidden,
	} {
		if got := raw(t, gate, get(target)); got != want {
			t.Errorf("the enforcer asks %s: %d, want %d", target, got, want)
		}
	}
	if got := len(upstream.seen()); got != 2 {
		t.Errorf("%d requests reached the runtime, want 2: %q", got, upstream.seen())
	}
}
