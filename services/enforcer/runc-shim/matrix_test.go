package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/internal/ociimage"
)

// leastInvocations is how many calls of runC the matrix has at least, for each runC and each way to install the shim.
const leastInvocations = 40

// TestMatrix does the same with runC and with the shim in its place, in the same directories, and compares what callers
// see to the byte: exit code, standard output, standard error, log, files, and what the container says of itself.
func TestMatrix(t *testing.T) {
	requireContainers(t)
	for _, real := range runcs(t) {
		t.Run(filepath.Base(filepath.Dir(real)), func(t *testing.T) {
			directory := t.TempDir()
			plain := program(t, filepath.Join(directory, "plain", "runc"), real)
			replaced := program(t, filepath.Join(directory, "replaced", "runc"), shim(t))
			program(t, filepath.Join(directory, "replaced", "runc.palisade", "runc"), real)
			dropIn := program(t, filepath.Join(directory, "drop-in", "palisade-runc"), shim(t))
			answering := installed(t, filepath.Join(directory, "answering"), enforce(t, allows).socket)
			hanging := installed(t, filepath.Join(directory, "hanging"), enforce(t, hangs).socket)
			for _, tt := range scenarios {
				t.Run(tt.name, func(t *testing.T) {
					want := play(t, tt, invocation{path: plain, name: "runc"})
					t.Log(want.text)
					for way, by := range map[string]invocation{
						"in runC's place":       {path: replaced, name: "runc"},
						"as a runtime by name":  {path: dropIn, name: dropIn, search: filepath.Dir(plain)},
						"its directory is gone": {path: dropIn, name: "runc", search: filepath.Dir(plain), lonely: true},
						"the enforcer answers":  {path: answering, name: "runc"},
						"the enforcer hangs":    {path: hanging, name: "runc"},
					} {
						if got := play(t, tt, by); got.text != want.text {
							t.Errorf("%s: with the shim (+) it is not as with runC (-):\n%s", way, cmp.Diff(want.text, got.text))
						}
					}
					calls[t.Name()] = want.calls
				})
			}
			total := 0
			for _, n := range calls {
				total += n
			}
			t.Logf("%d calls of runC, and as many of the shim each way", total)
			if whole := len(calls) == len(scenarios); whole && total < leastInvocations {
				t.Errorf("%d calls of runC, want at least %d", total, leastInvocations)
			}
			clear(calls)
		})
	}
}

// calls are counted for each scenario.
var calls = map[string]int{}

// invocation is a way to call runC.
type invocation struct {
	path   string
	name   string // argv[0]
	search string // a directory that PATH begins with
	lonely bool   // by a file that was removed, with its directory, and is still open
}

// world is where a scenario plays.
type world struct {
	t         testing.TB
	by        invocation
	directory string
	bundle    string
	root      string
	id        string
	calls     int
	text      strings.Builder
}

type transcript struct {
	text  string
	calls int
}

type scenario struct {
	name string
	do   func(w *world)
}

// stage is the directory of all scenarios: its name is part of what runC says.
const stage = "/tmp/palisade-shim-matrix"

// play makes a bundle, does what the scenario does, and removes everything.
func play(t *testing.T, s scenario, by invocation) transcript {
	t.Helper()
	if err := os.Mkdir(stage, 0o700); err != nil {
		t.Fatalf("another test is at it, or one was killed: %v", err)
	}
	w := &world{t: t, by: by, directory: stage, bundle: filepath.Join(stage, "bundle"), root: filepath.Join(stage, "root"), id: "palisade-shim-test"}
	defer func() {
		out, err := exec.Command("runc", "--root", w.root, "delete", "--force", w.id).CombinedOutput()
		if err != nil && !bytes.Contains(out, []byte("does not exist")) {
			t.Errorf("clean up: %v: %s", err, out)
		}
		if err := os.RemoveAll(stage); err != nil {
			t.Error(err)
		}
	}()
	writeRootfs(t, filepath.Join(w.bundle, "rootfs"))
	w.configure(nil)
	s.do(w)
	text := w.text.String()
	for _, n := range normalised {
		text = n.pattern.ReplaceAllString(text, n.by)
	}
	return transcript{text: text, calls: w.calls}
}

// normalised are all differences that two runs of the same runC have.
var normalised = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`("(pid|init_process_pid|init_process_start|parent_start_time)": ?)\d+`), "${1}PID"},
	{regexp.MustCompile(`(palisade-shim-test) +\d+ +(\w+) +(\S+) +TIME +`), "$1 PID $2 $3 TIME "}, // list
	{regexp.MustCompile(`CREATED +OWNER`), "CREATED OWNER"},                                       // its width is that of times
	{regexp.MustCompile(`(?m)^root +\d+ +\d+ +\d+ \d\d:\d\d `), "root PID PPID C STIME "},         // ps
	{regexp.MustCompile(`\[\d+(,\d+)*\]`), "[PIDS]"},                                              // ps --format json
	{regexp.MustCompile(`(UID) +PID +PPID`), "$1 PID PPID"},                                       // their width is that of pids
	{regexp.MustCompile(`usage: \d+`), "usage: BYTES"},                                            // of memory, in update's refusal
	{regexp.MustCompile(`runc-process\d+`), "runc-processN"},
}

