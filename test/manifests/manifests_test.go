package manifests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/privilege"
)

const (
	composePath    = "../../deploy/compose/compose.yaml"
	kubernetesPath = "../../deploy/kubernetes/node.yaml"
)

// aroundSignals is why the enforcer runs without AppArmor in both engines.
const aroundSignals = "the default profile lets no signal out to a process under another profile"

var composeExceptions = []Exception{
	{"enforcer", "unconfined", "[apparmor=unconfined]", aroundSignals},
}

// kubernetesExceptions are what a pod cannot do per container.
var kubernetesExceptions = slices.Concat(
	[]Exception{{"enforcer", "unconfined", "[apparmor]", aroundSignals}},
	each("pids", "0", "there is only the kubelet's podPidsLimit", "collector", "correlator", "gate", "enforcer", "scanner", "uplink", "pins"),
	each("host_pid", "true", "belongs to the pod; the collector and the enforcer need it", "correlator", "gate", "scanner", "uplink", "pins"),
	each("network", "egress", "belongs to the pod; the uplink needs one", "collector", "correlator", "gate", "enforcer", "scanner", "pins"),
	each("in the sockets' group", "true", "belongs to the pod; the helper has no mount with a socket", "pins"),
)

func each(field, got, reason string, processes ...string) []Exception {
	var out []Exception
	for _, process := range processes {
		out = append(out, Exception{process, field, got, reason})
	}
	return out
}

