package web

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/protobuf/types/known/timestamppb"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/mtls"
	"github.com/palisade-sec/palisade/services/console/internal/account"
	"github.com/palisade-sec/palisade/services/console/internal/index"
)

type memory []index.Found

func (m memory) Find(_ context.Context, q index.Query) ([]index.Found, error) {
	var out []index.Found
	for _, one := range m {
		if one.Sequence > q.After && len(out) < q.Limit {
			out = append(out, one)
		}
	}
	return out, nil
}

// site is the server on real HTTPS, asked by a client without cookies.
type site struct {
	*httptest.Server
	password string
	now      time.Time
}

func serve(t *testing.T, findings ...index.Found) *site {
	t.Helper()
	s := &site{now: time.Unix(1_800_000_000, 0), password: "correct-horse"}
	directory := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte(s.password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(directory, "admin.hash"), hash, 0o600); err != nil {
		t.Fatal(err)
	}
	accounts, err := account.Open(directory, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	server := New(memory(findings), accounts, func() time.Time { return s.now }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	s.Server = httptest.NewTLSServer(server.Handler())
	t.Cleanup(s.Close)
	s.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s
}

type change func(*http.Request)

func basic(user, password string) change {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

func header(name, value string) change { return func(r *http.Request) { r.Header.Set(name, value) } }

func (s *site) do(t *testing.T, method, path, body string, changes ...change) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, change := range changes {
		change(r)
	}
	answer, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(raw)
}

// login returns the session's cookie as a header.
func (s *site) login(t *testing.T) change {
	t.Helper()
	form := url.Values{"user": {"admin"}, "password": {s.password}}.Encode()
	answer, _ := s.do(t, "POST", "/login", form)
	if answer.StatusCode != http.StatusSeeOther || len(answer.Cookies()) != 1 {
		t.Fatalf("login = %s with %v", answer.Status, answer.Cookies())
	}
	cookie := answer.Cookies()[0]
	if !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Path != "/" {
		t.Errorf("cookie = %v, want Secure, HttpOnly, SameSite=Strict, Path=/", cookie)
	}
	return header("Cookie", cookie.Name+"="+cookie.Value)
}

func TestWhoIsLetIn(t *testing.T) {
	s := serve(t)
	session := s.login(t)
	tests := []struct {
		name, method, path string
		change             change
		want               int
	}{
		{"page without login", "GET", "/", nil, 303},
		{"page with a made-up session", "GET", "/", header("Cookie", cookieName+"=x"), 303},
		{"page with a session", "GET", "/", session, 200},
		{"page with a password", "GET", "/", basic("admin", s.password), 303},
		{"unknown page without login", "GET", "/x", nil, 303},
		{"unknown page with a session", "GET", "/x", session, 404},
		{"findings without login", "GET", "/api/v1/findings", nil, 401},
		{"findings with a session", "GET", "/api/v1/findings", session, 200},
		{"findings with the password", "GET", "/api/v1/findings", basic("admin", s.password), 200},
		{"findings with a wrong password", "GET", "/api/v1/findings", basic("admin", "x"), 401},
		{"findings with a wrong name", "GET", "/api/v1/findings", basic("root", s.password), 401},
		{"unknown resource without login", "GET", "/api/v2", nil, 401},
		{"unknown resource with a session", "GET", "/api/v2", session, 404},
		{"health", "GET", "/healthz", nil, 200},
		{"style", "GET", "/assets/page.css", nil, 200},
		{"templates are no assets", "GET", "/assets/page.html", nil, 404},
		{"login page", "GET", "/login", nil, 200},
		{"login page with a session", "GET", "/login", session, 303},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var changes []change
			if tt.change != nil {
				changes = append(changes, tt.change)
			}
			answer, body := s.do(t, tt.method, tt.path, "", changes...)
			if answer.StatusCode != tt.want {
				t.Errorf("%s %s = %s, want %d", tt.method, tt.path, answer.Status, tt.want)
			}
			for name, value := range headers {
				if got := answer.Header.Get(name); got != value {
					t.Errorf("%s = %q, want %q", name, got, value)
				}
			}
			if answer.StatusCode == 401 && !json.Valid([]byte(body)) {
				t.Errorf("401 body %q is not JSON", body)
			}
		})
	}
}

