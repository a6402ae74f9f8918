package kill

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// proc is where the kernel shows processes; it must be the host's, as host_pid in the table of privileges gives it.
const proc = "/proc"

// tickNs is one tick of the start time in /proc/<pid>/stat: USER_HZ is 100 on every architecture Palisade runs on.
const tickNs = 10_000_000

// Fields of /proc/<pid>/stat, counted as proc(5) does, from 1.
const (
	fieldState  = 3
	fieldParent = 4
	fieldFlags  = 9
	fieldStart  = 22
)

// maxProcBytes bounds what is read of a file in /proc; stat has under 500 bytes, status under 4 KiB.
const maxProcBytes = 64 << 10

var (
	errStat   = errors.New("not a process's stat")
	errStatus = errors.New("no NSpid in the process's status")
)

// identity is what the kernel says about a process to anybody: no file here needs CAP_SYS_PTRACE.
type identity struct {
	pid    int
	comm   string
	parent int
	// flags are task_struct.flags.
	flags uint64
	// startTicks since boot, in units of tickNs.
	startTicks uint64
	// namespaces counts the pid namespaces the process is in, from the one /proc belongs to: 1 is the host's own.
	namespaces int
}

// readIdentity reads a process's stat and status. Hold a pidfd that is alive afterwards, or the files may be two
// processes'.
func readIdentity(pid int) (identity, error) {
	directory := filepath.Join(proc, strconv.Itoa(pid))
	raw, err := readProc(filepath.Join(directory, "stat"))
	if err != nil {
		return identity{}, err
	}
	id, err := parseStat(raw)
	if err != nil {
		return identity{}, fmt.Errorf("process %d: %w", pid, err)
	}
	raw, err = readProc(filepath.Join(directory, "status"))
	if err != nil {
		return identity{}, err
	}
	if id.namespaces, err = parseNamespaces(raw); err != nil {
		return identity{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return id, nil
}

func readProc(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxProcBytes))
}

// parseStat reads the line of /proc/<pid>/stat. The name in it is the process's own choice and may hold spaces,
// parentheses, line ends and what looks like further fields, so the numbers start after the last parenthesis.
func parseStat(raw []byte) (identity, error) {
	start, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if start < 1 || end < start {
		return identity{}, errStat
	}
	pid, err := strconv.ParseUint(string(bytes.TrimSpace(raw[:start])), 10, 31)
	if err != nil {
		return identity{}, fmt.Errorf("%w: pid", errStat)
	}
	rest := strings.Fields(string(raw[end+1:]))
	// field n of the line is rest[n-fieldState].
	if len(rest) <= fieldStart-fieldState || len(rest[0]) != 1 {
		return identity{}, fmt.Errorf("%w: %d fields after the name", errStat, len(rest))
	}
	parent, err := strconv.ParseUint(rest[fieldParent-fieldState], 10, 31)
	if err != nil {
		return identity{}, fmt.Errorf("%w: parent", errStat)
	}
	flags, err := strconv.ParseUint(rest[fieldFlags-fieldState], 10, 64)
	if err != nil {
		return identity{}, fmt.Errorf("%w: flags", errStat)
	}
	ticks, err := strconv.ParseUint(rest[fieldStart-fieldState], 10, 64)
	if err != nil {
		return identity{}, fmt.Errorf("%w: start time", errStat)
	}
	return identity{
		pid: int(pid), comm: string(raw[start+1 : end]), parent: int(parent), flags: flags, startTicks: ticks,
	}, nil
}

// parseNamespaces counts the entries of the NSpid line of /proc/<pid>/status. The kernel escapes line ends in the name
// there, so no process can write that line itself.
func parseNamespaces(raw []byte) (int, error) {
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			if n := len(strings.Fields(rest)); n > 0 {
				return n, nil
			}
		}
	}
	return 0, errStatus
}

// readBootID is the random name the kernel gave this boot.
func readBootID() (string, error) {
	raw, err := readProc(filepath.Join(proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	id := string(bytes.TrimSpace(raw))
	if id == "" {
		return "", errors.New("read boot id: empty")
	}
	return id, nil
}
