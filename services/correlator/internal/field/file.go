package field

import (
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// Kinds by what they say of files and sockets. A call that comes in a form with a path and one with a descriptor has the
// path as fd.name in both.
const (
	// inodeKinds are about a file that fd.* describes.
	inodeKinds = KindFileOpen | KindMmapExec | KindMprotectExec | KindChmod | KindChown | KindTruncate | KindSetxattr
	fileKinds  = inodeKinds | KindModuleLoad
	fdKinds    = fileKinds | KindMemfd | socketKinds

	// Falco has the names of a call that makes one name of another as source and target, and those of the others as name.
	pairKinds = KindRename | KindLink | KindSymlink | KindMount
	pathKinds = KindFileOpen | KindExecFailed | KindUnlink | KindRmdir | KindMkdir | KindMknod | KindChmod | KindChown | KindTruncate |
		KindSetxattr | KindUmount | KindPivotRoot | KindChroot | KindModuleLoad
)

// fileFields are fd.* of files, and of whatever a descriptor may be, and fs.path.*.
var fileFields = map[string]Field{
	"fd.name":           {Doc: "the kernel's path, a unix socket's path, client:port->server:port, or the address bound to", Path: WholePath, Kinds: fdKinds &^ KindSocket, Str: fdName},
	"fd.nameraw":        {Doc: "path of an open as the caller wrote it; missing if it could not be read, or if there is none", Kinds: KindFileOpen, Needs: Needs{GivenPath: true}, Str: givenPath},
	"fd.directory":      {Doc: "directory of the file", Path: Directory, Kinds: fileKinds, Str: fileDir},
	"fd.filename":       {Doc: "last element of the file's path", Kinds: fileKinds, Str: fileBase},
	"fd.type":           {Doc: "file, directory, memfd, ipv4, ipv6, unix or netlink", Kinds: fdKinds, Str: fdType},
	"fd.typechar":       {Doc: "f, d, m, 4, 6, u or n, as fd.type", Kinds: fdKinds, Str: fdTypeChar},
	"fd.num":            {Doc: "descriptor, of a dup the one that was duplicated; of an open or accept it may be known only to be 0 or more", Type: Number, Kinds: KindFileOpen | KindAccept | KindDuplicate, Num: descriptor, Sign: descriptorSign},
	"fd.dev":            {Doc: "device of the file, major<<20 | minor", Type: Number, Kinds: inodeKinds, Num: fileDevice},
	"fd.dev.major":      {Doc: "major number of the file's device", Type: Number, Kinds: inodeKinds, Num: func(c *Context) (int64, bool) { n, ok := fileDevice(c); return n >> 20, ok }},
	"fd.dev.minor":      {Doc: "minor number of the file's device", Type: Number, Kinds: inodeKinds, Num: func(c *Context) (int64, bool) { n, ok := fileDevice(c); return n & (1<<20 - 1), ok }},
	"fd.ino":            {Doc: "inode of the file", Type: Number, Kinds: inodeKinds, Num: fileInode},
	"fd.is_upper_layer": {Doc: "the file was written after the image was made", Type: Bool, Kinds: inodeKinds, Num: fileUpper},

	"fd.containername":      {Doc: "container.id, a colon and fd.name", Kinds: fdKinds &^ KindSocket, Str: inContainer(0, fdName)},
	"fd.containerdirectory": {Doc: "container.id, a colon and fd.directory", Kinds: fileKinds, Str: inContainer(1, fileDir)},

	"fs.path.name":   {Doc: "path of the file that is opened, made, removed or changed", Path: WholePath, Kinds: pathKinds, Str: filePath},
	"fs.path.source": {Doc: "old name of a rename or link, what a symlink points to, what a mount mounts", Kinds: pairKinds, Str: pathSource},
	"fs.path.target": {Doc: "new name of a rename, link or symlink, mount point, where pivot_root puts the old root", Kinds: pairKinds | KindPivotRoot, Str: pathTarget},
}

// filePath is the path of the file that the event is about.
func filePath(c *Context) (string, bool) {
	if privilege := c.Event.GetPrivilege(); privilege != nil {
		return text(privilege.GetName()) // of a module
	}
	return subjectPath(c)
}

func pathSource(c *Context) (string, bool) {
	if KindOf(c.Event).Has(KindSymlink | KindMount) {
		return changeText(c)
	}
	return subjectPath(c)
}

func pathTarget(c *Context) (string, bool) {
	if KindOf(c.Event).Has(KindSymlink | KindMount) {
		return subjectPath(c)
	}
	return targetPath(c)
}

func fileDir(c *Context) (string, bool) {
	path, ok := filePath(c)
	slash := strings.LastIndexByte(path, '/')
	switch {
	case !ok || slash < 0:
		return "", false
	case slash == 0:
		return "/", true
	}
	return path[:slash], true
}

func fileBase(c *Context) (string, bool) {
	path, ok := filePath(c)
	if !ok {
		return "", false
	}
	return path[strings.LastIndexByte(path, '/')+1:], true
}

// inContainer puts the container's id in front of a string, once for an event.
func inContainer(slot int, get func(*Context) (string, bool)) func(*Context) (string, bool) {
	return func(c *Context) (string, bool) {
		s, ok := get(c)
		if !ok {
			return "", false
		}
		cache := c.cached()
		if cache.within[slot] == "" {
			id, _ := containerID(c)
			cache.within[slot] = id + ":" + s
		}
		return cache.within[slot], true
	}
}

// inode is the file that the event is about, if it is known which inode it is. Of a call that was told a path, that
// depends on the tier.
func inode(c *Context) (*eventv1.File, bool) {
	f := subject(c.Event)
	if c.Event.GetFileChange() != nil {
		return f, f.GetInode() != 0
	}
	return f, f != nil
}

func fileDevice(c *Context) (int64, bool) {
	f, ok := inode(c)
	return int64(f.GetDevice()), ok
}

func fileInode(c *Context) (int64, bool) {
	f, ok := inode(c)
	return number(f.GetInode()), ok
}

func fileUpper(c *Context) (int64, bool) {
	f, ok := inode(c)
	if !ok {
		return 0, false
	}
	return flag(f.GetUpperLayer())
}

// givenPath is missing, not empty, if the caller's memory could not be read any more.
func givenPath(c *Context) (string, bool) {
	open := c.Event.GetFileOpen()
	if open.GetGivenPathSource() == eventv1.PathSource_PATH_SOURCE_UNSPECIFIED || open.GetGivenPathUnreadable() {
		return "", false
	}
	return open.GetGivenPath(), true
}

// descriptor is the result of what makes one, -1 if it failed; of a duplicate, as Falco has it, the one that was there before.
func descriptor(c *Context) (int64, bool) {
	if duplicate := c.Event.GetDuplicate(); duplicate != nil {
		return int64(duplicate.GetSource()), true
	}
	if !c.Event.GetResultKnown() {
		return 0, false
	}
	return max(c.Event.GetResult(), -1), true
}

func descriptorSign(c *Context) (int64, bool) {
	if c.Event.GetDuplicate() != nil {
		return descriptor(c)
	}
	n, ok := rawResultSign(c)
	return max(n, -1), ok
}

// fdClass is a row of what fd.type and fd.typechar answer.
type fdClass struct{ name, char string }

// Type bits of st_mode with their value for a directory.
const (
	modeType = 0o170000
	modeDir  = 0o040000
)

func classOf(c *Context) (fdClass, bool) {
	kind := KindOf(c.Event)
	switch {
	case kind == KindFileOpen: // what most events are comes first
		return fileClass(c.Event.GetFileOpen().GetFile().GetMode()), true
	case kind == KindMemfd:
		return fdClass{"memfd", "m"}, true
	case kind == KindModuleLoad:
		return fdClass{"file", "f"}, c.Event.GetPrivilege().GetName() != ""
	case inodeKinds.Has(kind):
		f, ok := inode(c)
		return fileClass(f.GetMode()), ok
	}
	s, _ := socketOf(c.Event)
	switch s.family {
	case familyUnix:
		return fdClass{"unix", "u"}, true
	case familyIPv4:
		return fdClass{"ipv4", "4"}, true
	case familyIPv6:
		return fdClass{"ipv6", "6"}, true
	case familyNetlink:
		return fdClass{"netlink", "n"}, true
	}
	return fdClass{}, false
}

func fileClass(mode uint32) fdClass {
	if mode&modeType == modeDir {
		return fdClass{"directory", "d"}
	}
	return fdClass{"file", "f"}
}

func fdType(c *Context) (string, bool) {
	class, ok := classOf(c)
	return class.name, ok
}

func fdTypeChar(c *Context) (string, bool) {
	class, ok := classOf(c)
	return class.char, ok
}

// fdName is put together once for an event if it is a connection.
func fdName(c *Context) (string, bool) {
	if open := c.Event.GetFileOpen(); open != nil { // as most events are
		return text(open.GetFile().GetPath())
	}
	s, ok := socketOf(c.Event)
	switch {
	case !ok && KindOf(c.Event) == KindMemfd:
		return text(c.Event.GetMemory().GetName())
	case !ok:
		return filePath(c)
	case s.unixPath != "":
		return s.unixPath, true
	case s.local == nil && s.remote == nil:
		return "", false
	}
	cache := c.cached()
	if cache.connName == "" {
		cache.connName = s.name()
	}
	return cache.connName, true
}