func table(t *testing.T) privilege.Table {
	t.Helper()
	table, err := privilege.Load()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// compareCompose returns the faults of a compose file; one that cannot be decoded is one.
func compareCompose(t *testing.T, raw string) []string {
	t.Helper()
	path, err := filepath.Abs(composePath)
	if err != nil {
		t.Fatal(err)
	}
	project, err := LoadCompose(t.Context(), path, []byte(raw))
	if err != nil {
		return []string{err.Error()}
	}
	containers, err := ComposeContainers(project, table(t).SocketGroup)
	if err != nil {
		return []string{err.Error()}
	}
	var all []string
	for _, row := range slices.Concat(table(t).Processes, table(t).Helpers) {
		all = append(all, row.Name)
	}
	return Compare(table(t), all, containers, composeExceptions)
}

func compareKubernetes(t *testing.T, raw string) []string {
	t.Helper()
	objects, err := LoadKubernetes([]byte(raw))
	if err != nil {
		return []string{err.Error()}
	}
	containers, err := KubernetesContainers(objects, table(t).SocketGroup)
	if err != nil {
		return []string{err.Error()}
	}
	var node []string
	for _, row := range slices.Concat(table(t).Processes, table(t).Helpers) {
		if row.Name != "console" { // runs elsewhere
			node = append(node, row.Name)
		}
	}
	return Compare(table(t), node, containers, kubernetesExceptions)
}

func TestComposeAgreesWithTheTable(t *testing.T) {
	for _, fault := range compareCompose(t, read(t, composePath)) {
		t.Errorf("compose.yaml: %s", fault)
	}
}

func TestKubernetesAgreesWithTheTable(t *testing.T) {
	for _, fault := range compareKubernetes(t, read(t, kubernetesPath)) {
		t.Errorf("node.yaml: %s", fault)
	}
}

// mutation is a change to a manifest that must be reported.
type mutation struct{ name, old, new, want string }

func (m mutation) check(t *testing.T, manifest string, compare func(*testing.T, string) []string) {
	t.Helper()
	changed := strings.Replace(manifest, m.old, m.new, 1)
	if changed == manifest {
		t.Fatalf("the manifest has no %q to change", m.old)
	}
	faults := compare(t, changed)
	if !slices.ContainsFunc(faults, func(fault string) bool { return strings.Contains(fault, m.want) }) {
		t.Errorf("faults = %q, want one with %q", faults, m.want)
	}
}

func TestComposeMutationsAreReported(t *testing.T) {
	collector := "    user: \"10001:10001\"\n"
	for _, m := range []mutation{
		{"privileged", collector, collector + "    privileged: true\n", "collector: privileged is true"},
		{"another uid", `"10001:10001"`, `"0:0"`, "collector: uid is 0, want 10001"},
		{"a name for the uid", `"10001:10001"`, `"root"`, "is not a number"},
		{"one more capability", "cap_add: [BPF, NET_ADMIN, PERFMON]", "cap_add: [BPF, NET_ADMIN, PERFMON, SYS_ADMIN]", "collector: added capabilities"},
		{"one less capability", "cap_add: [DAC_OVERRIDE, KILL]", "cap_add: [KILL]", "enforcer: added capabilities"},
		{"capabilities kept", "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "dropped capabilities"},
		{"a network", "network_mode: none\n    pid: host", "network_mode: host\n    pid: host", "collector: network is mode host, want none"},
		{"a network that leads out", "internal: true", "internal: false", "uplink: network is network channel"},
		{"another port", ":8083:8083", ":22:22", "console: network"},
		{"new privileges", `"no-new-privileges:true"]`, `"no-new-privileges:false"]`, "no new privileges is false"},
		{"writable root", "read_only: true", "read_only: false", "read-only root is false"},
		{"more memory", "mem_limit: 96m", "mem_limit: 960m", "collector: memory"},
		{"more processors", "cpus: 0.5", "cpus: 2", "gate: cpus"},
		{"more threads", "pids_limit: 64", "pids_limit: 0", "collector: pids"},
		{"the runtime's socket", "      - correlator:/var/lib/palisade/correlator\n", "      - correlator:/var/lib/palisade/correlator\n      - /run/containerd/containerd.sock:/run/containerd/containerd.sock\n", "correlator: other mounts"},
		{"the host's accounts writable", "/etc:/host/etc:ro", "/etc:/host/etc", "gate: other mounts"},
		{"more than the host's accounts", "/etc:/host/etc:ro", "/:/host/etc:ro", "gate: other mounts"},
		{"the host's accounts for another", "      - correlator:/var/lib/palisade/correlator\n", "      - correlator:/var/lib/palisade/correlator\n      - /etc:/host/etc:ro\n", "correlator: other mounts"},
		{"enrolment writable by the uplink", "/var/lib/palisade/enroll:ro", "/var/lib/palisade/enroll", "uplink: other mounts"},
		{"the host's root instead of a volume", "      - enforcer:/var", "      - /:/var", "enforcer: other mounts"},
		{"state without a mount", "      - uplink:/var/lib/palisade/uplink\n", "", "uplink: writes"},
		{"no pins", "      - /sys/fs/bpf/palisade/compose:/sys/fs/bpf\n    depends_on", "    depends_on", "collector: has its pins is false"},
		{"all of the host's pins", "/sys/fs/bpf/palisade/compose:/sys/fs/bpf\n    depends_on", "/sys/fs/bpf:/sys/fs/bpf\n    depends_on", "collector: other mounts"},
		{"pins for another", "      - enforcer:/var", "      - /sys/fs/bpf/palisade/compose:/sys/fs/bpf\n      - enforcer:/var", "enforcer: other mounts"},
		{"the helper may more", "cap_add: [CHOWN]", "cap_add: [CHOWN, DAC_OVERRIDE]", "pins: added capabilities"},
		{"the helper reaches the sockets", "    command: [pins, --stay, /sys/fs/bpf]\n    volumes:\n", "    command: [pins, --stay, /sys/fs/bpf]\n    volumes:\n      - sockets:/run/palisade\n", "pins: has the sockets is true"},
		{"layers writable by the scanner", "/var/lib/docker:/var/lib/docker:ro", "/var/lib/docker:/var/lib/docker", "scanner: other mounts"},
		{"the host's root in the place of layers", "/var/lib/docker:/var/lib/docker:ro", "/:/var/lib/docker:ro", "scanner: other mounts"},
		{"layers for another", "      - uplink:/var/lib/palisade/uplink\n", "      - uplink:/var/lib/palisade/uplink\n      - /var/lib/docker:/var/lib/docker:ro\n", "uplink: other mounts"},
		{"no restart", "restart: always", "restart: \"no\"", "restarts always"},
		{"a device", collector, collector + "    devices: [/dev/mem:/dev/mem]\n", "collector: devices"},
		{"no group", `group_add: ["10000"]`, `group_add: ["0"]`, "in the sockets' group is false"},
		{"unknown key", collector, collector + "    priviledged: true\n", "priviledged"},
		{"host's pids", "  gate:\n    <<: *process\n", "  gate:\n    <<: *process\n    pid: host\n", "gate: host_pid is true"},
		{"a process more", "  gate:\n    <<: *process\n", "  shell: {image: x, user: \"0\"}\n  gate:\n    <<: *process\n", `no row for "shell"`},
	} {
		t.Run(m.name, func(t *testing.T) { m.check(t, read(t, composePath), compareCompose) })
	}
}

func TestKubernetesMutationsAreReported(t *testing.T) {
	collector := "            runAsUser: 10001\n"
	for _, m := range []mutation{
		{"privileged", collector, collector + "            privileged: true\n", "collector: privileged is true"},
		{"another uid", "runAsUser: 10001", "runAsUser: 0", "collector: uid is 0, want 10001"},
		{"no uid", collector, "", "runAsUser and capabilities must be written down"},
		{"one more capability", "add: [BPF, NET_ADMIN, PERFMON]", "add: [BPF, NET_ADMIN, PERFMON, SYS_PTRACE]", "collector: added capabilities"},
		{"capabilities kept", "capabilities: {drop: [ALL]}", "capabilities: {drop: [NET_RAW]}", "correlator: dropped capabilities"},
		{"escalation", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "no new privileges is false"},
		{"writable root", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "read-only root is false"},
		{"host's network", "hostPID: true", "hostPID: true\n      hostNetwork: true", "host's namespaces is [network]"},
		{"exception without need", "hostPID: true", "hostPID: false", "exception is not needed"},
		{"a policy that lets in", "ingress: []", "ingress: [{}]", "uplink: network is open"},
		{"a policy that lets out", "port: 8084}", "port: 22}", "uplink: network is open"},
		{"more memory", "memory: 96Mi}", "memory: 1Gi}", "collector: memory"},
		{"no limit", "            limits: {cpu: \"1\", memory: 96Mi}\n", "", "collector: memory is 0"},
		{"all of the host's pins", "path: /sys/fs/bpf/palisade/kubernetes", "path: /sys/fs/bpf", "collector: other mounts"},
		{"pins for another", "            - {name: correlator, mount", "            - {name: pins, mountPath: /sys/fs/bpf}\n            - {name: correlator, mount", "correlator: other mounts"},
		{"pins that nobody hands over", "        - name: pins\n          image", "        - name: sleep\n          image", "containers are for"},
		{"another path of the host", "path: /var/lib/palisade/enforcer", "path: /", "enforcer: other mounts"},
		{"the runtime's socket", "            - {name: correlator, mountPath: /var/lib/palisade/correlator}\n", "            - {name: correlator, mountPath: /var/lib/palisade/correlator}\n            - {name: containerd, mountPath: /run/containerd/containerd.sock}\n", "correlator: other mounts"},
		{"the host's accounts writable", "mountPath: /host/etc, readOnly: true", "mountPath: /host/etc", "gate: other mounts"},
		{"no seccomp for the enforcer", "appArmorProfile: {type: Unconfined}", "appArmorProfile: {type: Unconfined}\n            seccompProfile: {type: Unconfined}", "enforcer: unconfined is [apparmor seccomp]"},
		{"no seccomp", "seccompProfile: {type: RuntimeDefault}", "seccompProfile: {type: Unconfined}", "collector: unconfined is [seccomp]"},
		{"a key to the API", "      automountServiceAccountToken: false\n      enable", "      enable", "service account's key is true"},
		{"no group", "supplementalGroups: [10000]", "supplementalGroups: [10000, 0]", "in the sockets' group is false"},
		{"unknown key", collector, collector + "            runAsUsr: 1\n", "runAsUsr"},
		{"a key twice", collector, collector + collector, "already set"},
		{"layers writable by the scanner", "mountPath: /var/lib/containerd, readOnly: true", "mountPath: /var/lib/containerd", "scanner: other mounts"},
		{"the host's root in the place of layers", "path: /var/lib/containerd,", "path: /,", "scanner: other mounts"},
		{"another kind", "kind: ServiceAccount", "kind: Pod", "is not expected"},
	} {
		t.Run(m.name, func(t *testing.T) { m.check(t, read(t, kubernetesPath), compareKubernetes) })
	}
}

// Every image of the Dockerfile starts as its row's uid, and no file here names a registry: images are local, or come
// from where whoever deploys them keeps them.
func TestImages(t *testing.T) {
	dockerfile := read(t, "../../deploy/Dockerfile")
	for _, row := range table(t).Processes {
		stage := regexp.MustCompile(`(?s)FROM scratch AS ` + row.Name + `\n(.*?)(\nFROM|$)`).FindStringSubmatch(dockerfile)
		if stage == nil {
			t.Errorf("Dockerfile has no stage for %s", row.Name)
			continue
		}
		uid := regexp.MustCompile(`(?m)^USER (\d+):`).FindStringSubmatch(stage[1])
		if uid == nil || uid[1] != strconv.FormatUint(uint64(row.UID), 10) {
			t.Errorf("Dockerfile: %s has USER %v, want %d", row.Name, uid, row.UID)
		}
	}
	image := regexp.MustCompile(`(?m)^\s*image: (.*)$`)
	for _, path := range []string{composePath, kubernetesPath} {
		for _, m := range image.FindAllStringSubmatch(read(t, path), -1) {
			if !strings.HasPrefix(m[1], "palisade/") {
				t.Errorf("%s: image %s, want palisade/…", path, m[1])
			}
		}
	}
}
