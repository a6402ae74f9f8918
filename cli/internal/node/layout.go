// Package node lays out a Palisade node on a host: directories, configuration files, and the rows of the table of
// privileges turned into processes to supervise.
package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/internal/advisory"
	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/internal/runcshim"
)

// Settings are what a person may choose about a node.
type Settings struct {
	// Binaries is the directory with palisade-<process>.
	Binaries string
	// Runtime is the directory of sockets and configuration; State holds what survives a restart.
	Runtime string
	State   string
	// Ephemeral removes State at the end.
	Ephemeral bool
	// Name is the node's name in its certificate.
	Name string
	// Containerd, CRIO, Docker and Podman are the runtimes' sockets. None of them need be there.
	Containerd, CRIO, Docker, Podman string
	// Console is the address of a console elsewhere; empty embeds one.
	Console string
	// NodesListen and PeopleListen are the embedded console's addresses.
	NodesListen  string
	PeopleListen string
	// Rules are files and directories added to the built-in rules.
	Rules []string
	// Admission is the directory with the admission policy. What is not there when the node is prepared the enforcer never sees.
	Admission string
	// Images are directories with images' layers besides the runtimes' usual ones, for the scanner.
	Images []string
	// Models lets the correlator learn what images do, for so long each.
	Models                    bool
	ModelsLearn, ModelsDryRun time.Duration
	// TraceEndpoint is the OTLP endpoint; empty switches tracing off.
	TraceEndpoint string
}

// EphemeralState is where a node with the given run-time directory keeps state that is thrown away: a fixed place, so that
// the next one can remove what a killed one left, and below a directory that only root may write.
func EphemeralState(runtime string) string { return "/var/lib/palisade-ephemeral-" + flatten(runtime) }

// flatten turns a path into a name: /run/palisade into run-palisade.
func flatten(path string) string {
	return strings.ReplaceAll(strings.Trim(filepath.Clean(path), "/"), "/", "-")
}

// runs reports whether a process is part of this node: a console elsewhere is not.
func (s Settings) runs(process string) bool { return process != "console" || s.Console == "" }

// Runs reports, from the outside, whether a process is part of the node with the given run-time directory.
func Runs(runtime, process string) bool {
	config := Settings{Runtime: runtime}.configDirectory()
	if _, err := os.Stat(config); err != nil {
		return true // no node here, or not one that palisade up has started: all of them are asked
	}
	_, err := os.Stat(Settings{Runtime: runtime}.Config(process))
	return err == nil
}

// Validate reports every fault, each starting with its flag.
func (s Settings) Validate() error {
	var errs []error
	for _, path := range []struct{ flag, value string }{
		{"--bin", s.Binaries}, {"--run", s.Runtime}, {"--state", s.State}, {"--containerd-socket", s.Containerd},
		{"--crio-socket", s.CRIO}, {"--docker-socket", s.Docker}, {"--podman-socket", s.Podman}, {"--admission", s.Admission},
	} {
		if !filepath.IsAbs(path.value) {
			errs = append(errs, fmt.Errorf("%s: %q is not an absolute path", path.flag, path.value))
		}
	}
	addresses := []struct{ flag, value string }{{"--nodes-listen", s.NodesListen}, {"--people-listen", s.PeopleListen}}
	if s.Console != "" {
		addresses = []struct{ flag, value string }{{"--console", s.Console}}
	}
	for _, address := range addresses {
		if _, err := portOf(address.value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", address.flag, err))
		}
	}
	return errors.Join(errs...)
}

func portOf(address string) (uint16, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, fmt.Errorf("%q is not HOST:PORT", address)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q: port must be 1 to 65535", address)
	}
	return uint16(n), nil
}

// directory is one directory the node needs.
type directory struct {
	path     string
	mode     os.FileMode
	uid, gid int
}

func (s Settings) configDirectory() string { return filepath.Join(s.Runtime, "config") }
func (s Settings) advisoryDirectory() string {
	return filepath.Join(s.State, filepath.Base(advisory.Directory))
}
func (s Settings) enrollDirectory() string        { return filepath.Join(s.State, "enroll") }
func (s Settings) stateDirectory(p string) string { return filepath.Join(s.State, p) }

