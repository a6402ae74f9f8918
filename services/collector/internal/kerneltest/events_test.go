package kerneltest

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// classOf is the class of record that an event came from.
func classOf(e *eventv1.Event) string {
	name := func(enum fmt.Stringer, prefix string) string {
		return strings.ToLower(strings.TrimPrefix(enum.String(), prefix))
	}
	switch kind := e.GetKind().(type) {
	case *eventv1.Event_FileChange:
		return name(kind.FileChange.GetOperation(), "FILE_OPERATION_")
	case *eventv1.Event_Memory:
		return name(kind.Memory.GetOperation(), "MEMORY_OPERATION_")
	case *eventv1.Event_Privilege:
		return name(kind.Privilege.GetOperation(), "PRIVILEGE_OPERATION_")
	case *eventv1.Event_Socket:
		if kind.Socket.GetOperation() == eventv1.SocketOperation_SOCKET_OPERATION_CREATE {
			return "socket"
		}
		return name(kind.Socket.GetOperation(), "SOCKET_OPERATION_")
	case *eventv1.Event_Dns:
		if kind.Dns.GetResponse() {
			return "dns_answer"
		}
		return "dns_question"
	}
	field := e.ProtoReflect().WhichOneof(e.ProtoReflect().Descriptor().Oneofs().ByName("kind"))
	return string(field.Name())
}

// want says what is wrong with the event that a trigger caused in a directory, or nothing.
var want = map[string]func(e *eventv1.Event, dir string) string{
	"exec_failed": func(e *eventv1.Event, dir string) string {
		return differ(e.GetExecFailed().GetFile().GetPath(), filepath.Join(dir, "absent"), result(e), fmt.Sprint(-int(unix.ENOENT)))
	},
	"signal": func(e *eventv1.Event, _ string) string {
		return differ(e.GetSignal().GetNumber(), int(unix.SIGWINCH), e.GetSignal().GetTarget().GetPid(), e.GetProcess().GetPid(),
			e.GetSignal().GetTarget().GetStartBoottimeNs(), e.GetProcess().GetStartBoottimeNs())
	},
	"rename": func(e *eventv1.Event, dir string) string {
		return differ(changed(e), dir+"/file", e.GetFileChange().GetTarget().GetPath(), dir+"/file-renamed")
	},
	"unlink": func(e *eventv1.Event, dir string) string { return differ(changed(e), dir+"/file") },
	"rmdir":  func(e *eventv1.Event, dir string) string { return differ(changed(e), dir+"/d") },
	"symlink": func(e *eventv1.Event, dir string) string {
		return differ(changed(e), dir+"/file", e.GetFileChange().GetText(), "/where/it/leads")
	},
	"link": func(e *eventv1.Event, dir string) string {
		return differ(changed(e), dir+"/file", e.GetFileChange().GetTarget().GetPath(), dir+"/file-link")
	},
	"mkdir": func(e *eventv1.Event, dir string) string {
		return differ(changed(e), dir+"/file", e.GetFileChange().GetMode()&0o777, 0o750)
	},
	"mknod": func(e *eventv1.Event, dir string) string {
		return differ(changed(e), dir+"/file", e.GetFileChange().GetMode()&unix.S_IFMT, unix.S_IFIFO)
	},
	"chmod": func(e *eventv1.Event, dir string) string {
		return differ(changed(e), dir+"/file", e.GetFileChange().GetMode()&0o7777, 0o4711)
	},
	"chown": func(e *eventv1.Event, dir string) string {
		return differ(changed(e), dir+"/file", e.GetFileChange().GetUid(), 1234, e.GetFileChange().GetGid(), 4321)
	},
	"truncate": func(e *eventv1.Event, dir string) string { return differ(changed(e), dir+"/file") },
	"setxattr": func(e *eventv1.Event, dir string) string {
		return differ(changed(e), dir+"/file", e.GetFileChange().GetText(), "trusted.palisade")
	},
	"mount": func(e *eventv1.Event, dir string) string {
		c := e.GetFileChange()
		return differ(changed(e), dir, c.GetText(), "a-source", c.GetFileSystem(), "tmpfs", c.GetFlags()&unix.MS_NOSUID, unix.MS_NOSUID)
	},
	"umount": func(e *eventv1.Event, dir string) string {
		return differ(changed(e), dir, e.GetFileChange().GetFlags(), unix.MNT_DETACH)
	},
	"pivot_root": func(e *eventv1.Event, dir string) string {
		return differ(changed(e), dir, e.GetFileChange().GetTarget().GetPath(), dir+"/old")
	},
	"chroot": func(e *eventv1.Event, dir string) string { return differ(changed(e), dir) },
	"memfd": func(e *eventv1.Event, _ string) string {
		return differ(e.GetMemory().GetName(), "innocent", e.GetMemory().GetFile().GetMemfd(), true)
	},
	"mmap_exec": func(e *eventv1.Event, _ string) string {
		return differ(e.GetMemory().GetFile().GetPath(), self(), e.GetMemory().GetWritable(), false)
	},
	"mprotect_exec": func(e *eventv1.Event, _ string) string { return differ(e.GetMemory().GetWritable(), true) },
	"socket": func(e *eventv1.Event, _ string) string {
		return differ(e.GetSocket().GetFamily(), unix.AF_INET, e.GetSocket().GetType(), unix.SOCK_DGRAM)
	},
	"bind": func(e *eventv1.Event, _ string) string {
		return differ(net.IP(e.GetSocket().GetAddress().GetIp()), "127.0.0.1")
	},
	"listen": func(e *eventv1.Event, _ string) string {
		return differ(e.GetSocket().GetAddress().GetPort() != 0, true)
	},
	"connect_unix": func(e *eventv1.Event, dir string) string { return differ(e.GetSocket().GetUnixPath(), dir+"/s") },
	"duplicate": func(e *eventv1.Event, _ string) string {
		d := e.GetDuplicate()
		return differ(d.GetCall(), eventv1.DuplicateCall_DUPLICATE_CALL_DUP2, result(e), 0, d.GetFamily(), unix.AF_INET,
			net.IP(d.GetRemote().GetIp()), "127.0.0.1")
	},
	"send": func(e *eventv1.Event, _ string) string {
		return differ(endpoint(e.GetSocket().GetAddress()), "127.0.0.9:4242")
	},
	"dns_question": func(e *eventv1.Event, _ string) string {
		d := e.GetDns()
		return differ(len(d.GetQuestions()), 1, d.GetQuestions()[0].GetName(), "evil.example", endpoint(d.GetServer()), nameServer, d.GetId(), 77)
	},
	"dns_answer": func(e *eventv1.Event, _ string) string {
		d := e.GetDns()
		return differ(len(d.GetAnswers()), 1, d.GetAnswers()[0].GetData(), "192.0.2.1", endpoint(d.GetServer()), nameServer)
	},
	"setuid":           arguments(1111, 2222, 3333),
	"setgid":           arguments(1111, 2222, 3333),
	"capset":           arguments(1<<unix.CAP_KILL, 1<<unix.CAP_KILL, 0),
	"unshare":          arguments(unix.CLONE_NEWUTS),
	"setns":            arguments(unix.CLONE_NEWUTS),
	"ptrace":           arguments(unix.PTRACE_SEIZE),
	"bpf":              arguments(1 << 16),
	"process_vm_read":  arguments(8),
	"process_vm_write": arguments(8),
	"keyctl":           arguments(unix.KEYCTL_GET_KEYRING_ID),
	"io_uring_setup":   arguments(submissionEntries),
	"perf_event_open":  arguments(unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_DUMMY),
	"module_load": func(e *eventv1.Event, dir string) string {
		return differ(e.GetPrivilege().GetName(), dir+"/file", e.GetResult() < 0, true)
	},
	"module_unload": func(e *eventv1.Event, _ string) string {
		return differ(e.GetPrivilege().GetName(), "no_such_module", e.GetResult() < 0, true)
	},
}

