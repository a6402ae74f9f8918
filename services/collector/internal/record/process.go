package record

import (
	"bytes"
	"fmt"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

func decodeExec(raw []byte) (*eventv1.Exec, error) {
	if len(raw) < execSize {
		return nil, fmt.Errorf("exec of %d bytes: %w", len(raw), ErrShort)
	}
	exe, rest, err := decodeFile(raw[execFile:execFile+fileSize], raw[execSize:])
	if err != nil {
		return nil, err
	}
	cwd, rest, err := take(rest, u32(raw, execCwdLen), "working directory")
	if err != nil {
		return nil, err
	}
	argv, _, err := take(rest, u32(raw, execArgvLen), "arguments")
	if err != nil {
		return nil, err
	}
	flags := u32(raw, execFlags)
	return &eventv1.Exec{
		Exe:            exe,
		Argv:           Argv(argv),
		ArgvBytes:      u32(raw, execArgvBytes),
		ArgvTruncated:  flags&execArgvTruncated != 0,
		ArgvUnreadable: flags&execArgvUnreadable != 0,
		Cwd:            text(cwd),
		Tty:            u32(raw, execTTY),
		Session:        u32(raw, execSession),
	}, nil
}

// Argv splits arguments as they lie in a process's memory: each ended by a NUL, the last one perhaps cut.
func Argv(raw []byte) []string {
	if len(raw) == 0 {
		return nil
	}
	raw = bytes.TrimSuffix(raw, []byte{0})
	argv := make([]string, 0, bytes.Count(raw, []byte{0})+1)
	for arg := range bytes.SplitSeq(raw, []byte{0}) {
		argv = append(argv, text(arg))
	}
	return argv
}

func decodeFork(raw []byte) (*eventv1.Event_Fork, error) {
	if len(raw) < forkSize {
		return nil, fmt.Errorf("fork of %d bytes: %w", len(raw), ErrShort)
	}
	child := &eventv1.ProcessKey{Pid: u32(raw, forkChildTGID), StartBoottimeNs: u64(raw, forkChildStart)}
	return &eventv1.Event_Fork{Fork: &eventv1.Fork{Child: child, ChildCgroupId: u64(raw, forkChildCgroup)}}, nil
}

func decodeExit(raw []byte) (*eventv1.Event_Exit, error) {
	if len(raw) < exitSize {
		return nil, fmt.Errorf("exit of %d bytes: %w", len(raw), ErrShort)
	}
	return &eventv1.Event_Exit{Exit: &eventv1.Exit{WaitStatus: u32(raw, exitWaitStatus)}}, nil
}
