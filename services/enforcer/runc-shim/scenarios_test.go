package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// scenarios are what the matrix plays.
var scenarios = []scenario{
	{"what needs no container", func(w *world) {
		for _, line := range []string{
			"--version", "-v", "--help", "-h", "help", "help create", "create --help", "create -h", "features", "frobnicate", "--frobnicate list",
			"--log", "--log-format xml list", "--debug=perhaps list", "-- --version", "",
		} {
			w.run(strings.Fields(line)...)
		}
	}},
	{"mistakes", func(w *world) {
		for _, line := range []string{
			"create", "create a b", "create --frobnicate a", "create --preserve-fds many a", "create a/b", "create --bundle /nonexistent a",
			"create a --frobnicate --", "start", "start nobody", "start a b", "state nobody", "kill nobody", "delete nobody", "delete --force nobody",
			"exec nobody true", "pause nobody", "resume nobody", "ps nobody", "update --memory 1 nobody", "events --stats nobody", "run --bundle /nonexistent a",
			"list --format xml", "list", "list --quiet", "list --format json",
		} {
			w.rooted(strings.Fields(line)...)
		}
	}},
	{"logs of errors", func(w *world) {
		for i, format := range []string{"", "--log-format=text", "--log-format=json", "--debug"} {
			name := fmt.Sprintf("log%d", i)
			w.run(strings.Fields("--root " + w.root + " --log " + w.path(name) + " " + format + " create --bundle /nonexistent --pid-file /p a")...)
			w.show(name)
		}
		w.run("--root", w.root, "--log", "/nonexistent/log", "list")
		w.run("--root", w.root, "--log", w.directory, "create", "a")
		w.run("--root", "/proc/version", "create", w.id)
	}},
	{"configurations runC refuses", func(w *world) {
		for _, content := range []string{"", "{", "[]", `{"ociVersion": 1}`, `{"ociVersion": "1.0.2"}`} {
			if err := os.WriteFile(filepath.Join(w.bundle, "config.json"), []byte(content), 0o600); err != nil {
				w.t.Fatal(err)
			}
			w.rooted("--log", w.path("log"), "--log-format", "json", "create", w.id)
		}
		w.show("log")
		if err := os.Remove(filepath.Join(w.bundle, "config.json")); err != nil {
			w.t.Fatal(err)
		}
		w.rooted("run", w.id)
		w.configure(func(spec map[string]any) { spec["process"].(map[string]any)["args"] = []string{"/nonexistent"} })
		w.rooted("create", w.id)
		w.rooted("start", w.id)
		w.rooted("delete", "--force", w.id)
		w.rooted("run", w.id)
		w.configure(nil)
		w.rooted("--systemd-cgroup", "create", w.id)
	}},
	{"a spec", func(w *world) {
		if err := os.Mkdir(w.path("new"), 0o700); err != nil {
			w.t.Fatal(err)
		}
		w.call(call{args: []string{"spec"}, cwd: w.path("new")})
		w.show("new/config.json")
		w.run("spec", "--bundle", w.path("new"))
		w.run("spec", "--rootless")
	}},
	{"a container's life", func(w *world) {
		w.rooted("--log", w.path("log"), "--log-format", "json", "create", "--bundle", w.bundle, "--pid-file", w.path("pid"), w.id)
		w.showPid("pid")
		w.rooted("state", w.id)
		w.rooted("create", w.id)
		w.rooted("list")
		w.rooted("exec", w.id, "/bin/echo", "too early")
		w.rooted("start", w.id)
		w.rooted("start", w.id)
		w.rooted("state", w.id)
		w.rooted("list", "--quiet")
		w.rooted("delete", w.id)
		w.rooted("kill", w.id, "KILL")
		w.await("stopped")
		w.rooted("kill", w.id, "KILL")
		w.rooted("state", w.id)
		w.rooted("delete", w.id)
		w.rooted("state", w.id)
		w.rooted("delete", "--force", w.id)
		w.show("log")
	}},
	{"while it runs", func(w *world) {
		w.rooted("run", "--detach", "--pid-file", w.path("pid"), w.id)
		w.awaitProgram("pid", "sleep")
		w.rooted("ps", w.id)
		w.rooted("ps", "--format", "json", w.id)
		w.rooted("pause", w.id)
		w.rooted("state", w.id)
		w.rooted("exec", w.id, "/bin/true")
		w.rooted("resume", w.id)
		w.rooted("update", "--pids-limit", "50", w.id)
		w.call(call{args: []string{"--root", w.root, "update", "--resources", "-", w.id}, stdin: `{"pids": {"limit": 60}}`})
		w.rooted("update", "--memory", "1", w.id)
		w.shape("events", "--stats", w.id)
		w.rooted("kill", "--all", w.id, "TERM")
		w.rooted("kill", w.id, "NOSUCHSIGNAL")
		w.rooted("kill", "--all", w.id, "9")
		w.await("stopped")
		w.rooted("delete", w.id)
	}},
	{"exec", func(w *world) {
		w.rooted("run", "-d", "--pid-file", w.path("pid"), w.id)
		w.rooted("exec", w.id, "/bin/sh", "-c", "echo out; echo err >&2; exit 42")
		w.rooted("exec", w.id, "/nonexistent")
		w.rooted("exec", "--user", "7:8", "--cwd", "/tmp", "--env", "A=B=C", w.id, "/bin/sh", "-c", "id; echo $A; cat /proc/self/status | busybox grep -E '^(Sig|Cap|NoNew)'; ls -l .")
		w.call(call{args: []string{"--root", w.root, "exec", w.id, "/bin/cat"}, stdin: "to the container\n"})
		w.rooted("exec", "--detach", "--pid-file", w.path("exec.pid"), w.id, "/bin/sleep", "50")
		w.showPid("exec.pid")
		process := `{"args": ["/bin/echo", "from a file"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]}`
		if err := os.WriteFile(w.path("process.json"), []byte(process), 0o600); err != nil {
			w.t.Fatal(err)
		}
		w.rooted("exec", "--process", w.path("process.json"), w.id)
		w.rooted("exec", "--tty", w.id, "/bin/true")
		w.rooted("exec", w.id)
		w.rooted("exec", "--cap", "CAP_NOSUCH", w.id, "/bin/true")
		w.rooted("delete", "--force", w.id)
	}},
	{"run, in the foreground", func(w *world) {
		w.shell("echo out; echo err >&2; cat; exit 7")
		w.call(call{args: []string{"--root", w.root, "run", w.id}, stdin: "from the caller\n"})
		w.shell("kill -9 $$")
		w.rooted("run", w.id)
		w.shell("exit 3")
		w.rooted("run", "--keep", "--no-pivot", w.id)
		w.rooted("state", w.id)
	}},
	{"what the container's program finds", func(w *world) {
		w.shell("cat /proc/self/status | busybox grep -E '^(Sig[BIC]|Cap|NoNew|Seccomp|Umask|Groups)'; cat /proc/self/limits; busybox env; busybox pwd; " +
			"ls -l /proc/self/fd | busybox awk '{print $9, $10, $11}' | busybox sed 's/[0-9]*]/N]/; s,/proc/.*,PROC,'; cat /proc/1/cmdline /proc/1/oom_score_adj")
		w.rooted("run", w.id)
	}},
	{"descriptors that are handed on", func(w *world) {
		w.shell("ls /proc/self/fd; cat <&3; cat <&4; echo fds=$LISTEN_FDS pid=$LISTEN_PID")
		for _, c := range []call{
			{args: []string{"--root", w.root, "run", "--preserve-fds", "2", w.id}},
			{args: []string{"--root", w.root, "run", w.id}, env: []string{"LISTEN_FDS=2", "LISTEN_PID=1"}},
			{args: []string{"--root", w.root, "run", w.id}, env: []string{"LISTEN_FDS=2"}, activated: true},
			{args: []string{"--root", w.root, "run", "--preserve-fds=1", w.id}, env: []string{"LISTEN_FDS=1"}, activated: true},
		} {
			for i := range 2 {
				c.files = append(c.files, w.pipe(fmt.Sprintf("descriptor %d\n", i+3)))
			}
			w.call(c)
			closeAll(c.files)
		}
	}},
	{"signals that runC passes on", func(w *world) {
		w.configure(func(spec map[string]any) {
			spec["root"].(map[string]any)["readonly"] = false
			spec["process"].(map[string]any)["args"] = []string{
				"/bin/sh", "-c", "trap 'echo got USR1' USR1; trap 'echo got TERM; exit 5' TERM; echo ready >/ready; while :; do sleep 0.1; done",
			}
		})
		w.call(call{args: []string{"--root", w.root, "run", w.id}, started: func(pid int) {
			w.awaitFile("bundle/rootfs/ready")
			_ = syscall.Kill(pid, syscall.SIGUSR1)
			time.Sleep(300 * time.Millisecond) // for the script to be past its trap: there is nothing to wait for
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}})
	}},
	{"a terminal", func(w *world) {
		w.configure(func(spec map[string]any) {
			process := spec["process"].(map[string]any)
			process["terminal"] = true
			process["args"] = []string{"/bin/sh", "-c", "busybox tty; busybox stty size; echo to the terminal"}
		})
		w.rooted("create", w.id)
		w.rooted("create", "--console-socket", w.path("nonexistent"), w.id)
		output := w.console("console.sock")
		w.rooted("create", "--console-socket", w.path("console.sock"), w.id)
		w.rooted("start", w.id)
		w.note("on the terminal: %q", <-output)
		w.await("stopped")
		w.rooted("delete", w.id)
	}},
	{"hooks", func(w *world) {
		hook := func(name string) []any {
			script := "{ echo " + name + " $A; cat; echo; } >>" + w.path("hooks")
			return []any{map[string]any{"path": "/bin/busybox", "args": []string{"sh", "-c", script}, "env": []string{"A=b", "PATH=/bin"}}}
		}
		w.configure(func(spec map[string]any) {
			spec["hooks"] = map[string]any{"prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "poststart": hook("poststart"), "poststop": hook("poststop")}
		})
		w.rooted("create", w.id)
		w.rooted("start", w.id)
		w.rooted("delete", "--force", w.id)
		w.show("hooks")
		w.configure(func(spec map[string]any) {
			spec["hooks"] = map[string]any{"createRuntime": []any{map[string]any{"path": "/bin/false", "timeout": 5}}}
		})
		w.rooted("--log", w.path("log"), "--log-format=json", "create", w.id)
		w.show("log")
	}},
}

// shape is rooted for output that is full of counters: digits are left out.
func (w *world) shape(args ...string) {
	before := w.text.Len()
	w.rooted(args...)
	text := w.text.String()
	w.text.Reset()
	w.text.WriteString(text[:before])
	w.text.WriteString(strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text[before:]))
}

