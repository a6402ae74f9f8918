package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	_ "github.com/palisade-sec/palisade/api/palisade/correlator/v1" // registers its methods
	_ "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"   // registers its methods
	_ "github.com/palisade-sec/palisade/api/palisade/process/v1"    // registers its methods
	_ "github.com/palisade-sec/palisade/api/palisade/uplink/v1"     // registers its methods
	"github.com/palisade-sec/palisade/internal/daemon"
)

var (
	template = regexp.MustCompile(`\{\{[^}]*\}\}`)
	// values are what the templates of the cases become.
	values = map[string]string{
		"{{newUUID | replace `-` ``}}": "0123456789abcdef0123456789abcdef",
		"{{.RequestNumber}}":           "7",
		"{{.Timestamp}}":               "2026-01-02T03:04:05Z",
	}
)

// Every case must call a method that exists with a request that has no unknown field, and bound itself.
func TestCasesFitTheContracts(t *testing.T) {
	cases, err := loadCases(settings{cases: "ghz"})
	if err != nil {
		t.Fatal(err)
	}
	covered := map[string]bool{}
	for _, c := range cases {
		covered[c.process] = true
		if _, foreign := c.config["proto"]; foreign {
			continue // containerd's, checked by ghz against the file
		}
		service, method, _ := cutLast(c.config["call"].(string))
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		call := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method))
		if call == nil {
			t.Errorf("%s: %s has no method %s", c.name, service, method)
			continue
		}
		raw, err := json.Marshal(c.config["data"])
		if err != nil {
			t.Fatal(err)
		}
		text := template.ReplaceAllStringFunc(string(raw), func(s string) string {
			value, ok := values[s]
			if !ok {
				t.Errorf("%s: template %s is not known to this test", c.name, s)
			}
			return value
		})
		if err := protojson.Unmarshal([]byte(text), dynamicpb.NewMessage(call.Input())); err != nil {
			t.Errorf("%s: request: %v", c.name, err)
		}
	}
	for _, process := range []string{"collector", "correlator", "gate", "enforcer", "uplink"} {
		if !covered[process] {
			t.Errorf("no case calls the %s", process)
		}
	}
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '.')
	return s[:max(i, 0)], s[i+1:], i > 0
}

func TestParseCaseReportsEveryFault(t *testing.T) {
	_, err := parseCase("x", []byte(`{"total": 0, "max-duration": "1s"}`))
	for _, want := range []string{"tags.process", "total:", "concurrency:", "connections:", "call:", "timeout:", "max-duration:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseCase = %v, want it to name %s", err, want)
		}
	}
}

// loadtest runs the program with a stand-in for ghz: a shell script.
func loadtest(t *testing.T, script string, args ...string) (string, error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("callers have uids of their own, so this needs root")
	}
	directory := t.TempDir()
	ghz, protoset := filepath.Join(directory, "ghz"), filepath.Join(directory, "set")
	for path, text := range map[string]string{ghz: "#!/bin/sh\n" + script, protoset: ""} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	args = append([]string{"-ghz", ghz, "-protoset", protoset, "-run", directory}, args...)
	err := run(t.Context(), daemon.Env{Name: "loadtest", Args: args, Stdout: &out})
	return out.String(), err
}

// answer is a report of as many calls as the uid, so that the test sees who ghz ran as.
const answer = `echo "{\"count\":$(id -u),\"rps\":5,\"latencyDistribution\":[{\"percentage\":50,\"latency\":1000},{\"percentage\":99,\"latency\":3000}]}"`

func TestEveryCaseRunsAsItsCaller(t *testing.T) {
	out, err := loadtest(t, answer, "-only", "uplink-push", "-o", "json")
	if err != nil {
		t.Fatalf("run = %v: %s", err, out)
	}
	var got []result
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	want := []result{{Case: "uplink-push", Process: "uplink", Caller: "correlator", Calls: 10002, RPS: 5, P50: time.Microsecond, P99: 3 * time.Microsecond}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
}

func TestErrorsAreTheExitCode(t *testing.T) {
	tests := []struct {
		name, script, want string
		args               []string
	}{
		{name: "failed calls", script: `echo '{"count":10002,"errorDistribution":{"rpc error: code = PermissionDenied":3}}'`, want: "PermissionDenied"},
		{name: "ghz fails", script: `echo no such host >&2; exit 1`, want: "no such host"},
		{name: "ghz hangs", script: `exec sleep 100`, want: "not done within 200ms", args: []string{"-t", "200ms"}},
		{name: "too few calls", script: `echo '{"count":1}'`, want: "only 1 of 5000"},
		{name: "not a report", script: `echo hello`, want: "read ghz's report"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := loadtest(t, tt.script, append([]string{"-only", "uplink-push"}, tt.args...)...)
			if err == nil || !strings.Contains(out, tt.want) {
				t.Errorf("run = %v: %s, want an error and %q", err, out, tt.want)
			}
		})
	}
}

func TestNoCaseIsAnError(t *testing.T) {
	if out, err := loadtest(t, answer, "-only", "nothing"); err == nil {
		t.Errorf("run succeeded: %s, want an error", out)
	}
}