// call is one call of runC.
type call struct {
	args    []string
	stdin   string
	env     []string
	files   []*os.File
	cwd     string
	started func(pid int)
	// activated sets LISTEN_PID to runC's pid, as systemd does.
	activated bool
}

// run calls runC and writes down what a caller sees of it.
func (w *world) run(args ...string) { w.call(call{args: args}) }

// rooted is run with the scenario's root.
func (w *world) rooted(args ...string) { w.run(append([]string{"--root", w.root}, args...)...) }

func (w *world) call(c call) {
	w.t.Helper()
	w.calls++
	path := w.by.path
	if w.by.lonely {
		gone, err := os.Open(program(w.t, filepath.Join(stage, "lonely", "palisade-runc"), w.by.path))
		if err != nil {
			w.t.Fatal(err)
		}
		defer gone.Close()
		if err := os.RemoveAll(filepath.Join(stage, "lonely")); err != nil {
			w.t.Fatal(err)
		}
		path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), gone.Fd())
	}
	// Files, because a container that runs on keeps them open.
	stdout, stderr := w.output(), w.output()
	defer closeAll([]*os.File{stdout, stderr})
	command := exec.Cmd{
		Path: path, Args: append([]string{w.by.name}, c.args...), Stdin: strings.NewReader(c.stdin), Stdout: stdout, Stderr: stderr,
		ExtraFiles: c.files, Dir: w.bundle, WaitDelay: 20 * time.Second,
		Env: append([]string{"PATH=" + strings.TrimPrefix(w.by.search+":/usr/sbin:/usr/bin:/sbin:/bin", ":"), "HOME=/root"}, c.env...),
	}
	if c.activated {
		command.Path, command.Args = "/bin/busybox", append([]string{"sh", "-c", `export LISTEN_PID=$$; exec "$0" "$@"`, path}, c.args...)
	}
	if c.cwd != "" {
		command.Dir = c.cwd
	}
	if err := command.Start(); err != nil {
		w.t.Fatal(err)
	}
	if c.started != nil {
		c.started(command.Process.Pid)
	}
	err := command.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("%q: %v", c.args, err)
	}
	w.note("runc %q: %v", c.args, command.ProcessState)
	w.note("stdout: %s", content(w.t, stdout))
	w.note("stderr: %s", content(w.t, stderr))
}

// output is a file without a name.
func (w *world) output() *os.File {
	file, err := os.CreateTemp("", "palisade-shim-")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.Remove(file.Name()); err != nil {
		w.t.Fatal(err)
	}
	return file
}

func content(t testing.TB, file *os.File) string {
	raw, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<20))
	if err != nil {
		t.Error(err)
	}
	return string(raw)
}

func (w *world) note(format string, args ...any) { fmt.Fprintf(&w.text, format+"\n", args...) }

// show writes a file's content down.
func (w *world) show(name string) {
	raw, err := os.ReadFile(filepath.Join(w.directory, name))
	w.note("%s: %v: %s", name, err, raw)
}

// path is a file of the scenario.
func (w *world) path(name string) string { return filepath.Join(w.directory, name) }

// configure writes config.json, changed by edit.
func (w *world) configure(edit func(spec map[string]any)) {
	w.t.Helper()
	if err := os.RemoveAll(filepath.Join(w.bundle, "config.json")); err != nil {
		w.t.Fatal(err)
	}
	make := exec.Command("runc", "spec")
	make.Dir = w.bundle
	if out, err := make.CombinedOutput(); err != nil {
		w.t.Fatalf("runc spec: %v: %s", err, out)
	}
	path := filepath.Join(w.bundle, "config.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(raw, &spec); err != nil {
		w.t.Fatal(err)
	}
	process := spec["process"].(map[string]any)
	process["terminal"] = false
	process["args"] = []string{"/bin/sh", "-c", "sleep 60"}
	if edit != nil {
		edit(spec)
	}
	if raw, err = json.Marshal(spec); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// shell makes the container's program a script.
func (w *world) shell(script string) {
	w.t.Helper()
	w.configure(func(spec map[string]any) {
		spec["process"].(map[string]any)["args"] = []string{"/bin/sh", "-c", script}
	})
}

// await waits for the container to be in a state, as runC itself tells it.
func (w *world) await(state string) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		out, _ := exec.Command("runc", "--root", w.root, "state", w.id).Output()
		if bytes.Contains(out, []byte(`"status": "`+state+`"`)) {
			return
		}
	}
	w.t.Fatalf("the container was never %s", state)
}

func writeRootfs(t testing.TB, directory string) {
	t.Helper()
	files, err := ociimage.Busybox()
	if err != nil {
		t.Skipf("%v", err)
	}
	for _, file := range files {
		path := filepath.Join(directory, file.Path)
		switch {
		case strings.HasSuffix(file.Path, "/"):
			err = os.MkdirAll(path, os.FileMode(file.Mode)) //nolint:gosec // a constant of ours
		case file.Link != "":
			err = os.Symlink(file.Link, path)
		default:
			err = os.WriteFile(path, file.Content, os.FileMode(file.Mode)) //nolint:gosec // a constant of ours
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
