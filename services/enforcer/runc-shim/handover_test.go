package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// heir starts a program that changes nothing of what it inherits, the host's static busybox, once by itself and once with
// the shim in its place, and returns what the kernel says of it each time.
func heir(t *testing.T, start func(path string) (pid int, err error)) (plain, shimmed string) {
	t.Helper()
	directory := t.TempDir()
	paths := []string{program(t, filepath.Join(directory, "1", "busybox"), busybox), program(t, filepath.Join(directory, "2", "busybox"), shim(t))}
	reals := []string{paths[0], program(t, filepath.Join(directory, "2", "busybox.palisade", "busybox"), busybox)}
	var told []string
	for i, path := range paths {
		pid, err := start(path)
		if err != nil {
			t.Fatalf("start %s: %v", path, err)
		}
		awaitProgram(t, pid, reals[i])
		told = append(told, strings.ReplaceAll(describe(t, pid), path, "PROGRAM"))
		_ = syscall.Kill(pid, syscall.SIGKILL)
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			t.Error(err)
		}
	}
	return told[0], told[1]
}

const busybox = "/bin/busybox"

// describe is what the kernel says of a process that a program can inherit.
func describe(t *testing.T, pid int) string {
	t.Helper()
	proc := "/proc/" + strconv.Itoa(pid)
	var out strings.Builder
	for _, name := range []string{"status", "limits", "environ", "cmdline", "oom_score_adj", "timerslack_ns", "coredump_filter", "comm", "cgroup", "stat"} {
		raw, err := os.ReadFile(filepath.Join(proc, name))
		must(t, err)
		text := string(raw)
		switch name {
		case "status":
			text = strings.Join(inherited.FindAllString(text, -1), "\n")
		case "stat": // priority, nice, policy
			fields := strings.Fields(text[strings.LastIndex(text, ")"):])
			text = strings.Join([]string{fields[16], fields[17], fields[39]}, " ")
		}
		fmt.Fprintf(&out, "%s: %q\n", name, text)
	}
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	fmt.Fprintln(&out, "cwd:", cwd, err)
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	must(t, err)
	for _, fd := range fds {
		target, _ := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		info, _ := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name()))
		fmt.Fprintf(&out, "fd %s: %s %q\n", fd.Name(), target, info)
	}
	return out.String()
}

// inherited are the lines of a status that an execve keeps.
var inherited = regexp.MustCompile(`(?m)^(Umask|PPid|Uid|Gid|Groups|NSpgid|NSsid|SigPnd|ShdPnd|SigBlk|SigIgn|Cap...|NoNewPrivs|Seccomp\w*|Cpus_allowed|Mems_allowed|CoreDumping|THP_enabled):.*`)