func arguments(want ...uint64) func(*eventv1.Event, string) string {
	return func(e *eventv1.Event, _ string) string {
		if got := e.GetPrivilege().GetArguments(); !slices.Equal(got, want) {
			return fmt.Sprintf("arguments = %v, want %v", got, want)
		}
		return ""
	}
}

func changed(e *eventv1.Event) string { return e.GetFileChange().GetFile().GetPath() }

func result(e *eventv1.Event) string {
	if !e.GetResultKnown() {
		return "unknown"
	}
	return fmt.Sprint(e.GetResult())
}

// differ compares pairs of what is there and what is wanted.
func differ(pairs ...any) string {
	for i := 0; i < len(pairs); i += 2 {
		if got, want := fmt.Sprint(pairs[i]), fmt.Sprint(pairs[i+1]); got != want {
			return fmt.Sprintf("%q, want %q", got, want)
		}
	}
	return ""
}

// lacks says why a kernel cannot show a class at all: what it would be of does not exist there.
func lacks(class string) string {
	switch class {
	case "io_uring", "io_uring_setup":
		if _, err := newURing(); err != nil {
			return err.Error()
		}
	case "userfaultfd":
		if err := rawCall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0); err == unix.ENOSYS { //nolint:errorlint // the number itself
			return "kernel without CONFIG_USERFAULTFD"
		}
	}
	return ""
}

// TestEvents causes every class of event for real.
func TestEvents(t *testing.T) {
	w := watch(t)
	missing := map[string]string{}
	for _, hook := range w.set.Missing() {
		missing[hook.Name] = hook.Reason
	}
	if len(missing) > 0 {
		t.Logf("hooks that are missing here: %v", missing)
	}
	for _, class := range slices.Sorted(maps.Keys(triggers)) {
		t.Run(class, func(t *testing.T) {
			if reason := lacks(class); reason != "" {
				t.Skip(reason)
			}
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			pid, _ := perform(t, "trigger", class, dir)
			check := want[class]
			if check == nil {
				check = func(*eventv1.Event, string) string { return "" }
			}
			var last string
			w.await(t, class, func(e *eventv1.Event) bool {
				if e.GetProcess().GetPid() != pid || classOf(e) != class {
					return false
				}
				last = check(e, dir)
				if last != "" {
					t.Logf("another %s: %s: %v", class, last, e)
				}
				return last == ""
			})
		})
	}
}

// Every class that the kernel side has, but the iterator's, has a trigger.
func TestEveryClassHasATrigger(t *testing.T) {
	for kind := record.Exec; kind < record.Kinds; kind++ {
		if _, ok := triggers[kind.Class()]; !ok && kind != record.Existing {
			t.Errorf("no trigger for %s", kind.Class())
		}
	}
	if len(triggers) < 45 {
		t.Errorf("%d triggers, want 45 at least", len(triggers))
	}
}

// A peer is told once for each socket, however many datagrams it is sent.
func TestSendTellsAPeerOnce(t *testing.T) {
	w := watch(t)
	pid, _ := perform(t, "trigger", "send", t.TempDir())
	ours := func(e *eventv1.Event) bool { return e.GetProcess().GetPid() == pid }
	w.await(t, "exit", func(e *eventv1.Event) bool { return ours(e) && e.GetExit() != nil })
	awaitAll(t, w) // the ring of what floods may be behind
	sends := w.count(func(e *eventv1.Event) bool { return ours(e) && classOf(e) == "send" })
	if sends != 1 {
		t.Errorf("%d sends, want 1 for two datagrams to one peer", sends)
	}
}
