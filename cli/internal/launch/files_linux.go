package launch

import (
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
)

// Files is what a process may touch besides its binary, kept by the kernel (Landlock, Linux 5.13) whatever the process's uid. On kernels
// without Landlock ordinary permissions are all there is.
type Files struct {
	// Reads are files and directories with what is below them.
	Reads []string `json:"reads"`
	// Writes are directories in which anything may be made, changed and removed.
	Writes []string `json:"writes"`
	// ConnectPorts are TCP ports the process may connect to; BindPorts those it may listen on. Both need Linux 6.7.
	ConnectPorts []uint16 `json:"connect_ports"`
	BindPorts    []uint16 `json:"bind_ports"`
}

// everywhere are files that the Go runtime and its libraries read, the same for every process.
var everywhere = []string{
	"/etc/localtime", "/usr/share/zoneinfo", // log times
	"/dev/null", "/dev/urandom",
	"/sys/devices/system/cpu",                                                // number of processors
	"/sys/kernel/mm/transparent_hugepage",                                    // the runtime's heap
	"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", // the console's name
}

func restrictFiles(spec Spec) error {
	rules := []landlock.Rule{
		landlock.ROFiles(spec.Binary), // ROFiles includes execution
		landlock.RODirs(directories(spec.Files.Reads)...),
		landlock.ROFiles(plainFiles(spec.Files.Reads)...),
		landlock.RODirs(directories(everywhere)...),
		landlock.ROFiles(plainFiles(everywhere)...),
		// WithRefer: a socket is made in a private directory and renamed out of it.
		landlock.RWDirs(directories(spec.Files.Writes)...).WithRefer(),
		landlock.RWFiles(plainFiles(spec.Files.Writes)...),
	}
	for _, port := range spec.Files.ConnectPorts {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	for _, port := range spec.Files.BindPorts {
		rules = append(rules, landlock.BindTCP(port))
	}
	if err := landlock.V5.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

// directories are the paths that exist and are directories. What does not exist cannot be touched either.
func directories(paths []string) []string {
	return existing(paths, func(info os.FileInfo) bool { return info.IsDir() })
}

func plainFiles(paths []string) []string {
	return existing(paths, func(info os.FileInfo) bool { return !info.IsDir() })
}

func existing(paths []string, want func(os.FileInfo) bool) []string {
	var found []string
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && want(info) {
			found = append(found, path)
		}
	}
	return found
}
