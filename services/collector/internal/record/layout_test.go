package record

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/cilium/ebpf"
)

// The C structs are the source of the layout; what clang made of them is in the object's type information.
func TestLayoutIsTheCompilers(t *testing.T) {
	for _, object := range []string{"../probe/collector_x86_bpfel.o", "../probe/collector_arm64_bpfel.o", "../probe/legacy_x86_bpfel.o", "../probe/legacy_arm64_bpfel.o"} {
		spec, err := ebpf.LoadCollectionSpec(object)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range layout() {
			if got := offsetOf(t, spec.Types, tt.name, tt.field); got != tt.want {
				t.Errorf("%s: %s.%s is at %d, decoder says %d", object, tt.name, tt.field, got, tt.want)
			}
		}
		var kinds *btf.Enum
		if err := spec.Types.TypeByName("record_kind", &kinds); err != nil {
			t.Fatal(err)
		}
		checkKinds(t, object, kinds)
	}
}

// checkKinds wants one Go kind for each of the C enum's, with the same number and name.
func checkKinds(t *testing.T, object string, kinds *btf.Enum) {
	t.Helper()
	for _, c := range kinds.Values {
		name := strings.ToLower(strings.TrimPrefix(c.Name, "RECORD_"))
		if name == "kinds" {
			if c.Value != Kinds {
				t.Errorf("%s: RECORD_KINDS = %d, want %d", object, c.Value, Kinds)
			}
			continue
		}
		if got := Kind(c.Value).Class(); got != name {
			t.Errorf("%s: class of kind %d = %s, want %s", object, c.Value, got, name)
		}
		if got := KindOfClass(name); uint64(got) != c.Value {
			t.Errorf("%s: KindOfClass(%s) = %d, want %d", object, name, got, c.Value)
		}
	}
	if len(kinds.Values) != Kinds {
		t.Errorf("%s: %d kinds, want %d", object, len(kinds.Values)-1, Kinds-1)
	}
}

type member struct {
	name, field string
	want        int // offset, or size if field is empty
}

func layout() []member {
	return []member{
		{"record_header", "", headerSize}, {"record_header", "kind", headerKind},
		{"record_header", "boottime_ns", headerBoottime}, {"record_header", "start_boottime_ns", headerStart},
		{"record_header", "parent_start_boottime_ns", headerParentStart}, {"record_header", "cgroup_id", headerCgroup},
		{"record_header", "effective_capabilities", headerCapabilities}, {"record_header", "tgid", headerTGID},
		{"record_header", "tid", headerTID}, {"record_header", "parent_tgid", headerParentTGID},
		{"record_header", "uid", headerUID}, {"record_header", "gid", headerGID},
		{"record_header", "effective_uid", headerEffectiveUID}, {"record_header", "effective_gid", headerEffectiveGID},
		{"record_header", "login_uid", headerLoginUID}, {"record_header", "mnt_ns", headerMountNS},
		{"record_header", "pid_ns", headerPIDNS}, {"record_header", "net_ns", headerNetNS},
		{"record_header", "user_ns", headerUserNS}, {"record_header", "comm", headerComm},
		{"file_facts", "", fileSize}, {"file_facts", "inode", fileInode}, {"file_facts", "device", fileDevice},
		{"file_facts", "mode", fileMode}, {"file_facts", "flags", fileFlags}, {"file_facts", "path_len", filePathLen},
		{"exec_record", "", execSize}, {"exec_record", "exe", execFile}, {"exec_record", "tty", execTTY},
		{"exec_record", "session", execSession}, {"exec_record", "group", execGroup},
		{"exec_record", "inner_pid", execInnerPID}, {"exec_record", "inner_group", execInnerPGID}, {"exec_record", "argv_bytes", execArgvBytes},
		{"exec_record", "argv_len", execArgvLen}, {"exec_record", "cwd_len", execCwdLen}, {"exec_record", "flags", execFlags},
		{"fork_record", "", forkSize}, {"fork_record", "child_start_boottime_ns", forkChildStart},
		{"fork_record", "child_cgroup_id", forkChildCgroup}, {"fork_record", "child_tgid", forkChildTGID},
		{"exit_record", "", exitSize}, {"exit_record", "wait_status", exitWaitStatus},
		{"file_open_record", "", fileOpenSize}, {"file_open_record", "file", fileOpenFile},
		{"file_open_record", "open_flags", fileOpenFlags}, {"file_open_record", "given_len", fileOpenGivenLen},
		{"file_open_record", "given_flags", fileOpenGivenFlags},
		{"file_times", "", timesSize}, {"file_times", "ctime_ns", timesCtime}, {"file_times", "mtime_ns", timesMtime},
		{"socket_record", "", socketSize}, {"socket_record", "family", socketFamily},
		{"socket_record", "protocol", socketProtocol}, {"socket_record", "local_port", socketLocalPort},
		{"socket_record", "remote_port", socketRemotePort}, {"socket_record", "local", socketLocal},
		{"socket_record", "remote", socketRemote}, {"socket_record", "flags", socketFlags},
		{"socket_record", "type", socketType}, {"socket_record", "unix_len", socketUnixLen},
		{"record_header", "result", headerResult}, {"record_header", "flags", headerFlags}, {"record_header", "guard", headerGuard},
		{"file_facts", "base_len", fileBaseLen},
		{"change_record", "", changeSize}, {"change_record", "file", changeFile}, {"change_record", "target", changeTarget},
		{"change_record", "size", changeBytes}, {"change_record", "change_flags", changeFlags}, {"change_record", "mode", changeMode},
		{"change_record", "uid", changeUID}, {"change_record", "gid", changeGID}, {"change_record", "text_len", changeTextLen},
		{"change_record", "fs_len", changeFSLen},
		{"memory_record", "", memorySize}, {"memory_record", "file", memoryFile}, {"memory_record", "memory_flags", memoryFlags},
		{"memory_record", "writable", memoryWritable}, {"memory_record", "name_len", memoryNameLen},
		{"duplicate_record", "", duplicateSize}, {"duplicate_record", "call", duplicateCall}, {"duplicate_record", "source", duplicateSource},
		{"dns_record", "", dnsSize}, {"dns_record", "family", dnsFamily}, {"dns_record", "local_port", dnsLocalPort},
		{"dns_record", "remote_port", dnsRemotePort}, {"dns_record", "message_len", dnsMessageLen},
		{"dns_record", "local", dnsLocal}, {"dns_record", "remote", dnsRemote}, {"dns_record", "whole_len", dnsWholeLen},
		{"dns_record", "protocol", dnsProtocol},
		{"signal_record", "", signalSize}, {"signal_record", "target_start_boottime_ns", signalTargetStart},
		{"signal_record", "target_tgid", signalTargetTGID}, {"signal_record", "number", signalNumber},
		{"privilege_record", "", privilegeSize}, {"privilege_record", "args", privilegeArgs},
		{"privilege_record", "target_start_boottime_ns", privilegeTargetStart}, {"privilege_record", "target_tgid", privilegeTargetTGID},
		{"privilege_record", "arg_count", privilegeArgCount}, {"privilege_record", "name_len", privilegeNameLen},
	}
}

func offsetOf(t *testing.T, types *btf.Spec, name, field string) int {
	t.Helper()
	var s *btf.Struct
	if err := types.TypeByName(name, &s); err != nil {
		t.Fatal(err)
	}
	if field == "" {
		return int(s.Size)
	}
	for _, m := range s.Members {
		if m.Name == field {
			return int(m.Offset.Bytes())
		}
	}
	t.Fatalf("no %s in struct %s", field, name)
	return 0
}
