// Command palisade starts a node, shows what it does and what it found.
//
// # Privileges
//
// `palisade up` runs as root: it makes directories and cgroups, then starts every process through `palisade launch`, in
// which that child gives up everything but its row of deploy/privileges.yaml before it executes the process's binary.
// It parses nothing that comes from a container but findings, over a unix socket from a process whose uid it checks,
// and escapes them before they reach the terminal. `palisade shim` is root's, too: it replaces
// files of the host's container engines, after it has read their configuration, and runs runC to hear its version. The other
// commands are clients of those sockets.
package main

import (
	"os"

	"github.com/palisade-sec/palisade/cli/internal/command"
)

func main() {
	os.Exit(command.Execute(os.Args[1:], os.Stdout, os.Stderr))
}
