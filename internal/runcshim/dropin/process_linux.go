package dropin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticks are how many of /proc's units of time are in a second, on every architecture that Go knows.
const ticks = 100

// StartedBefore are pids of processes of that name that run since before a moment: they may go by an older configuration.
func StartedBefore(name string, moment time.Time) ([]int, error) {
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended, or is nobody's business
		}
		comm, start, err := parseStat(string(raw))
		if err != nil || comm != name {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && boot.Add(start).Before(moment.Add(time.Second)) { // the boot's time is in whole seconds
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// parseStat returns name and start, since the boot, of a /proc/PID/stat. A name may have any byte in it.
func parseStat(stat string) (comm string, start time.Duration, err error) {
	left, right := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if left < 0 || right < left {
		return "", 0, errors.New("no name in stat")
	}
	fields := strings.Fields(stat[right+1:])
	if len(fields) < 20 {
		return "", 0, errors.New("no start in stat")
	}
	n, err := strconv.ParseInt(fields[19], 10, 64)
	return stat[left+1 : right], time.Duration(n) * time.Second / ticks, err
}

func bootTime() (time.Time, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(raw)) {
		if text, ok := strings.CutPrefix(line, "btime "); ok {
			seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return time.Unix(seconds, 0), err
		}
	}
	return time.Time{}, errors.New("/proc/stat does not tell when the machine was started")
}

// ErrNotRunning says that there is no dockerd to reload.
var ErrNotRunning = errors.New("dockerd does not run")

// ReloadDocker has the dockerd that a pid file names read its configuration again. The process is held by a pidfd before it is
// looked at, so it is dockerd that gets the signal, or nobody.
func ReloadDocker(pidFile string) error {
	pid, err := readPID(pidFile)
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written to it
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.TrimSpace(string(comm)) != "dockerd" {
		return ErrNotRunning // the pid is another's now
	}
	return unix.PidfdSendSignal(fd, unix.SIGHUP, nil, 0)
}

// readPID reads a pid file. The error is ErrNotRunning if there is none.
func readPID(path string) (int, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, ErrNotRunning
	}
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return pid, nil
}

// DockerPID is the pid of the dockerd of a pid file if it runs since before a moment, or 0.
func DockerPID(pidFile string, moment time.Time) (int, error) {
	pid, err := readPID(pidFile)
	if errors.Is(err, ErrNotRunning) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pids, err := StartedBefore("dockerd", moment)
	if err != nil || !slices.Contains(pids, pid) {
		return 0, err
	}
	return pid, nil
}
