package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/containerdtest"
)

// bystander is a container that minds its own business: it counts, about every 50 ms, into a file that the test can
// read.
type bystander struct {
	t     *testing.T
	pid   int
	start string // field 22 of /proc/<pid>/stat
	file  string
}

const countForEver = "i=0; while true; do i=$((i+1)); echo $i > /tmp/beat.new; cp /tmp/beat.new /tmp/beat; sleep 0.05; done"

func startBystander(t *testing.T, daemon *containerdtest.Daemon) *bystander {
	t.Helper()
	shared := t.TempDir()
	daemon.Image(t)
	mount := "type=bind,src=" + shared + ",dst=/tmp,options=rbind:rw"
	daemon.RunWith(t, []string{"--mount", mount}, "bystander", "/bin/sh", "-c", countForEver)
	t.Cleanup(func() { daemon.Remove(t, "bystander") })
	b := &bystander{t: t, pid: daemon.PID(t, "bystander"), file: filepath.Join(shared, "beat")}
	b.start = startTime(b.pid)
	return b
}

// heartbeat is the container's counter.
func (b *bystander) heartbeat() int {
	b.t.Helper()
	beat := 0
	if !eventually(20*time.Second, func() bool {
		raw, err := os.ReadFile(b.file)
		if err != nil {
			return false
		}
		beat, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		return err == nil
	}) {
		b.t.Fatal("the container does not beat")
	}
	return beat
}

func (b *bystander) sameProcess() bool { return startTime(b.pid) == b.start }

// startTime is field 22 of /proc/<pid>/stat, or "" if there is no such process.
func startTime(pid int) string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	return fields[19]
}