// showPid writes down whether a file holds the pid of a process that lives.
func (w *world) showPid(name string) {
	raw, err := os.ReadFile(w.path(name))
	_, alive := os.Stat("/proc/" + string(raw))
	w.note("%s: %v, %v, of no process: %v", name, err, strings.Trim(string(raw), "0123456789"), alive)
}

// awaitProgram waits for the process of a pid file to be past runC's own init.
func (w *world) awaitProgram(pidFile, name string) {
	pid, err := os.ReadFile(w.path(pidFile))
	if err != nil {
		w.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if comm, _ := os.ReadFile(filepath.Join("/proc", string(pid), "comm")); string(comm) == name+"\n" {
			return
		}
	}
	w.t.Errorf("the container's program was never %s", name)
}

func (w *world) awaitFile(name string) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if info, err := os.Stat(w.path(name)); err == nil && info.Size() > 0 {
			return
		}
	}
	w.t.Errorf("%s never came", name)
}

// pipe is a descriptor to read a text from.
func (w *world) pipe(content string) *os.File {
	r, wr, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := wr.WriteString(content); err != nil {
		w.t.Fatal(err)
	}
	wr.Close()
	return r
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}

// console listens for a terminal as an engine does, and returns what is written to it.
func (w *world) console(name string) <-chan string {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.path(name), Net: "unix"})
	if err != nil {
		w.t.Fatal(err)
	}
	output := make(chan string, 1)
	go func() {
		defer listener.Close()
		_ = listener.SetDeadline(time.Now().Add(20 * time.Second))
		terminal, err := receive(listener)
		if err != nil {
			output <- err.Error()
			return
		}
		defer terminal.Close()
		text, _ := io.ReadAll(terminal) // ends with EIO when the container does
		output <- string(text)
	}()
	return output
}

func receive(listener *net.UnixListener) (*os.File, error) {
	conn, err := listener.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	name, control := make([]byte, 4096), make([]byte, 256)
	_, n, _, _, err := conn.ReadMsgUnix(name, control)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) == 0 {
		return nil, fmt.Errorf("no descriptor: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}
