package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// finding is what `palisade findings -o json` and the console's API print.
type finding struct {
	ID       string `json:"id"`
	Node     string `json:"node"`
	Rule     string `json:"rule"`
	Effect   string `json:"effect"`
	Output   string `json:"output"`
	Amended  bool   `json:"amended"`
	Workload struct {
		ContainerID   string            `json:"container_id"`
		ContainerName string            `json:"container_name"`
		Image         string            `json:"image"`
		ImageDigest   string            `json:"image_digest"`
		Runtime       string            `json:"runtime"`
		PodName       string            `json:"pod_name"`
		PodNamespace  string            `json:"pod_namespace"`
		PodUID        string            `json:"pod_uid"`
		PodLabels     map[string]string `json:"pod_labels"`
		Metadata      string            `json:"metadata"`
	} `json:"workload"`
	Ancestry []struct {
		Key struct {
			PID uint32 `json:"pid"`
		} `json:"key"`
		Name string `json:"name"`
	} `json:"ancestry"`
	Action *struct {
		Kind    string `json:"kind"`
		Outcome string `json:"outcome"`
		Detail  string `json:"detail"`
	} `json:"action"`
}

// TestFlow is the whole path: three attacks in a real container are noticed, explained, and the one whose rule says so
// is stopped; everything that shows findings shows these.
func TestFlow(t *testing.T) {
	n := startNode(t)
	report := n.demo()
	if len(report.Attacks) != 3 || !report.StillRunning {
		t.Fatalf("demo: %d attacks, still running: %v; want 3, true", len(report.Attacks), report.StillRunning)
	}
	local := byID(t, n.findings())
	console := n.consoleClient()
	remote := map[string]finding{}
	if !eventually(10*time.Second, func() bool {
		remote = byID(t, console.findings())
		return len(remote) >= len(local)
	}) {
		t.Errorf("console has %d findings after 10 s, the node %d", len(remote), len(local))
	}
	page := console.get("/")
	for _, attack := range report.Attacks {
		for where, found := range map[string]finding{"findings": local[attack.FindingID], "console": remote[attack.FindingID]} {
			checkFinding(t, where, found, attack.Rule, report)
		}
		for _, want := range []string{attack.Rule, report.ContainerID, report.Image} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: the console's page does not show %q", attack.Rule, want)
			}
			if !strings.Contains(n.stdout.String(), want) {
				t.Errorf("%s: the terminal does not show %q:\n%s", attack.Rule, want, n.stdout)
			}
		}
	}
	if got := remote[report.Attacks[0].FindingID].Node; got != "e2e-node" {
		t.Errorf("console says the finding is of node %q, want the certificate's e2e-node", got)
	}
	n.checkKill(report, local)
}

func checkFinding(t *testing.T, where string, found finding, rule string, report demoReport) {
	t.Helper()
	if found.Rule != rule || found.Workload.ContainerID != report.ContainerID || found.Workload.Image != report.Image {
		t.Errorf("%s: finding = %+v, want rule %q, container %s, image %s", where, found, rule, report.ContainerID, report.Image)
	}
	if len(found.Ancestry) == 0 {
		t.Errorf("%s: %s has no ancestry", where, rule)
	}
}

// checkKill compares what the demo, the finding and the audit log say about the attack that was to be stopped.
func (n *node) checkKill(report demoReport, local map[string]finding) {
	n.t.Helper()
	last := report.Attacks[2]
	if !last.Killed {
		n.t.Errorf("%s: exit code %d, want 137: killed", last.Rule, last.ExitCode)
	}
	action := local[last.FindingID].Action
	if action == nil || action.Outcome != "ACTION_OUTCOME_DONE" || !strings.Contains(action.Detail, "degraded to kill (tier tracepoint)") {
		n.t.Errorf("%s: action = %+v, want done, and that prevent was degraded", last.Rule, action)
	}
	audit, err := os.Open(filepath.Join(n.state, "enforcer", "audit.log"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer audit.Close()
	records := 0
	for lines := bufio.NewScanner(audit); lines.Scan(); {
		if !json.Valid(lines.Bytes()) {
			n.t.Errorf("audit log: %q is not JSON", lines.Text())
		}
		if strings.Contains(lines.Text(), last.FindingID) {
			records++
		}
	}
	if records != 2 {
		n.t.Errorf("audit log has %d records of finding %s, want 2: the intention and the outcome", records, last.FindingID)
	}
}

// findings are what `palisade findings -o json` prints.
func (n *node) findings() []finding {
	n.t.Helper()
	out, code := n.palisade("findings", "-o", "json", "--limit", "10000")
	if code != 0 {
		n.t.Fatalf("palisade findings: exit code %d", code)
	}
	var all []finding
	for decoder := json.NewDecoder(strings.NewReader(out)); decoder.More(); {
		var f finding
		if err := decoder.Decode(&f); err != nil {
			n.t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

// byID fails the test if an id comes twice.
func byID(t *testing.T, all []finding) map[string]finding {
	t.Helper()
	m := make(map[string]finding, len(all))
	for _, f := range all {
		if _, twice := m[f.ID]; twice {
			t.Errorf("finding %s (%s) is there twice", f.ID, f.Rule)
		}
		m[f.ID] = f
	}
	return m
}

// browser is a person at the console's web page.
type browser struct {
	t      *testing.T
	base   string
	client *http.Client
}

// consoleClient logs in as admin.
func (n *node) consoleClient() *browser {
	n.t.Helper()
	b := n.stranger()
	answer, err := b.client.PostForm(b.base+"/login", url.Values{"user": {"admin"}, "username": {"admin"}, "password": {n.password()}})
	if err != nil {
		n.t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		n.t.Fatalf("login: %s", answer.Status)
	}
	return b
}

// stranger is a browser that trusts the console's authority and has not logged in.
func (n *node) stranger(certificates ...tls.Certificate) *browser {
	n.t.Helper()
	authority, err := os.ReadFile(filepath.Join(n.state, "enroll", "ca.crt"))
	if err != nil {
		n.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	jar, err := cookiejar.New(nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return &browser{t: n.t, base: "https://" + n.people, client: &http.Client{
		Jar: jar, Timeout: 10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certificates}},
	}}
}

func (b *browser) get(path string) string {
	b.t.Helper()
	answer, err := b.client.Get(b.base + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		b.t.Fatalf("GET %s: %s, %v", path, answer.Status, err)
	}
	return string(body)
}

func (b *browser) findings() []finding {
	b.t.Helper()
	var answer struct {
		Findings []finding `json:"findings"`
	}
	if err := json.Unmarshal([]byte(b.get("/api/v1/findings?limit=1000")), &answer); err != nil {
		b.t.Fatal(err)
	}
	return answer.Findings
}