func TestWhatRuncInherits(t *testing.T) {
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	waiting, never, err := os.Pipe()
	must(t, err)
	defer waiting.Close()
	defer never.Close()
	fd, cwd, closed := null.Fd(), t.TempDir(), ^uintptr(0)
	standard := []uintptr{fd, fd, fd}
	sleep := []string{"busybox", "sleep", "60"}
	env := []string{"A=1", "A=2", "no equals sign", "", "B=", "PATH=/bin:/usr/bin"}
	script := func(path, text string) (int, error) {
		return syscall.ForkExec(busybox, []string{"sh", "-c", text + `; exec "$0" sleep 60`, path}, &syscall.ProcAttr{Files: standard, Env: env})
	}
	long := strings.Repeat("y", 131_000)
	tests := []struct {
		name  string
		start func(path string) (int, error)
		want  string // in what is said
		entry bool   // needs the shim's own entry
	}{
		{"an environment with the same name twice", func(path string) (int, error) {
			return syscall.ForkExec(path, sleep, &syscall.ProcAttr{Files: standard, Env: env})
		}, `A=1\x00A=2\x00no equals sign\x00\x00B=\x00`, false},
		{"no environment", func(path string) (int, error) {
			return syscall.ForkExec(path, sleep, &syscall.ProcAttr{Files: standard, Env: []string{}})
		}, `environ: ""`, false},
		{"descriptors, and a working directory", func(path string) (int, error) {
			return syscall.ForkExec(path, sleep, &syscall.ProcAttr{Dir: cwd, Files: []uintptr{fd, fd, fd, closed, waiting.Fd(), fd, never.Fd()}})
		}, "\nfd 6: pipe:", false},
		{"no standard descriptors", func(path string) (int, error) {
			return syscall.ForkExec(path, sleep, &syscall.ProcAttr{Files: []uintptr{closed, closed, closed, closed, fd}})
		}, "\nfd 4: /dev/null", true},
		{"signals ignored", func(path string) (int, error) {
			return script(path, `trap '' HUP INT QUIT PIPE ALRM TERM USR1 USR2 CHLD TSTP PROF 11 40 64`)
		}, `SigIgn:\t80000080`, true},
		{"signals blocked", func(path string) (int, error) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var old, blocked unix.Sigset_t
			for i := range blocked.Val {
				blocked.Val[i] = ^uint64(0)
			}
			if err := unix.PthreadSigmask(unix.SIG_SETMASK, &blocked, &old); err != nil {
				return 0, err
			}
			defer func() { must(t, unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)) }()
			return syscall.ForkExec(path, sleep, &syscall.ProcAttr{Files: standard})
		}, `SigBlk:\tfffffffffffbfeff`, true},
		{"a low limit of descriptors", func(path string) (int, error) { return script(path, `ulimit -S -n 77`) }, `Max open files            77 `, false},
		{"a umask", func(path string) (int, error) { return script(path, `umask 027`) }, `Umask:\t0027`, false},
		{"arguments and bytes", func(path string) (int, error) {
			argv := []string{"busybox", "cat", "--", "-", long, "\xff\n", ""}
			for range 5000 {
				argv = append(argv, "--no-such-flag")
			}
			return syscall.ForkExec(path, argv, &syscall.ProcAttr{Files: []uintptr{waiting.Fd(), fd, fd}})
		}, long + `\x00\xff\n\x00\x00--no-such-flag`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOARCH != "amd64" && tt.entry {
				t.Skip("what the Go runtime changes before main is put back on amd64 only")
			}
			plain, shimmed := heir(t, tt.start)
			if plain != shimmed {
				t.Errorf("with the shim (+) it is not as without (-):\n%s", cmp.Diff(strings.Split(plain, "\n"), strings.Split(shimmed, "\n")))
			}
			if !strings.Contains(shimmed, tt.want) {
				t.Errorf("the kernel says\n%.5000s\nwant %.200s in it", shimmed, tt.want)
			}
		})
	}
}

// containerd asks the kernel to end runC when its own thread ends. The kernel keeps that for a thread, and forgets it if
// another thread of the shim calls execve.
func TestTheParentsDeathReachesRunc(t *testing.T) {
	directory := t.TempDir()
	path := program(t, filepath.Join(directory, "busybox"), shim(t))
	real := program(t, filepath.Join(directory, "busybox.palisade", "busybox"), busybox)
	for range 20 {
		started, end := make(chan *exec.Cmd), make(chan struct{})
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			command := &exec.Cmd{Path: path, Args: []string{"busybox", "sleep", "60"}, SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
			if err := command.Start(); err != nil {
				t.Error(err)
			}
			started <- command
			<-end
		}()
		command := <-started
		if t.Failed() {
			return
		}
		awaitProgram(t, command.Process.Pid, real)
		close(end)
		timer := time.AfterFunc(10*time.Second, func() { _ = command.Process.Signal(syscall.SIGTERM) })
		if err := command.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("runC ended with %v, want it killed by its parent's death", err)
		}
		timer.Stop()
	}
}

// awaitProgram waits until the shim has become another program.
func awaitProgram(t *testing.T, pid int, path string) {
	t.Helper()
	want, err := os.Stat(path)
	must(t, err)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		// The kernel has the new file for a moment before it has the new arguments.
		got, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
		if cmdline, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); err == nil && os.SameFile(got, want) && len(cmdline) > 0 {
			return
		}
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	t.Fatal("the shim never became the other program")
}

