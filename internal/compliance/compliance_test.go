package compliance

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/internal/document"
)

func TestBuiltin(t *testing.T) {
	checks, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, check := range checks {
		if seen[check.ID] || seen[check.CIS] || !regexp.MustCompile(`^[45]\.[0-9]+$`).MatchString(check.CIS) {
			t.Errorf("check %s, CIS %s: is there twice, or has no CIS number", check.ID, check.CIS)
		}
		seen[check.ID], seen[check.CIS] = true, true
	}
	if _, err := Compile(checks); err != nil {
		t.Error(err)
	}
	page, err := os.ReadFile("../../docs/compliance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range checks {
		row := "| `" + check.ID + "` | " + check.CIS + " | " + check.Severity + " | " + check.Title + " |\n"
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/compliance.md has not: %s", row)
		}
	}
}

const ownCheck = "checks:\n  - id: %ID\n    title: Mine\n    severity: low\n    remedy: Do it.\n    expression: %EXPRESSION\n"

func TestParse(t *testing.T) {
	tests := []struct {
		name, id, expression string
		want                 []string // beginnings of the faults
	}{
		{name: "all is well", id: "mine", expression: `spec.hostname != "x"`},
		{name: "a wrong field", id: "mine", expression: "spec.root.readOnly", want: []string{"f:6:26: undefined field 'readOnly'"}},
		{name: "a wrong field on the second line", id: "mine", expression: "|\n      spec.root.readonly &&\n      spec.rot.readonly",
			want: []string{"f:8:11: undefined field 'rot'"}},
		{name: "a wrong function", id: "mine", expression: `spec.hasNamespaces("pid")`, want: []string{"f:6:35: undeclared reference"}},
		{name: "no syntax", id: "mine", expression: "spec.(", want: []string{"f:6:22: Syntax error"}},
		{name: "no yes or no", id: "mine", expression: "spec.hostname", want: []string{"f:6:17: expression gives string, not bool"}},
		{name: "a type that cannot be compared", id: "mine", expression: "spec.process.user.uid == 0",
			want: []string{"f:6:39: found no matching overload for '_==_'"}},
		{name: "a built-in check's id", id: "privileged", expression: "true", want: []string{`f:2:9: id: there is a check "privileged"`}},
		{name: "a bad id", id: "Mine_", expression: "true", want: []string{`f:2:9: id: "Mine_" is not small letters`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file, root := document.Parse("f", []byte(strings.NewReplacer("%ID", tt.id, "%EXPRESSION", tt.expression).Replace(ownCheck)))
			checks := Parse(root)
			var got []string
			for i, fault := range document.Faults(file.Err()) {
				first, _, _ := strings.Cut(fault.Error(), "\n")
				if i < len(tt.want) && strings.HasPrefix(first, tt.want[i]) {
					first = tt.want[i]
				}
				got = append(got, first)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Parse(%q) faults: -want +got\n%s", tt.expression, diff)
			}
			if len(checks) != 1 || checks[0].ID != tt.id {
				t.Errorf("Parse() = %v", checks)
			}
		})
	}
}

