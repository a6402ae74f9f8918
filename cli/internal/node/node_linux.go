package node

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/cli/internal/cgroup"
	"github.com/palisade-sec/palisade/cli/internal/launch"
	"github.com/palisade-sec/palisade/cli/internal/supervise"
	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/internal/telemetry"
)

// ErrRunning says that another `palisade up` uses the same directory.
var ErrRunning = errors.New("a node is running already")

// Node is a prepared node: directories and configuration exist, nothing runs. Close it when its processes are gone.
type Node struct {
	settings Settings
	table    privilege.Table
	lock     *os.File
	groups   []*cgroup.Group
}

// Prepare makes directories and configuration files. It returns ErrRunning if the directories are in use.
func Prepare(settings Settings) (*Node, error) {
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	table, lock, err := claim(settings)
	if err != nil {
		return nil, err
	}
	n := &Node{settings: settings, table: table, lock: lock}
	if settings.Ephemeral { // one whose supervisor was killed could not clean up
		if err := os.RemoveAll(settings.State); err != nil {
			return nil, errors.Join(fmt.Errorf("remove old state: %w", err), lock.Close())
		}
	}
	if err := n.prepare(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// claim makes sure that the directories are Palisade's and that no other node uses them, as long as the lock is held.
func claim(settings Settings) (table privilege.Table, lock *os.File, err error) {
	if table, err = privilege.Load(); err != nil {
		return table, nil, err
	}
	if err := errors.Join(
		refuseForeign("--run", settings.Runtime, ownRuntime(table)),
		refuseForeign("--state", settings.State, ownState(table)),
	); err != nil {
		return table, nil, err
	}
	lock, err = acquire(filepath.Join(filepath.Dir(settings.Runtime), "."+filepath.Base(settings.Runtime)+".lock"))
	return table, lock, err
}

func (n *Node) prepare() error {
	dirs, err := n.settings.directories(n.table)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := dir.make(); err != nil {
			return err
		}
	}
	collector, err := n.table.Row("collector")
	if err != nil {
		return err
	}
	if err := makePins(n.settings.pins(), int(collector.UID)); err != nil {
		return err
	}
	for name, content := range n.settings.configurations(n.table) {
		if !n.settings.runs(name) {
			continue
		}
		raw, err := yaml.Marshal(content)
		if err != nil {
			return fmt.Errorf("write configuration of %s: %w", name, err)
		}
		path := n.settings.Config(name)
		if err := os.WriteFile(path, raw, 0o640); err != nil { //nolint:gosec // for the processes' group
			return fmt.Errorf("write configuration: %w", err)
		}
		if err := os.Chown(path, 0, int(n.table.SocketGroup)); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	return nil
}

// acquire takes the lock file, which lives beside the run-time directory so that removing that directory does not
// free it.
func acquire(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: it holds %s; stop it, or choose another --run directory", ErrRunning, path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return file, nil
}

// Processes turns the rows of the table into processes to supervise and makes their cgroups.
func (n *Node) Processes(output func(process, line string)) ([]supervise.Process, error) {
	var processes []supervise.Process
	for _, row := range n.table.Processes {
		if !n.settings.runs(row.Name) {
			continue
		}
		group, err := cgroup.Create(n.cgroupName(), row.Name, row.Limits)
		if err != nil {
			return nil, err
		}
		n.groups = append(n.groups, group)
		spec, err := n.spec(row, group)
		if err != nil {
			return nil, err
		}
		processes = append(processes, supervise.Process{
			Name: row.Name, Spec: spec, Isolate: isolation(row),
			Output: func(line string) { output(row.Name, line) },
		})
	}
	return processes, nil
}

// cgroupName is the parent of the processes' cgroups, one for each run-time directory.
func (n *Node) cgroupName() string { return flatten(n.settings.Runtime) }

func (n *Node) spec(row privilege.Row, group *cgroup.Group) (launch.Spec, error) {
	binary := filepath.Join(n.settings.Binaries, "palisade-"+row.Name)
	if _, err := os.Stat(binary); err != nil {
		return launch.Spec{}, fmt.Errorf("find processes: %w: run `make build`, or name their directory with --bin", err)
	}
	groups := []int{int(row.UID), int(n.table.SocketGroup)}
	if row.RuntimeSocketGroup {
		groups = append(groups, n.settings.runtimeGroups()...)
	}
	files, err := n.files(row)
	if err != nil {
		return launch.Spec{}, err
	}
	return launch.Spec{
		Binary: binary, Args: []string{"-config", n.settings.Config(row.Name)}, Env: n.environment(row),
		UID: row.UID, Groups: groups, Capabilities: row.Capabilities,
		CgroupProcs: group.Procs(), Files: files,
	}, nil
}

// runtimeGroups are the groups of the runtimes' sockets. Docker's is known by name before its socket is there, so that a
// Docker that is started later can be asked.
func (s Settings) runtimeGroups() []int {
	groups := []int{groupOf(s.Containerd)}
	for _, socket := range []string{s.CRIO, s.Docker, s.Podman} {
		if _, err := os.Stat(socket); err == nil {
			groups = append(groups, groupOf(socket))
		} else if docker, err := user.LookupGroup("docker"); err == nil && socket == s.Docker {
			if gid, err := strconv.Atoi(docker.Gid); err == nil {
				groups = append(groups, gid)
			}
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// groupOf is the group of a socket, or the row's own nobody if there is none yet: then the gate cannot use it either.
func groupOf(path string) int {
	info, err := os.Stat(path)
	if err != nil {
		return math.MaxUint16 - 1 // 65534, nogroup
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return math.MaxUint16 - 1
	}
	return int(stat.Gid)
}

// environment is all a process inherits. Its memory target stays a tenth under the cgroup's limit, so that the garbage
// collector works harder before the kernel kills.
func (n *Node) environment(row privilege.Row) []string {
	env := []string{
		"GOMEMLIMIT=" + strconv.FormatInt(row.Limits.MemoryBytes()/10*9, 10),
		"GOMAXPROCS=" + strconv.Itoa(int(math.Ceil(row.Limits.CPUs))),
	}
	if n.settings.TraceEndpoint != "" {
		env = append(env, telemetry.EndpointVariable+"=unix://"+n.TraceSocket())
	}
	return env
}

// TraceSocket is where processes without a network leave their traces.
func (n *Node) TraceSocket() string { return filepath.Join(n.settings.Runtime, traceSocket) }

const traceSocket = "otlp.sock"

// SocketGroup owns the node's sockets.
func (n *Node) SocketGroup() int { return int(n.table.SocketGroup) }

// files is what the row lets the process touch, with the host's default paths replaced by the settings'.
func (n *Node) files(row privilege.Row) (launch.Files, error) {
	files := launch.Files{
		Reads:  slices.Concat(n.paths(row.Reads), []string{n.settings.Config(row.Name)}),
		Writes: slices.Concat(n.paths(row.Writes), n.paths(row.MayWrite), []string{n.settings.Runtime}),
	}
	if row.Pins {
		files.Writes = append(files.Writes, n.settings.pins())
	}
	switch row.Name {
	case "correlator":
		files.Reads = append(files.Reads, n.settings.Rules...)
	case "scanner":
		files.Reads = append(files.Reads, n.settings.Images...)
	}
	switch row.Network {
	case privilege.NetworkEgress:
		port, err := portOf(n.settings.consoleAddress())
		if err != nil {
			return files, err
		}
		files.ConnectPorts = []uint16{port}
	case privilege.NetworkServe:
		for _, address := range []string{n.settings.NodesListen, n.settings.PeopleListen} {
			port, err := portOf(address)
			if err != nil {
				return files, err
			}
			files.BindPorts = append(files.BindPorts, port)
		}
	case privilege.NetworkNone:
	}
	return files, nil
}

// paths puts the chosen directories in place of the table's defaults.
func (n *Node) paths(defaults []string) []string {
	const state = "/var/lib/palisade"
	chosen := map[string]string{
		"/etc/palisade/admission":         n.settings.Admission,
		"/run/containerd/containerd.sock": n.settings.Containerd, "/run/crio/crio.sock": n.settings.CRIO,
		"/run/docker.sock": n.settings.Docker, "/run/podman/podman.sock": n.settings.Podman,
	}
	out := make([]string, len(defaults))
	for i, path := range defaults {
		out[i] = path
		if rest, err := filepath.Rel(state, path); err == nil && filepath.IsLocal(rest) {
			out[i] = filepath.Join(n.settings.State, rest)
		}
		if choice := chosen[path]; choice != "" {
			out[i] = choice
		}
	}
	return out
}

// isolation are the namespaces a row's process does not share with the host.
func isolation(row privilege.Row) uintptr {
	flags := uintptr(unix.CLONE_NEWIPC)
	if row.Network == privilege.NetworkNone {
		flags |= unix.CLONE_NEWNET
	}
	if !row.HostPID {
		flags |= unix.CLONE_NEWPID
	}
	return flags
}

// Close removes what is pinned in the kernel, cgroups, run-time directory and, if it is ephemeral, the state. The processes must
// be gone.
func (n *Node) Close() error {
	errs := []error{removePins(n.settings.pins())}
	for _, group := range n.groups {
		errs = append(errs, group.Remove())
	}
	errs = append(errs, n.settings.removeRuntime(ownRuntime(n.table)))
	if n.settings.Ephemeral {
		errs = append(errs, os.RemoveAll(n.settings.State))
	}
	errs = append(errs, os.Remove(n.lock.Name()), n.lock.Close())
	return errors.Join(errs...)
}