// B20: without anything of Palisade's but the shim, runC runs; without runC the caller is told, as runC would tell.
func TestB20ShimFindsRunc(t *testing.T) {
	real := runcs(t)[0]
	want, err := exec.Command(real, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	in := func(parts ...string) string { return filepath.Join(append([]string{directory}, parts...)...) }
	lone := program(t, in("lone", "runc"), shim(t))
	program(t, in("second", "runc"), shim(t))
	program(t, in("third", "runc"), shim(t))
	program(t, in("third", "runc.palisade", "runc"), real)
	program(t, in("broken", "runc"), shim(t))
	must(t, os.MkdirAll(in("broken", "runc.palisade"), 0o755))
	must(t, os.WriteFile(in("broken", "runc.palisade", "runc"), nil, 0o755)) // as a full disk leaves it
	program(t, in("chain", "runc"), shim(t))
	must(t, os.MkdirAll(in("chain", "runc.palisade"), 0o755))
	must(t, os.Symlink(in("lone", "runc"), in("chain", "runc.palisade", "runc")))
	must(t, os.MkdirAll(in("lone", "runc.palisade"), 0o755))
	must(t, os.Symlink(in("chain", "runc"), in("lone", "runc.palisade", "runc")))
	must(t, os.MkdirAll(in("script"), 0o755))
	must(t, os.WriteFile(in("script", "runc"), []byte("#!/bin/sh\nexec "+in("named", "palisade-runc")+" \"$@\"\n"), 0o755))
	named := program(t, in("named", "palisade-runc"), shim(t))
	circle := program(t, in("circle", "bin", "runc"), shim(t))
	must(t, os.WriteFile(in("circle", "runc"), []byte("#!/bin/sh\nexec "+circle+" \"$@\"\n"), 0o755))
	must(t, os.MkdirAll(in("linked"), 0o755))
	must(t, os.Symlink(lone, in("linked", "runc")))
	must(t, os.Link(lone, in("linked", "palisade-runc")))
	must(t, os.WriteFile(in("runc"), []byte("#!/bin/sh\necho of the working directory\n"), 0o755))
	tests := []struct{ name, path, search string }{
		{"beside it", in("third", "runc"), "/nonexistent"},
		{"in PATH", named, filepath.Dir(real)},
		{"not in PATH at all", named, "/nonexistent"},
		{"no PATH", named, ""},
		{"itself in PATH", lone, filepath.Dir(lone) + ":" + filepath.Dir(real)},
		{"itself under other names in PATH", lone, in("linked") + ":" + filepath.Dir(real)},
		{"a link to itself is called", in("linked", "runc"), in("linked") + ":" + filepath.Dir(real)},
		{"a copy of the shim in PATH", named, in("second") + ":" + filepath.Dir(real)},
		{"a copy of the shim in PATH, and what it stands for", named, in("third")},
		{"what is beside it is broken", in("broken", "runc"), filepath.Dir(real)},
		{"two shims that lead to each other", in("chain", "runc"), filepath.Dir(real)},
		{"a script that calls the shim", named, in("script") + ":" + filepath.Dir(real)},
		{"a script that calls the shim by another name", circle, in("circle") + ":" + filepath.Dir(real)},
		{"a relative PATH", named, "second:.::" + filepath.Dir(real)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			command := exec.Command(tt.path, "--version")
			command.Env, command.Dir, command.WaitDelay = []string{"PATH=" + tt.search}, in(), time.Second
			timer := time.AfterFunc(20*time.Second, func() { _ = command.Process.Kill() })
			defer timer.Stop()
			got, err := command.CombinedOutput()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("runc --version = %s, %v, want %s", got, err, want)
			}
		})
	}
}

