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
	argv, rest, err := take(rest, u32(raw, execArgvLen), "arguments")
	if err != nil {
		return nil, err
	}
	flags := u32(raw, execFlags)
	exec := &eventv1.Exec{
		Exe:            exe,
		Argv:           Argv(argv),
		ArgvBytes:      u32(raw, execArgvBytes),
		ArgvTruncated:  flags&execArgvTruncated != 0,
		ArgvUnreadable: flags&execArgvUnreadable != 0,
		Cwd:            text(cwd),
		Tty:            u32(raw, execTTY),
		Session:        u32(raw, execSession),
		Group:          u32(raw, execGroup),
		InnerPid:       u32(raw, execInnerPID),
		InnerGroup:     u32(raw, execInnerPGID),

		Setuid:           flags&execSetuid != 0,
		Setgid:           flags&execSetgid != 0,
		FileCapabilities: flags&execCapabilities != 0,
		Secure:           flags&execSecure != 0,
	}
	if flags&execScript != 0 {
		if rest, err = decodeScript(exec, rest); err != nil {
			return nil, err
		}
	}
	if flags&execTimes != 0 {
		times, _, err := take(rest, timesSize, "times of a file")
		if err != nil {
			return nil, err
		}
		exec.ExeCtimeNs, exec.ExeMtimeNs = int64(u64(times, timesCtime)), int64(u64(times, timesMtime)) //nolint:gosec // signed in C
	}
	return exec, nil
}

// decodeScript reads the script's and its interpreter's names, each with its NUL, and returns what is behind them.
func decodeScript(exec *eventv1.Exec, rest []byte) (behind []byte, err error) {
	script, rest, ok := bytes.Cut(rest, []byte{0})
	interpreter, behind, whole := bytes.Cut(rest, []byte{0})
	if !ok || !whole {
		return nil, fmt.Errorf("names of a script: %w", ErrShort)
	}
	path := text(script)
	if path != "" && path[0] != '/' {
		path = join(exec.GetCwd(), path)
	}
	exec.Script = &eventv1.File{Path: path, PathSource: eventv1.PathSource_PATH_SOURCE_ARGUMENT}
	exec.Interpreter = text(interpreter)
	return behind, nil
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
