package fences

import (
	"slices"
	"strings"
)

// importFence keeps packages, and those below them, in a few places.
type importFence struct {
	packages []string
	places   []string
	// files are suffixes that open the fence to a file anywhere.
	files []string
	rule  string
	// tests are let through anywhere: they are linked into no process.
	tests bool
}

func (i importFence) open(f File) bool {
	return within(f.Path, i.places) || slices.ContainsFunc(i.files, func(s string) bool { return strings.HasSuffix(f.Path, s) }) || (i.tests && f.Test)
}

// importFences is STYLE's table.
var importFences = []importFence{
	{
		packages: []string{"github.com/cilium/ebpf"}, places: []string{"services/collector", "test"},
		rule: "only the collector speaks bpf()",
	},
	{
		packages: []string{"github.com/containerd/containerd", "k8s.io/cri-api"},
		places: []string{
			"services/correlator/internal/container", "services/enforcer/internal/identity", "cli/internal/demo", "cli/internal/ahead",
			"internal/containerdtest", "test",
		}, tests: true,
		rule: "the runtime's client is for describing containers and images, and for tests",
	},
	{
		packages: []string{"github.com/containerd/nri"}, places: []string{"internal/runcshim/nri"},
		rule: "one plugin speaks NRI",
	},
	{
		packages: []string{"github.com/dgraph-io/badger"}, places: []string{"services/uplink/internal/queue"},
		rule: "the queue alone knows how it is stored",
	},
	{
		packages: []string{"net/http", "crypto/tls"},
		places: []string{
			"internal/mtls", "internal/telemetry", "services/console", "services/gate/internal/window", "services/correlator/internal/container",
			"services/enforcer/internal/identity", "test",
		}, tests: true,
		rule: "one package builds TLS settings, one process speaks HTTP to the network; Docker speaks it on a unix socket",
	},
	{
		// The self-test starts the collector itself, without capabilities, and kills it at once: no exec is seen without one.
		packages: []string{"os/exec"},
		places: []string{
			"cli/internal/supervise", "cli/internal/launch", "services/collector/internal/selftest", "internal/runcshim/ask", "services/scanner/internal/child",
			"internal/containerdtest", "internal/dockertest", "loadtest", "test",
		}, tests: true,
		rule: "processes are started by the supervisor, by the scanner (itself), by the collector's self-test, by who asks runC for its version, and by tests, nowhere else",
	},
	{
		packages: []string{"unsafe"}, places: []string{"api"}, files: []string{"_unsafe.go", "_unsafe_test.go"}, // protoc-gen-go's code uses it
		rule: "unsafe stands in files that say so",
	},
}

// callFence keeps functions in a few places.
type callFence struct {
	calls  []string
	places []string
	rule   string
}

var callFences = []callFence{
	{
		calls: []string{
			"golang.org/x/sys/unix.Kill", "golang.org/x/sys/unix.Tgkill", "golang.org/x/sys/unix.PidfdSendSignal",
			"syscall.Kill", "os.FindProcess",
		},
		places: []string{
			"services/enforcer/internal/kill", "cli/internal/supervise", "cli/internal/launch", "internal/runcshim/dropin", "loadtest", "test", "internal/containerdtest",
		},
		rule: "signals are sent by the enforcer and the supervisor; SIGHUP to dockerd by `palisade shim --reload`",
	},
	{
		calls:  []string{"golang.org/x/sys/unix.Exec", "syscall.Exec", "syscall.ForkExec", "os.StartProcess"},
		places: []string{"cli/internal/supervise", "cli/internal/launch", "services/enforcer/runc-shim/internal/handover", "test"},
		rule:   "programs are started by the supervisor; the runC shim becomes runC",
	},
	{
		calls: []string{"os.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln"},
		places: []string{"internal/daemon", "cli/main.go", "services/enforcer/runc-shim/main.go", "services/enforcer/runc-shim/alone/main.go", "services/enforcer/runc-shim/hook/main.go",
			"tools/eventdoc"},
		rule: "only main exits",
	},
}

// vague are package names too vague to say what is in them.
var vague = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "manager"}