// pins is where the collector's programs outlive it, one directory for each run-time directory.
func (s Settings) pins() string { return filepath.Join(pinsOfAll, flatten(s.Runtime)) }

// ShimWatcher keeps the runC shim in its place on this host, and tells the enforcer where it stands.
func (s Settings) ShimWatcher(report func(runcshim.Event)) runcshim.Watcher {
	host := runcshim.Host{Root: "/", Binary: filepath.Join(s.Binaries, runcshim.ShimName)}
	return runcshim.Watcher{Host: host, Report: report, Standing: s.stateDirectory("enforcer")}
}

// Config is the configuration file of a process.
func (s Settings) Config(process string) string {
	return filepath.Join(s.configDirectory(), process+".yaml")
}

// directories are made in this order.
func (s Settings) directories(table privilege.Table) ([]directory, error) {
	group := int(table.SocketGroup)
	dirs := []directory{
		// Sticky: every process makes its socket here, none can remove or replace another's.
		{path: s.Runtime, mode: os.ModeSticky | 0o770, gid: group},
		{path: s.configDirectory(), mode: 0o750, gid: group},
		{path: s.State, mode: 0o711},
	}
	for _, row := range table.Processes {
		uid := int(row.UID)
		dirs = append(dirs, directory{path: s.stateDirectory(row.Name), mode: 0o700, uid: uid, gid: uid})
	}
	console, err := table.Row("console")
	if err != nil {
		return nil, err
	}
	uplink, err := table.Row("uplink")
	if err != nil {
		return nil, err
	}
	if _, err := table.Row("scanner"); err == nil {
		// Root's, for `palisade vulndb import`. It must be there when the scanner starts, which may look at nothing that is not.
		dirs = append(dirs, directory{path: s.advisoryDirectory(), mode: 0o755})
	}
	// The console leaves the node's certificate here for the uplink: setgid hands the files to the uplink's group.
	return append(dirs, directory{
		path: s.enrollDirectory(), mode: os.ModeSetgid | 0o750, uid: int(console.UID), gid: int(uplink.UID),
	}), nil
}

// refuseForeign keeps a mistyped --run or --state from being changed and emptied: a directory that holds anything but
// Palisade's own names is somebody else's.
func refuseForeign(flag, path string, own func(name string) bool) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	for _, entry := range entries {
		if !own(entry.Name()) {
			return fmt.Errorf("%s: %s holds %q, which is not Palisade's: choose a directory of its own", flag, path, entry.Name())
		}
	}
	return nil
}

// ownRuntime returns a function that reports whether a name in the run-time directory is ours.
func ownRuntime(table privilege.Table) func(string) bool {
	return func(name string) bool {
		process, isSocket := strings.CutSuffix(name, ".sock")
		process, _, _ = strings.Cut(process, "-") // the gate has one for each runtime: gate-docker.sock
		_, err := table.Row(process)
		return name == "config" || name == traceSocket || strings.HasPrefix(name, ".listen-") || (isSocket && err == nil)
	}
}

// ownState returns a function that reports whether a name in the state directory is ours.
func ownState(table privilege.Table) func(string) bool {
	return func(name string) bool {
		_, err := table.Row(name)
		return err == nil || name == "enroll" || name == filepath.Base(advisory.Directory) || name == filepath.Base(runcshim.StateDirectory)
	}
}

// removeRuntime removes what is ours in the run-time directory, and the directory if nothing else is in it.
func (s Settings) removeRuntime(own func(name string) bool) error {
	entries, err := os.ReadDir(s.Runtime)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if own(entry.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(s.Runtime, entry.Name())))
		}
	}
	return errors.Join(append(errs, os.Remove(s.Runtime))...)
}

func (d directory) make() error {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	info, err := os.Lstat(d.path)
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("make directory: %s is there and is no directory", d.path)
	}
	if err := os.Chown(d.path, d.uid, d.gid); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.Chmod(d.path, d.mode); err != nil { // after chown, which clears setgid
		return fmt.Errorf("make directory: %w", err)
	}
	return nil
}
