package record

import (
	"fmt"
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// decodeFile reads fileSize bytes of facts and takes the path off the front of rest. It returns nil without error
// if there is no file: a kernel thread has no executable, an anonymous mapping no file.
func decodeFile(raw, rest []byte) (*eventv1.File, []byte, error) {
	path, rest, err := take(rest, u32(raw, filePathLen), "path")
	if err != nil {
		return nil, nil, err
	}
	base, rest, err := take(rest, u32(raw, fileBaseLen), "start of a relative path")
	if err != nil {
		return nil, nil, err
	}
	if len(path)+len(base) == 0 {
		return nil, rest, nil
	}
	flags, source := u32(raw, fileFlags), eventv1.PathSource_PATH_SOURCE_KERNEL
	if flags&filePathArgument != 0 {
		source = eventv1.PathSource_PATH_SOURCE_ARGUMENT
	}
	return &eventv1.File{
		Path:          join(text(base), text(path)),
		PathSource:    source,
		PathTruncated: flags&filePathTruncated != 0,
		Device:        u32(raw, fileDevice),
		Inode:         u64(raw, fileInode),
		Mode:          u32(raw, fileMode),
		Unlinked:      flags&fileUnlinked != 0,
		Memfd:         flags&fileMemfd != 0,
		UpperLayer:    flags&fileUpperLayer != 0,
	}, rest, nil
}

// join puts a relative path behind where it starts. "." and ".." stay as the caller wrote them: with symbolic links in
// between only the kernel knows where they lead.
func join(base, path string) string {
	switch {
	case base == "":
		return path
	case path == "":
		return base
	}
	return strings.TrimSuffix(base, "/") + "/" + strings.TrimPrefix(path, "./")
}

func decodeFileOpen(raw []byte) (*eventv1.Event_FileOpen, error) {
	if len(raw) < fileOpenSize {
		return nil, fmt.Errorf("file open of %d bytes: %w", len(raw), ErrShort)
	}
	file, rest, err := decodeFile(raw[fileOpenFile:fileOpenFile+fileSize], raw[fileOpenSize:])
	if err != nil {
		return nil, err
	}
	open := &eventv1.FileOpen{File: file, Flags: u32(raw, fileOpenFlags)}
	return &eventv1.Event_FileOpen{FileOpen: open}, decodeGiven(open, raw, rest)
}

// decodeGiven reads the path as the caller wrote it, if it is there.
func decodeGiven(open *eventv1.FileOpen, raw, rest []byte) error {
	flags := u16(raw, fileOpenGivenFlags)
	switch {
	case flags&givenKernel != 0:
		open.GivenPathSource = eventv1.PathSource_PATH_SOURCE_KERNEL
	case flags&givenArgument != 0:
		open.GivenPathSource = eventv1.PathSource_PATH_SOURCE_ARGUMENT
	default:
		return nil
	}
	given, _, err := take(rest, uint32(u16(raw, fileOpenGivenLen)), "path as given")
	open.GivenPath = text(given)
	open.GivenPathTruncated = flags&givenTruncated != 0
	open.GivenPathUnreadable = flags&givenUnreadable != 0
	return err
}

// changes are the kinds of record that a FileChange stands for.
var changes = map[Kind]eventv1.FileOperation{
	Rename:    eventv1.FileOperation_FILE_OPERATION_RENAME,
	Unlink:    eventv1.FileOperation_FILE_OPERATION_UNLINK,
	Rmdir:     eventv1.FileOperation_FILE_OPERATION_RMDIR,
	Link:      eventv1.FileOperation_FILE_OPERATION_LINK,
	Symlink:   eventv1.FileOperation_FILE_OPERATION_SYMLINK,
	Mkdir:     eventv1.FileOperation_FILE_OPERATION_MKDIR,
	Mknod:     eventv1.FileOperation_FILE_OPERATION_MKNOD,
	Chmod:     eventv1.FileOperation_FILE_OPERATION_CHMOD,
	Chown:     eventv1.FileOperation_FILE_OPERATION_CHOWN,
	Truncate:  eventv1.FileOperation_FILE_OPERATION_TRUNCATE,
	Setxattr:  eventv1.FileOperation_FILE_OPERATION_SETXATTR,
	Mount:     eventv1.FileOperation_FILE_OPERATION_MOUNT,
	Umount:    eventv1.FileOperation_FILE_OPERATION_UMOUNT,
	PivotRoot: eventv1.FileOperation_FILE_OPERATION_PIVOT_ROOT,
	Chroot:    eventv1.FileOperation_FILE_OPERATION_CHROOT,
}

// decodeChange reads a change_record, which an exec that failed is, too.
func decodeChange(raw []byte, operation eventv1.FileOperation) (*eventv1.FileChange, error) {
	if len(raw) < changeSize {
		return nil, fmt.Errorf("change of %d bytes: %w", len(raw), ErrShort)
	}
	file, rest, err := decodeFile(raw[changeFile:changeFile+fileSize], raw[changeSize:])
	if err != nil {
		return nil, err
	}
	target, rest, err := decodeFile(raw[changeTarget:changeTarget+fileSize], rest)
	if err != nil {
		return nil, err
	}
	words, rest, err := take(rest, u32(raw, changeTextLen), "text")
	if err != nil {
		return nil, err
	}
	fileSystem, _, err := take(rest, u32(raw, changeFSLen), "type of file system")
	if err != nil {
		return nil, err
	}
	return &eventv1.FileChange{
		Operation: operation, File: file, Target: target,
		Mode: u32(raw, changeMode), Uid: u32(raw, changeUID), Gid: u32(raw, changeGID),
		Size: u64(raw, changeBytes), Flags: u64(raw, changeFlags),
		Text: text(words), FileSystem: text(fileSystem),
	}, nil
}

// memories are the kinds of record that a Memory stands for.
var memories = map[Kind]eventv1.MemoryOperation{
	MmapExec:     eventv1.MemoryOperation_MEMORY_OPERATION_MMAP_EXEC,
	MprotectExec: eventv1.MemoryOperation_MEMORY_OPERATION_MPROTECT_EXEC,
	Memfd:        eventv1.MemoryOperation_MEMORY_OPERATION_MEMFD,
}

func decodeMemory(raw []byte, operation eventv1.MemoryOperation) (*eventv1.Event_Memory, error) {
	if len(raw) < memorySize {
		return nil, fmt.Errorf("memory of %d bytes: %w", len(raw), ErrShort)
	}
	file, rest, err := decodeFile(raw[memoryFile:memoryFile+fileSize], raw[memorySize:])
	if err != nil {
		return nil, err
	}
	name, _, err := take(rest, u32(raw, memoryNameLen), "name")
	if err != nil {
		return nil, err
	}
	return &eventv1.Event_Memory{Memory: &eventv1.Memory{
		Operation: operation, File: file, Flags: u32(raw, memoryFlags), Name: text(name), Writable: u32(raw, memoryWritable) != 0,
	}}, nil
}
