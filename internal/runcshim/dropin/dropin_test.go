package dropin

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/internal/runcshim/engine"
)

const testShim = "/opt/palisade/shim/docker/palisade-runc"

// FuzzDocker adds the shim to a daemon.json and takes it out again: what else it says is as it was.
func FuzzDocker(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", `{"runtimes": {}}`, `{"runtimes": {"x": {"path": "/x", "runtimeArgs": ["<&>"]}}, "big": 12345678901234567890}`, `{"default-runtime": "runc"}`,
		`{"Runtimes": {"palisade": {"path": "/y"}}}`, `{"default-Runtime": "x"}`, `{"a": 1, "a": 2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		added, err := AddDocker("daemon.json", raw, testShim)
		if err != nil {
			return
		}
		daemon, err := engine.ParseDaemon("daemon.json", added)
		if err != nil || daemon.Default != Runtime || daemon.Runtimes[Runtime].Path != testShim {
			t.Fatalf("%q became %q, which says %+v, %v", raw, added, daemon, err)
		}
		removed, err := RemoveDocker("daemon.json", added, false)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(rest(t, raw), rest(t, removed)); diff != "" {
			t.Errorf("%q became %q (-before +after):\n%s", raw, removed, diff)
		}
		if between, err := RemoveDocker("daemon.json", added, true); err != nil || !strings.Contains(string(between), `"default-runtime": "runc"`) {
			t.Errorf("between: %q, %v", between, err)
		}
	})
}

// rest is what a daemon.json says but for a default runtime, which may be runC by name or by default, and an empty list of them.
func rest(t *testing.T, raw []byte) map[string]any {
	t.Helper()
	whole := map[string]any{}
	if len(strings.TrimSpace(string(raw))) > 0 {
		decoder := json.NewDecoder(strings.NewReader(string(raw)))
		decoder.UseNumber()
		if err := decoder.Decode(&whole); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
	}
	delete(whole, "default-runtime")
	runtimes, _ := whole["runtimes"].(map[string]any)
	delete(runtimes, Runtime)
	if len(runtimes) == 0 {
		delete(whole, "runtimes")
	}
	if len(whole) == 0 {
		return nil
	}
	return whole
}

func TestContainerdIsWrittenAsItIsRead(t *testing.T) {
	server := engine.Server{Version: 3}
	want := map[string]string{"runc": "/opt/palisade/shim/containerd-runc/palisade-runc", `we"ird\na.me`: "/opt/x\ty"}
	got, err := engine.ParseServer("x.toml", Containerd(server, want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Binaries()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPodmanIsWrittenAsItIsRead(t *testing.T) {
	_, runtimes, err := engine.ParseContainersConf("x.conf", Podman("/opt/shim", []string{"/usr/sbin/runc"}))
	if diff := cmp.Diff(map[string][]string{"runc": {"/opt/shim", "/usr/sbin/runc"}}, runtimes); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestStat(t *testing.T) {
	comm, start, err := parseStat("12 (a) b) R" + strings.Repeat(" 1", 18) + " 250 7 8")
	if comm != "a) b" || start.Milliseconds() != 2500 || err != nil {
		t.Errorf("parseStat = %q, %v, %v", comm, start, err)
	}
	for _, bad := range []string{"", "(", ")(", "1 (x) R 1 2", "1 (x) R" + strings.Repeat(" 1", 18) + " x"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) = nil error", bad)
		}
	}
}
