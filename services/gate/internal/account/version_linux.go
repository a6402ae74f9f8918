package account

import (
	"fmt"
	"io/fs"
	"syscall"
)

// version tells a file from what it was before, and from the one that had its name before.
func version(info fs.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%x:%x:%x:%x.%x", stat.Dev, stat.Ino, info.Size(), stat.Ctim.Sec, stat.Ctim.Nsec)
}