func TestEvaluateOne(t *testing.T) {
	mounts := func(n int) string {
		return `{"process":{}, "mounts":[` + strings.TrimSuffix(strings.Repeat(`{"source":"/a"},`, n), ",") + `]}`
	}
	some, many := mounts(500), mounts(20_000)
	tests := []struct {
		name, raw, expression, evidence string
		failed                          bool
		want                            string // in the detail
	}{
		{name: "in order", raw: `{"process":{}}`, expression: "true"},
		{name: "absent parts are empty", raw: `{"process":{}}`, expression: "spec.linux.resources.memory.limit == 0 && !has(spec.linux.seccomp)"},
		{name: "an error is a failure", raw: `{"process":{}}`, expression: `spec.process.args[3] == "x"`, failed: true, want: "cannot be evaluated: \"index out of bounds"},
		{name: "an error in a part that counts", raw: `{"process":{}}`, expression: `spec.hasNamespace("net")`, failed: true, want: "is not one of cgroup"},
		{name: "an annotation that is not there", raw: `{"process":{}}`, expression: `spec.annotations["x"] == "y"`, failed: true, want: "no such key"},
		{name: "evidence is a text", raw: `{"process":{}, "hostname":"a\u001b[2J"}`, expression: "false", evidence: "spec.hostname", failed: true, want: `"a\x1b[2J"`},
		{name: "evidence is cut", raw: some, expression: "false", evidence: "spec.mounts.map(m, m.source)", failed: true, want: "and 490 more"},
		{name: "evidence that fails", raw: `{"process":{}}`, expression: "false", evidence: "spec.process.args[0]", failed: true, want: "no evidence"},
		{name: "work without end", raw: many, expression: "spec.mounts.all(a, spec.mounts.all(b, a.source == b.source))", failed: true, want: "cost limit exceeded"},
		{name: "the host's network by path", raw: `{"linux":{"namespaces":[{"type":"network","path":"/proc/1/../1/ns/net"}]}}`,
			expression: `spec.hasNamespace("network")`, failed: true},
		{name: "another container's network", raw: `{"linux":{"namespaces":[{"type":"network","path":"/proc/77/ns/net"}]}}`,
			expression: `spec.hasNamespace("network")`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, err := Compile([]Check{{ID: "x", Expression: tt.expression, Evidence: tt.evidence}})
			if err != nil {
				t.Fatal(err)
			}
			failures, err := set.Evaluate([]byte(tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			if (len(failures) == 1) != tt.failed {
				t.Fatalf("Evaluate() = %v, want a failure: %v", failures, tt.failed)
			}
			if tt.failed && !strings.Contains(failures[0].Detail, tt.want) {
				t.Errorf("detail = %s, want %q", failures[0].Detail, tt.want)
			}
		})
	}
}

func TestEvidence(t *testing.T) {
	tests := []struct{ spec, id, want string }{
		{"docker-cap-add", "capabilities", `"CAP_NET_ADMIN"`},
		{"docker-etc", "host-directories", `"/etc"`},
		{"docker-device", "devices", `"/dev/mine"`},
		{"docker-privileged", "privileged", `"every device is allowed"`},
		{"docker-seccomp", "seccomp", `"no filter"`},
	}
	for _, tt := range tests {
		failures := evaluate(t, readSpec(t, tt.spec))
		i := slices.IndexFunc(failures, func(f Failure) bool { return f.Check.ID == tt.id })
		if i < 0 || failures[i].Detail != tt.want {
			t.Errorf("Evaluate(%s): %s has not the evidence %s: %v", tt.spec, tt.id, tt.want, failures)
		}
	}
}

// TestSocketInDisguise has mounts that runC makes all the same.
func TestSocketInDisguise(t *testing.T) {
	for _, mount := range []string{
		`{"type":"tmpfs","source":"/run","options":["rbind"]}`, `{"type":"bind","source":"/run/x/../docker.sock/."}`,
		`{"type":"none","source":"//var/run/","options":["ro","bind"]}`,
	} {
		if ids := failed(t, []byte(`{"process":{},"mounts":[`+mount+`]}`)); !slices.Contains(ids, "docker-socket") {
			t.Errorf("docker-socket passes %s", mount)
		}
	}
	if ids := failed(t, []byte(`{"process":{},"mounts":[{"type":"tmpfs","source":"tmpfs","destination":"/run"}]}`)); slices.Contains(ids, "docker-socket") {
		t.Error("docker-socket fails a tmpfs of the container's own")
	}
}

func TestEvaluateRefuses(t *testing.T) {
	set, err := Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{"", "null", "[]", "{}", `{"process":{}} x`, `{"process":{"user":{"uid":-1}}}`, strings.Repeat(" ", maxBytes+1)} {
		if _, err := set.Evaluate([]byte(raw)); err == nil {
			t.Errorf("Evaluate(%.20q) takes what is no spec", raw)
		}
	}
}

func TestSelect(t *testing.T) {
	checks := []Check{{ID: "a"}, {ID: "b"}}
	if got, err := Select(checks, []string{"b"}); err != nil || len(got) != 1 || got[0].ID != "b" {
		t.Errorf("Select(b) = %v, %v", got, err)
	}
	if _, err := Select(checks, []string{"c"}); err == nil {
		t.Error("Select(c) finds what is not there")
	}
}

func FuzzEvaluate(f *testing.F) {
	names, err := filepath.Glob("testdata/*.json")
	if err != nil || len(names) == 0 {
		f.Fatalf("no specs in testdata: %v", err)
	}
	for _, name := range names {
		f.Add(readSpec(f, strings.TrimSuffix(filepath.Base(name), ".json")))
	}
	f.Add([]byte(`{"linux":{"namespaces":[{"type":"network","path":"//"}],"resources":{"memory":{"limit":null}}},"mounts":[{"options":null}]}`))
	checks, err := Builtin()
	if err != nil {
		f.Fatal(err)
	}
	set, err := Compile(checks)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		failures, err := set.Evaluate(raw)
		if err != nil {
			return
		}
		for _, failure := range failures {
			if strings.Contains(failure.Detail, "no such") {
				t.Errorf("check %s: %s", failure.Check.ID, failure.Detail)
			}
		}
	})
}

func FuzzParseChecks(f *testing.F) {
	f.Add(strings.NewReplacer("%ID", "mine", "%EXPRESSION", "spec.root.readonly").Replace(ownCheck))
	f.Add("checks:\n- {id: a, expression: \"\\u00e9.(\"}\n")
	f.Fuzz(func(_ *testing.T, raw string) {
		file, root := document.Parse("f", []byte(raw))
		Parse(root)
		_ = file.Err()
	})
}

func BenchmarkBuiltin(b *testing.B) {
	for b.Loop() {
		if _, err := Builtin(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewEnv(b *testing.B) {
	for b.Loop() {
		if _, err := newEnv(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	checks, err := Builtin()
	if err != nil {
		b.Fatal(err)
	}
	for name, n := range map[string]int{"five": 5, "all": len(checks)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Compile(checks[:n]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEvaluate(b *testing.B) {
	checks, err := Builtin()
	if err != nil {
		b.Fatal(err)
	}
	set, err := Compile(checks)
	if err != nil {
		b.Fatal(err)
	}
	raw := readSpec(b, "docker-default")
	for b.Loop() {
		if _, err := set.Evaluate(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEvaluateHostile is the most that one expression can take.
func BenchmarkEvaluateHostile(b *testing.B) {
	raw := []byte(`{"process":{}, "mounts":[` + strings.TrimSuffix(strings.Repeat(`{"source":"/a"},`, 20_000), ",") + `]}`)
	set, err := Compile([]Check{{ID: "x", Expression: "spec.mounts.all(a, spec.mounts.all(b, a.source == b.source))"}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := set.Evaluate(raw); err != nil {
			b.Fatal(err)
		}
	}
}
