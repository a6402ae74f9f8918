package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

// asCollector makes the test binary the real program.
const asCollector = "PALISADE_TEST_COLLECTOR"

func TestMain(m *testing.M) {
	if os.Getenv(asCollector) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// uid the collector runs as in these tests: its row's.
const uid = 10001

// command is the collector as palisade up starts it, with a configuration and flags.
func command(t *testing.T, ambient []uintptr, configuration string, flags ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives a child capabilities")
	}
	dir, err := os.MkdirTemp("/tmp", "palisade-collector-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path, file := filepath.Join(dir, "collector"), filepath.Join(dir, "collector.yaml")
	if err := os.WriteFile(path, program, 0o755); err != nil { //nolint:gosec // another uid executes it
		t.Fatal(err)
	}
	configuration += fmt.Sprintf("\nsockets: {directory: %s, group: %d, uids: {correlator: 0, operator: 0, collector: %d}}\n", dir, uid, uid)
	if err := os.WriteFile(file, []byte(configuration), 0o644); err != nil { //nolint:gosec // another uid reads it
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), path, append(flags, "-config", file)...)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), asCollector+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, AmbientCaps: ambient}
	return cmd, dir
}

func row() []uintptr { return []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON} }

func TestCheckAndBadInput(t *testing.T) {
	tests := []struct {
		name, configuration string
		ambient             []uintptr
		fails               bool
		want                string
	}{
		{name: "valid", ambient: row(), want: "configuration is valid; tier tracepoint"},
		{name: "unknown key", ambient: row(), configuration: "rings: 3", fails: true, want: `unknown key "rings"`},
		{name: "stream's memory", ambient: row(), configuration: "stream: {unacknowledged_bytes: 64}", fails: true, want: "stream.unacknowledged_bytes: 64"},
		{name: "ring size", ambient: row(), configuration: "probes: {bulk_bytes: 5000}", fails: true, want: "probes.bulk_bytes: 5000"},
		{name: "no capability", fails: true, want: "missing capability CAP_BPF and CAP_PERFMON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd, dir := command(t, tt.ambient, tt.configuration, "-check")
			out, err := cmd.CombinedOutput()
			if (err != nil) != tt.fails || !strings.Contains(string(out), tt.want) {
				t.Errorf("-check = %v, %s, want failure %v with %q", err, out, tt.fails, tt.want)
			}
			if strings.Count(string(out), "\n") != 1 {
				t.Errorf("output = %q, want one line", out)
			}
			if _, err := os.Stat(filepath.Join(dir, "collector.sock")); err == nil {
				t.Error("-check left a socket")
			}
		})
	}
}

// The rings and what Go may use share the 96 MiB of the table of privileges with the kernel's own memory.
func TestMemoryLeavesRoomForTheRings(t *testing.T) {
	base, err := defaults()
	if err != nil {
		t.Fatal(err)
	}
	rings, left := int64(base.Probes.UrgentBytes)+int64(base.Probes.BulkBytes), goMemory(base.Probes)
	if left+rings > 86<<20 || left < 2*int64(base.Stream.UnacknowledgedBytes) {
		t.Errorf("Go gets %d beside rings of %d, want 86 MiB together and twice the stream's %d",
			left, rings, base.Stream.UnacknowledgedBytes)
	}
	if got := goMemory(probe.Config{BulkBytes: 1 << 30}); got != leastMemory {
		t.Errorf("goMemory(1 GiB) = %d, want %d", got, leastMemory)
	}
}

