package record

import (
	"fmt"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// privileges are the kinds of record that a Privilege stands for.
var privileges = map[Kind]eventv1.PrivilegeOperation{
	Setuid:         eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_SETUID,
	Setgid:         eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_SETGID,
	Setgroups:      eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_SETGROUPS,
	Capset:         eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_CAPSET,
	Ptrace:         eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_PTRACE,
	ProcessVMRead:  eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_PROCESS_VM_READ,
	ProcessVMWrite: eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_PROCESS_VM_WRITE,
	Setns:          eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_SETNS,
	Unshare:        eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_UNSHARE,
	ModuleLoad:     eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_MODULE_LOAD,
	ModuleUnload:   eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_MODULE_UNLOAD,
	BPF:            eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_BPF,
	Keyctl:         eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_KEYCTL,
	Userfaultfd:    eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_USERFAULTFD,
	PerfEventOpen:  eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_PERF_EVENT_OPEN,
	IOUringSetup:   eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_IO_URING_SETUP,
}

func decodePrivilege(raw []byte, operation eventv1.PrivilegeOperation) (*eventv1.Event_Privilege, error) {
	if len(raw) < privilegeSize {
		return nil, fmt.Errorf("use of privilege of %d bytes: %w", len(raw), ErrShort)
	}
	name, _, err := take(raw[privilegeSize:], u32(raw, privilegeNameLen), "name")
	if err != nil {
		return nil, err
	}
	count := u32(raw, privilegeArgCount)
	if count > privilegeMaxArgs {
		return nil, fmt.Errorf("use of privilege with %d arguments: %w", count, ErrShort)
	}
	p := &eventv1.Privilege{Operation: operation, Name: text(name)}
	for i := range count {
		p.Arguments = append(p.Arguments, u64(raw, privilegeArgs+8*int(i)))
	}
	if pid := u32(raw, privilegeTargetTGID); pid != 0 {
		p.Target = &eventv1.ProcessKey{Pid: pid, StartBoottimeNs: u64(raw, privilegeTargetStart)}
	}
	return &eventv1.Event_Privilege{Privilege: p}, nil
}

func decodeIOUring(raw []byte) (*eventv1.Event_IoUring, error) {
	if len(raw) < privilegeSize {
		return nil, fmt.Errorf("io_uring operation of %d bytes: %w", len(raw), ErrShort)
	}
	return &eventv1.Event_IoUring{IoUring: &eventv1.IoUring{Opcode: u32(raw, privilegeArgs)}}, nil
}

func decodeSignal(raw []byte) (*eventv1.Event_Signal, error) {
	if len(raw) < signalSize {
		return nil, fmt.Errorf("signal of %d bytes: %w", len(raw), ErrShort)
	}
	target := &eventv1.ProcessKey{Pid: u32(raw, signalTargetTGID), StartBoottimeNs: u64(raw, signalTargetStart)}
	return &eventv1.Event_Signal{Signal: &eventv1.Signal{Number: u32(raw, signalNumber), Target: target}}, nil
}