func TestSessionEnds(t *testing.T) {
	s := serve(t)
	session := s.login(t)
	foreign := header("Origin", "https://evil.example")
	if answer, _ := s.do(t, "POST", "/logout", "", session, foreign); answer.StatusCode != 403 {
		t.Errorf("logout from another origin = %s, want 403", answer.Status)
	}
	if answer, _ := s.do(t, "POST", "/login", "user=admin", header("Sec-Fetch-Site", "cross-site")); answer.StatusCode != 403 {
		t.Errorf("login from another site = %s, want 403", answer.Status)
	}
	if answer, _ := s.do(t, "GET", "/logout", "", session); answer.StatusCode == 303 && answer.Header.Get("Location") == "/login" {
		t.Errorf("logout by GET = %s, want no logout", answer.Status)
	}
	if answer, _ := s.do(t, "GET", "/", "", session); answer.StatusCode != 200 {
		t.Errorf("page after refused logouts = %s, want 200", answer.Status)
	}
	if answer, _ := s.do(t, "POST", "/logout", "", session); answer.StatusCode != 303 {
		t.Errorf("logout = %s, want 303", answer.Status)
	}
	if answer, _ := s.do(t, "GET", "/", "", session); answer.StatusCode != 303 {
		t.Errorf("page after logout = %s, want 303", answer.Status)
	}
	session = s.login(t)
	s.now = s.now.Add(12 * time.Hour)
	if answer, _ := s.do(t, "GET", "/", "", session); answer.StatusCode != 303 {
		t.Errorf("page after 12 hours = %s, want 303", answer.Status)
	}
}

func TestGuessingIsSlowedDown(t *testing.T) {
	s := serve(t)
	for range 5 {
		if answer, _ := s.do(t, "POST", "/login", "user=admin&password=wrong"); answer.StatusCode != 401 {
			t.Errorf("wrong password = %s, want 401", answer.Status)
		}
	}
	answer, _ := s.do(t, "POST", "/login", "user=admin&password="+s.password)
	if answer.StatusCode != 429 || answer.Header.Get("Retry-After") == "" {
		t.Errorf("sixth attempt = %s, want 429 with Retry-After", answer.Status)
	}
	if answer, _ := s.do(t, "GET", "/api/v1/findings", "", basic("admin", "x")); answer.StatusCode != 429 {
		t.Errorf("sixth attempt by Basic = %s, want 429", answer.Status)
	}
	s.now = s.now.Add(10 * time.Second)
	s.login(t)
}

func TestBodiesAreBounded(t *testing.T) {
	s := serve(t)
	body := "user=admin&password=" + strings.Repeat("x", maxBodyBytes)
	if answer, _ := s.do(t, "POST", "/login", body); answer.StatusCode != 400 {
		t.Errorf("huge form = %s, want 400", answer.Status)
	}
}

// TestNodeCertificateOpensNothing offers a node's certificate; nobody asks for it, and it is no login.
func TestNodeCertificateOpensNothing(t *testing.T) {
	authority, err := mtls.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.IssueNode("node-1")
	if err != nil {
		t.Fatal(err)
	}
	node, err := pair.Keypair()
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t)
	transport, ok := s.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport")
	}
	transport.TLSClientConfig.Certificates = []tls.Certificate{node}
	if answer, _ := s.do(t, "GET", "/api/v1/findings", ""); answer.StatusCode != 401 {
		t.Errorf("findings with a node certificate = %s, want 401", answer.Status)
	}
}

// hostile is a finding whose every text tries to become markup, a terminal sequence or reversed text.
func hostile() index.Found {
	const text = "<script>alert(1)</script>\" onload=x '\x1b[2J\u202e\x7f\r\n{{.}}"
	return index.Found{Sequence: 7, Finding: &findingv1.Finding{
		Id: strings.Repeat("a", 32), Node: "node-1", Time: timestamppb.Now(), Rule: text, Output: text, Tags: []string{text},
		Priority: findingv1.Priority_PRIORITY_CRITICAL, Traceparent: text,
		Workload: &findingv1.Workload{ContainerId: text, ContainerName: text, Image: text, PodName: text, PodNamespace: text},
		Process:  &findingv1.Process{Name: text, Exe: text, Argv: []string{text, text}},
		Ancestry: []*findingv1.Process{{Name: text, Argv: []string{text}}, {Exe: "/usr/bin/containerd-shim"}},
		Action:   &findingv1.Action{Kind: 1, Outcome: 1, Detail: text},
	}}
}