// subscribe starts a collector and subscribes to it; it ends with the test.
func subscribe(ctx context.Context, t *testing.T, configuration string) (*exec.Cmd, *grpc.ClientConn, *receiver) {
	t.Helper()
	cmd, dir := command(t, row(), configuration)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	conn, err := rpc.Dial(filepath.Join(dir, "collector.sock"), uid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	sub, err := collectorv1.NewEventServiceClient(conn).StreamEvents(ctx, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Send(&collectorv1.StreamEventsRequest{}); err != nil {
		t.Fatal(err)
	}
	return cmd, conn, &receiver{sub: sub}
}

func TestCollectorTellsTheSystemCallsUsed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, _, r := subscribe(ctx, t, "probes: {syscalls: true}")
	r.until(t, func(e *eventv1.Event) bool {
		return e.GetAbi() == eventv1.Abi_ABI_NATIVE && slices.Contains(e.GetSyscallsUsed().GetNumbers(), unix.SYS_BPF)
	})
}

func TestCollectorStreamsToTheCorrelator(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd, conn, r := subscribe(ctx, t, "")
	if event := r.until(t, func(e *eventv1.Event) bool { return e.GetExisting() != nil }); event.GetSequence() != 0 {
		t.Errorf("snapshot's event has sequence %d, want 0", event.GetSequence())
	}
	if event := r.until(t, func(e *eventv1.Event) bool { return e.GetStarted() != nil }); event.GetSequence() != 1 {
		t.Errorf("Started has sequence %d, want 1", event.GetSequence())
	}
	child := exec.CommandContext(ctx, "/bin/true", "a-marked-argument")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	r.until(t, func(e *eventv1.Event) bool {
		return len(e.GetExec().GetArgv()) == 2 && e.GetProcess().GetPid() == uint32(child.Process.Pid)
	})
	checkStatus(ctx, t, conn)
	checkNoCapabilities(t, cmd.Process.Pid)
}

// receiver reads a subscription event by event and acknowledges.
type receiver struct {
	sub     grpc.BidiStreamingClient[collectorv1.StreamEventsRequest, collectorv1.StreamEventsResponse]
	pending []*eventv1.Event
	last    uint64 // sequence
}

// until drops events up to the one that matches, checking that none is missing.
func (r *receiver) until(t *testing.T, match func(*eventv1.Event) bool) *eventv1.Event {
	t.Helper()
	for {
		for len(r.pending) == 0 {
			batch, err := r.sub.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if err := r.sub.Send(&collectorv1.StreamEventsRequest{AcknowledgedBatch: batch.GetBatch()}); err != nil {
				t.Fatal(err)
			}
			r.pending = batch.GetEvents()
		}
		event := r.pending[0]
		r.pending = r.pending[1:]
		if n := event.GetSequence(); n != 0 {
			if n != r.last+1 {
				t.Fatalf("event %d after %d, want no hole", n, r.last)
			}
			r.last = n
		}
		if match(event) {
			return event
		}
	}
}

func checkStatus(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	status, err := processv1.NewProcessServiceClient(conn).GetStatus(ctx, &processv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !status.GetHealthy() || len(status.GetWarnings()) > 0 {
		t.Errorf("healthy, warnings = %v, %v, want true, none", status.GetHealthy(), status.GetWarnings())
	}
	facts := map[string]string{}
	for _, fact := range status.GetFacts() {
		facts[fact.GetName()] = fact.GetValue()
	}
	if facts["tier"] != "tracepoint" || !strings.Contains(facts["hooks"], "sys_exit") || facts["records lost"] != "none" {
		t.Errorf("facts = %v, want tier, hooks and losses", facts)
	}
	rows := map[string][]string{}
	for _, table := range status.GetTables() {
		for _, row := range table.GetRows() {
			if len(row.GetCells()) != len(table.GetColumns()) {
				t.Errorf("%s: %d cells, want %d", table.GetName(), len(row.GetCells()), len(table.GetColumns()))
			}
			rows[table.GetName()+" "+row.GetCells()[0]] = row.GetCells()
		}
	}
	if hook := rows["hooks sys_exit"]; len(hook) < 3 || hook[2] != "fires" {
		t.Errorf("sys_exit = %q, want it to fire", hook)
	}
	if hook := rows["hooks egress"]; len(hook) < 7 || hook[2] != "not tried" || hook[6] == "" {
		t.Errorf("egress = %q, want it not tried, and why", hook)
	}
	if ring := rows["rings bulk"]; len(ring) != 3 || ring[1] != "4194304" || rows["records exec"] == nil {
		t.Errorf("tables = %v, want the rings' sizes and what was read", rows)
	}
}

func checkNoCapabilities(t *testing.T, pid int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("threads of %d: %v, %v", pid, tasks, err)
	}
	for _, task := range tasks {
		raw, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that ended
		}
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
			if !strings.Contains(string(raw), set+":\t0000000000000000\n") {
				t.Errorf("%s: %s is not empty", task, set)
			}
		}
	}
}
