package main

import (
	"fmt"
	"os"
	"syscall"

	"github.com/palisade-sec/palisade/internal/rpc"
)

// secureDirectory closes the directory of the sockets to everybody but their group and makes it sticky, so that no
// process can remove another's socket. `palisade up` and compose make it so; Kubernetes makes its volumes open to all
// and root's, and the enforcer is the only process in the pod that is root. A directory of somebody else's is left alone.
func secureDirectory(sockets rpc.Sockets) error {
	info, err := os.Stat(sockets.Directory)
	if err != nil {
		return fmt.Errorf("sockets.directory: %w", err)
	}
	const mode = 0o770 | os.ModeSticky
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int64(stat.Uid) != int64(os.Getuid()) {
		return nil
	}
	if int64(stat.Gid) == int64(sockets.Group) && info.Mode()&(os.ModePerm|os.ModeSticky) == mode {
		return nil
	}
	if err := os.Chown(sockets.Directory, -1, sockets.Group); err != nil {
		return fmt.Errorf("sockets.directory: %w", err)
	}
	if err := os.Chmod(sockets.Directory, mode); err != nil {
		return fmt.Errorf("sockets.directory: %w", err)
	}
	return nil
}