func TestB23HostileTextIsShownEscaped(t *testing.T) {
	s := serve(t, hostile())
	session := s.login(t)
	_, page := s.do(t, "GET", "/", "", session)
	for _, raw := range []string{"<script>alert", "\x1b", "\u202e", "\x7f", "\" onload"} {
		if strings.Contains(page, raw) {
			t.Errorf("page contains %q", raw)
		}
	}
	for _, shown := range []string{`\x1b[2J\u202e\x7f\r\n`, "&lt;script&gt;", "containerd-shim", "critical", "killed"} {
		if !strings.Contains(page, shown) {
			t.Errorf("page does not show %q", shown)
		}
	}
	_, body := s.do(t, "GET", "/api/v1/findings", "", session)
	for _, raw := range []string{"<script>", "\x1b", "\u202e", "\x7f"} {
		if strings.Contains(body, raw) {
			t.Errorf("JSON contains %q", raw)
		}
	}
	var decoded struct {
		Findings []struct{ Rule string }
		Cursor   string
	}
	if err := json.Unmarshal([]byte(body), &decoded); err != nil || len(decoded.Findings) != 1 || decoded.Cursor != "7" {
		t.Fatalf("JSON = %s, %v, want one finding and cursor 7", body, err)
	}
	if got := decoded.Findings[0].Rule; got != hostile().Finding.GetRule() {
		t.Errorf("rule = %q, want what the node sent", got)
	}
}

func TestPageHasNoInlineScriptOrStyle(t *testing.T) {
	s := serve(t, hostile())
	_, page := s.do(t, "GET", "/", "", s.login(t))
	for _, inline := range []string{"style=", "onclick", "javascript:"} {
		if strings.Contains(page, inline) {
			t.Errorf("page contains %q, which the policy forbids", inline)
		}
	}
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("page has %d script elements, want the one file", n)
	}
}

func TestParseQuery(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		raw  string
		want index.Query
		bad  bool
	}{
		{raw: "", want: index.Query{Limit: 100}},
		{raw: "limit=5", want: index.Query{Limit: 5}},
		{raw: "since=2026-01-31T12:00:00Z", want: index.Query{Limit: 100, Since: at}},
		{raw: "since=1769860800", want: index.Query{Limit: 100, Since: at}},
		{raw: "after=7&limit=1", want: index.Query{Limit: 1, After: 7, Oldest: true}},
		{raw: "limit=0", bad: true}, {raw: "limit=1001", bad: true}, {raw: "limit=x", bad: true},
		{raw: "since=yesterday", bad: true}, {raw: "since=9999-01-01T00:00:00Z", bad: true}, {raw: "since=-1", bad: true},
		{raw: "after=-1", bad: true}, {raw: "limit=1&limit=2", bad: true}, {raw: "limt=1", bad: true}, {raw: "%zz", bad: true},
	}
	for _, tt := range tests {
		got, err := parseQuery(tt.raw)
		if tt.bad != (err != nil) {
			t.Errorf("parseQuery(%q) error = %v, want one: %v", tt.raw, err, tt.bad)
			continue
		}
		if !tt.bad && (got.Limit != tt.want.Limit || got.After != tt.want.After || got.Oldest != tt.want.Oldest || !got.Since.Equal(tt.want.Since)) {
			t.Errorf("parseQuery(%q) = %+v, want %+v", tt.raw, got, tt.want)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, seed := range []string{"limit=5&after=7", "since=2026-01-31T12:00:00Z", "since=9223372036854775807", "%00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		query, err := parseQuery(raw)
		if err != nil {
			return
		}
		if query.Limit < 1 || query.Limit > maxLimit || query.After > 1<<63 {
			t.Errorf("parseQuery(%q) = %+v", raw, query)
		}
		if !query.Since.IsZero() && query.Since.UnixNano() < 0 {
			t.Errorf("parseQuery(%q): since overflows: %v", raw, query.Since)
		}
	})
}

func FuzzVisible(f *testing.F) {
	f.Add("a\x1b[0m\u202e\U000e0001\xff\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range visible(text) {
			if r < 0x20 || r == 0x7f || r == 0x202e || r == 0x2028 {
				t.Errorf("visible(%q) lets %U through", text, r)
			}
		}
	})
}
