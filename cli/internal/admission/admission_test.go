package admission_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/cli/internal/command"
)

// palisade is the whole command line.
func palisade(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = command.Execute(args, &out, &errs)
	return code, out.String(), errs.String()
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// real is a configuration that Docker made.
func real(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join("../../../internal/compliance/testdata", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

const policy = `
version: 1
rules:
  - name: prod
    match: {namespaces: [prod], labels: {app: "shop*"}}
    message: Ask the platform team.
    compliance: {block: critical}
    vulnerability: {block: high, grace_days: {critical: 7}}
checks:
  - {id: no-debug, title: No debug build, severity: critical, remedy: Use the release image., expression: '!spec.process.env.exists(e, e.startsWith("DEBUG="))'}
`

const report = `{"image": "shop:1", "vulnerabilities": [{"id": "CVE-2026-0001", "severity": "critical", "package": "openssl", "version": "1",
  "fixed_version": "2", "fixed_at": "2026-11-01T00:00:00Z"}]}`

func TestEveryCheckIsListedWithItsCISNumber(t *testing.T) {
	code, out, _ := palisade("compliance", "list")
	if code != 0 || !strings.Contains(out, "5.32") || strings.Count(out, "\n") < 22 {
		t.Errorf("list: %d: %s", code, out)
	}
	code, out, _ = palisade("compliance", "list", "-o", "json", "--with", write(t, "p.yaml", policy))
	var checks []struct{ ID, CIS string }
	if err := json.Unmarshal([]byte(out), &checks); err != nil || code != 0 || checks[len(checks)-1].ID != "no-debug" {
		t.Errorf("list -o json: %d, %v: %s", code, err, out)
	}
	for _, check := range checks {
		if code, shown, _ := palisade("compliance", "show", check.ID, "--with", write(t, "p.yaml", policy)); code != 0 || !strings.Contains(shown, "remedy") || !strings.Contains(shown, check.CIS) {
			t.Errorf("show %s: %d: %s", check.ID, code, shown)
		}
	}
}

func TestPolicyCommands(t *testing.T) {
	file := write(t, "policy.yaml", policy)
	privileged := write(t, "config.json", `{"ociVersion":"1.0.2","process":{"args":["x"],"capabilities":{"bounding":["CAP_SYS_ADMIN"]}},"linux":{"resources":{"devices":[{"allow":true}]}}}`)
	try := func(more ...string) []string {
		return append([]string{"policy", "try", file, "--namespace", "prod", "--label", "app=shop-1"}, more...)
	}
	found := write(t, "report.json", report)
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string // in what is printed, to whichever of both
	}{
		{"a good policy", []string{"policy", "check", file}, 0, "ok: 1 rules"},
		{"a policy with a mistake", []string{"policy", "check", write(t, "bad.yaml", strings.Replace(policy, "namespaces", "namespace", 1))}, 1, "bad.yaml:5:"},
		{"no policy", []string{"policy", "check", "/nonexistent"}, 1, "no such file"},
		{"no words", []string{"policy", "check"}, 2, "--help"},
		{"refused", try("--spec", privileged, "--image", "shop:1", "--report", found, "--at", "2026-11-02"), 3, "CIS 5.5 privileged"},
		{"its user's text", try("--spec", privileged), 3, "Ask the platform team."},
		{"another namespace", []string{"policy", "try", file, "--spec", privileged}, 0, "No rule matches"},
		{"in its grace", try("--spec", real(t, "docker-default.json"), "--report", found, "--at", "2026-11-02"), 0, "blocks from 2026-11-08"},
		{"after its grace", try("--spec", real(t, "docker-default.json"), "--report", found, "--at", "2026-11-08"), 3, "CVE-2026-0001"},
		{"as JSON", try("--spec", privileged, "-o", "json"), 3, `"denied": true`},
		{"no spec", []string{"policy", "try", file}, 2, "--spec"},
		{"a bad label", try("--spec", privileged, "--label", "x"), 2, "name=value"},
		{"a bad day", try("--spec", privileged, "--at", "soon"), 2, "2027-01-31"},
		{"a bad report", try("--spec", privileged, "--report", file), 1, "no report"},
		{"a report of nothing", try("--spec", privileged, "--report", write(t, "r.json", "{}")), 1, "no report"},
		{"a configuration that fails", []string{"compliance", "check", privileged}, 3, "CIS 5.5 privileged (critical)"},
		{"a bundle", []string{"compliance", "check", filepath.Dir(privileged), "-o", "json"}, 3, `"privileged"`},
		{"no configuration", []string{"compliance", "check", file}, 1, "policy.yaml"},
		{"a check that is none", []string{"compliance", "show", "nothing"}, 1, "nothing"},
	} {
		code, out, errs := palisade(tt.args...)
		if code != tt.code || !strings.Contains(out+errs, tt.want) {
			t.Errorf("%s: palisade %q: exit code %d, want %d and %q:\n%s%s", tt.name, tt.args, code, tt.code, tt.want, out, errs)
		}
	}
}
