package selftest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// pathOf leads to an open file, also to one without a name (proc(5)).
func pathOf(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// onMemory does something to a memory file.
func onMemory(do func(fd int) error) func(*ground) error {
	return func(g *ground) error {
		fd, err := g.file()
		if err != nil {
			return err
		}
		return do(fd)
	}
}

func makeMemory(*ground) error {
	fd, err := unix.MemfdCreate("palisade-self-test", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func openFile(*ground) error {
	fd, err := unix.Open("/proc/self/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func symlink(g *ground) error {
	_, err := g.link()
	return err
}

func rename(g *ground) error { return toFresh(g, unix.Rename) }

func linkTwice(g *ground) error { return toFresh(g, unix.Link) }

// toFresh takes a link to a new name.
func toFresh(g *ground, do func(from, to string) error) error {
	from, err := g.link()
	if err != nil {
		return err
	}
	to, err := g.fresh()
	if err != nil {
		return err
	}
	return do(from, to)
}

func unlink(g *ground) error {
	path, err := g.link()
	if err != nil {
		return err
	}
	return unix.Unlink(path)
}

func makeDirectory(g *ground) error {
	path, err := g.fresh()
	if err != nil {
		return err
	}
	return unix.Mkdir(path, 0o700)
}

func removeDirectory(g *ground) error {
	path, err := g.fresh()
	if err != nil {
		return err
	}
	if err := unix.Mkdir(path, 0o700); err != nil {
		return err
	}
	return unix.Rmdir(path)
}

func makeNode(g *ground) error {
	path, err := g.fresh()
	if err != nil {
		return err
	}
	return unix.Mknod(path, unix.S_IFIFO|0o600, 0)
}

// aclName is the one extended attribute that memory file systems have long had and that needs no privilege (acl(5)).
const aclName = "system.posix_acl_access"

// acl says rw------- (include/uapi/linux/posix_acl_xattr.h): version 2, then tag, permissions and id for owner, group, others.
var acl = []byte{
	2, 0, 0, 0,
	1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff,
	4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
	0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
}

// attributeOfLink needs a name that is none of /proc's links, which have no attributes.
func attributeOfLink(g *ground) error {
	path, err := g.fresh()
	if err != nil {
		return err
	}
	if err := unix.Mkdir(path, 0o700); err != nil {
		return err
	}
	return unix.Lsetxattr(path, aclName, acl, 0)
}

// remountNothing asks to change a mount at a place where none is, which the kernel refuses to everybody.
func remountNothing(*ground) error {
	return refused(unix.Mount("", "/proc/self", "", unix.MS_REMOUNT, ""))
}

func mapExecutable(*ground) error { return mapped(unix.PROT_READ | unix.PROT_EXEC) }

func protectExecutable(*ground) error { return mapped(unix.PROT_READ, unix.PROT_READ|unix.PROT_EXEC) }

// mapped maps a page of zeroes and changes its protection.
func mapped(first int, then ...int) error {
	const page = 4096
	memory, err := unix.Mmap(-1, 0, page, first, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(memory) }()
	for _, protection := range then {
		if err := unix.Mprotect(memory, protection); err != nil {
			return err
		}
	}
	return nil
}