// Who may run the shim but not read it cannot look for its mark either: it is known by device and inode.
func TestB20ShimThatItsCallerCannotRead(t *testing.T) {
	requireContainers(t)
	real := runcs(t)[0]
	want, err := exec.Command(real, "--version").Output()
	must(t, err)
	directory := t.TempDir()
	must(t, os.Chmod(filepath.Dir(directory), 0o755))
	path := program(t, filepath.Join(directory, "runc"), shim(t))
	must(t, os.Chmod(path, 0o111))
	command := exec.Command(path, "--version")
	command.Env, command.Dir = []string{"PATH=" + directory + ":" + filepath.Dir(real)}, "/"
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	timer := time.AfterFunc(20*time.Second, func() { _ = command.Process.Kill() })
	defer timer.Stop()
	if got, err := command.CombinedOutput(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("runc --version = %s, %v, want %s", got, err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// No file tells that another program, which is no script, leads to the shim: this test's, here.
func TestB20ShimGivesUpInACircle(t *testing.T) {
	directory := t.TempDir()
	path := program(t, filepath.Join(directory, "runc"), shim(t))
	self, err := os.Executable()
	must(t, err)
	// Too large to be looked into, as runC is.
	leads := program(t, filepath.Join(directory, "runc.palisade", "runc"), self)
	if info, err := os.Stat(leads); err != nil || info.Size() < 20<<20 {
		must(t, os.Truncate(leads, 20<<20))
	}
	command := exec.Command(path, "--log-format", "json", "start", "x")
	command.Env = []string{circleVariable + "=" + path}
	timer := time.AfterFunc(60*time.Second, func() { _ = command.Process.Kill() })
	defer timer.Stop()
	out, err := command.CombinedOutput()
	const want = `{"level":"error","msg":"palisade-runc finds no runC to run: what stands for runC calls the shim, again and again: put runC itself at `
	if command.ProcessState.ExitCode() != 1 || !strings.HasPrefix(string(out), want) {
		t.Errorf("the shim: %v: %.2000s, want exit status 1 and %s…", err, out, want)
	}
}

// A host without any runC is made of a mount namespace in which the shim is the only program.
func TestB20NoRuncAtAll(t *testing.T) {
	requireContainers(t)
	tests := []struct {
		name       string
		args       []string
		log, error string
	}{
		{"on standard error", []string{"create", "x"}, "", `level=error msg="palisade-runc finds no runC to run (there is none beside it or in PATH): install runC (Debian's package runc), or put it at /runc.palisade/runc"`},
		{"in a log", []string{"--log", "/log", "create", "x"}, `level=error msg="palisade-runc finds no runC`, "palisade-runc finds no runC to run ("},
		{"in a JSON log", []string{"--log=/log", "--log-format", "json", "create", "x"}, `{"level":"error","msg":"palisade-runc finds no runC to run (`, "palisade-runc finds no runC to run ("},
		{"in a log that cannot be written", []string{"--log", "/no/log", "start", "x"}, "", "open /no/log: no such file or directory\npalisade-runc finds no runC"},
		{"of a command line that runC refuses", []string{"--log", "/log", "--frobnicate"}, "finds no runC", "finds no runC"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			directory := t.TempDir()
			program(t, filepath.Join(directory, "runc"), shim(t))
			must(t, os.Mkdir(filepath.Join(directory, "proc"), 0o755))
			must(t, unix.Mount("/proc", filepath.Join(directory, "proc"), "", unix.MS_BIND|unix.MS_REC, ""))
			defer func() { must(t, unix.Unmount(filepath.Join(directory, "proc"), unix.MNT_DETACH)) }()
			var stderr bytes.Buffer
			command := exec.Cmd{
				Path: "/runc", Args: append([]string{"runc"}, tt.args...), Env: []string{"PATH=/bin"}, Dir: "/", Stderr: &stderr,
				SysProcAttr: &syscall.SysProcAttr{Chroot: directory},
			}
			if err := command.Run(); command.ProcessState.ExitCode() != 1 {
				t.Errorf("exit: %v, want 1", err)
			}
			if !strings.Contains(stderr.String(), tt.error) {
				t.Errorf("standard error = %s, want %s in it", stderr.String(), tt.error)
			}
			log, err := os.ReadFile(filepath.Join(directory, "log"))
			if (err == nil) != (tt.log != "") || !strings.Contains(string(log), tt.log) || strings.Count(string(log), "\n") > 1 {
				t.Errorf("log = %s, %v, want one line with %s", log, err, tt.log)
			}
		})
	}
}

// The shim must be smaller than what it takes for larger than any shim, and link little: each start pays for it.
func TestTheShimIsSmall(t *testing.T) {
	info, err := os.Stat(shim(t))
	if err != nil {
		t.Fatal(err)
	}
	const most = 5 << 20
	if info.Size() > most {
		t.Errorf("the shim has %d bytes, want at most %d", info.Size(), most)
	}
	file, err := elf.Open(shim(t))
	must(t, err)
	defer file.Close()
	for _, header := range file.Progs {
		if header.Type == elf.PT_INTERP || header.Type == elf.PT_DYNAMIC {
			t.Errorf("the shim has a %v: who sets LD_PRELOAD is in it", header.Type)
		}
	}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	for _, banned := range []string{
		"github.com/google/cel-go", "go.yaml.in/yaml", "gopkg.in/yaml", "google.golang.org/grpc", "go.opentelemetry.io", "github.com/prometheus",
		"github.com/urfave/cli", "net/http", "crypto/tls", "os/exec", "log/slog", "text/template", "regexp", "flag",
		"github.com/palisade-sec/palisade/internal", "github.com/opencontainers",
	} {
		if i := slices.IndexFunc(linked, func(path string) bool { return path == banned || strings.HasPrefix(path, banned+"/") }); i >= 0 {
			t.Errorf("the shim links %s", linked[i])
		}
	}
}
