package record

import (
	"fmt"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// decodeFile reads fileSize bytes of facts and takes the path off the front of rest. It returns nil without error
// if there is no file: a kernel thread has no executable.
func decodeFile(raw, rest []byte) (*eventv1.File, []byte, error) {
	path, rest, err := take(rest, u32(raw, filePathLen), "path")
	if err != nil {
		return nil, nil, err
	}
	if len(path) == 0 {
		return nil, rest, nil
	}
	flags := u32(raw, fileFlags)
	return &eventv1.File{
		Path:          text(path),
		PathSource:    eventv1.PathSource_PATH_SOURCE_KERNEL,
		PathTruncated: flags&filePathTruncated != 0,
		Device:        u32(raw, fileDevice),
		Inode:         u64(raw, fileInode),
		Mode:          u32(raw, fileMode),
		Unlinked:      flags&fileUnlinked != 0,
		Memfd:         flags&fileMemfd != 0,
		UpperLayer:    flags&fileUpperLayer != 0,
	}, rest, nil
}

func decodeFileOpen(raw []byte) (*eventv1.Event_FileOpen, error) {
	if len(raw) < fileOpenSize {
		return nil, fmt.Errorf("file open of %d bytes: %w", len(raw), ErrShort)
	}
	file, _, err := decodeFile(raw[fileOpenFile:fileOpenFile+fileSize], raw[fileOpenSize:])
	if err != nil {
		return nil, err
	}
	return &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: file, Flags: u32(raw, fileOpenFlags)}}, nil
}
