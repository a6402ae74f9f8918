package decode

import eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"

// Each kind of event is one allocation, with the files, addresses and processes that most events of the kind have.
type (
	executed struct {
		exec eventv1.Event_Exec
		what eventv1.Exec
		exe  eventv1.File
	}
	existing struct {
		existing eventv1.Event_Existing
		what     eventv1.Exec
		exe      eventv1.File
	}
	forked struct {
		fork  eventv1.Event_Fork
		what  eventv1.Fork
		child eventv1.ProcessKey
	}
	exited struct {
		exit eventv1.Event_Exit
		what eventv1.Exit
	}
	opened struct {
		open eventv1.Event_FileOpen
		what eventv1.FileOpen
		file eventv1.File
	}
	changed struct {
		change eventv1.Event_FileChange
		what   eventv1.FileChange
		file   eventv1.File
	}
	mapped struct {
		memory eventv1.Event_Memory
		what   eventv1.Memory
		file   eventv1.File
	}
	connected struct {
		connect       eventv1.Event_Connect
		what          eventv1.Connect
		local, remote eventv1.SocketAddress
	}
	used struct {
		socket  eventv1.Event_Socket
		what    eventv1.Socket
		address eventv1.SocketAddress
	}
)

// kind takes in what happened. Field is body with its tag. What comes a second time adds to the first, and is the generated decoder's.
func kind(tag uint64, field, body []byte, e *eventv1.Event) error {
	if e.GetKind() != nil {
		return e.UnmarshalVT(field)
	}
	switch tag {
	case eventExec:
		k := &executed{}
		k.exec.Exec, e.Kind = &k.what, &k.exec
		return program(body, &k.what, &k.exe)
	case eventExisting:
		k := &existing{}
		k.existing.Existing, e.Kind = &k.what, &k.existing
		return program(body, &k.what, &k.exe)
	case eventFork:
		k := &forked{}
		k.fork.Fork, e.Kind = &k.what, &k.fork
		return fork(body, k)
	case eventExit:
		k := &exited{}
		k.exit.Exit, e.Kind = &k.what, &k.exit
		return k.what.UnmarshalVT(body)
	case eventFileOpen:
		k := &opened{}
		k.open.FileOpen, e.Kind = &k.what, &k.open
		return open(body, k)
	case eventFileChange:
		k := &changed{}
		k.change.FileChange, e.Kind = &k.what, &k.change
		return change(body, k)
	case eventMemory:
		k := &mapped{}
		k.memory.Memory, e.Kind = &k.what, &k.memory
		return memory(body, k)
	case eventConnect:
		k := &connected{}
		k.connect.Connect, e.Kind = &k.what, &k.connect
		return connect(body, k)
	case eventSocket:
		k := &used{}
		k.socket.Socket, e.Kind = &k.what, &k.socket
		return socket(body, k)
	}
	return e.UnmarshalVT(field)
}

// Fields of the kinds.
const (
	execExe         = 1<<3 | bytesType
	execArgv        = 2<<3 | bytesType
	execCwd         = 5<<3 | bytesType
	execScript      = 9<<3 | bytesType
	execInterpreter = 10<<3 | bytesType
	forkChild       = 1<<3 | bytesType
	forkCgroup      = 2<<3 | varintType
	openFile        = 1<<3 | bytesType
	openFlags       = 2<<3 | varintType
	changeOperation = 1<<3 | varintType
	changeFile      = 2<<3 | bytesType
	memoryOperation = 1<<3 | varintType
	memoryFile      = 2<<3 | bytesType
	memoryFlags     = 3<<3 | varintType
	connectLocal    = 3<<3 | bytesType
	connectRemote   = 4<<3 | bytesType
	socketAddress   = 5<<3 | bytesType
)

// program reads an exec. All its text is one string: whoever keeps a part of it keeps the whole.
func program(raw []byte, m *eventv1.Exec, exe *eventv1.File) error {
	text := string(raw)
	if n := count(raw, execArgv); n > 0 {
		m.Argv = make([]string, 0, n)
	}
	return each(raw, m, func(tag, _ uint64, from, behind int) (bool, error) {
		switch tag {
		case execExe:
			m.Exe = exe
			return true, file(raw[from:behind], text[from:behind], exe)
		case execArgv:
			m.Argv = append(m.Argv, text[from:behind])
		case execCwd:
			m.Cwd = text[from:behind]
		case execScript:
			if m.Script == nil {
				m.Script = &eventv1.File{}
			}
			return true, file(raw[from:behind], text[from:behind], m.GetScript())
		case execInterpreter:
			m.Interpreter = text[from:behind]
		default:
			return false, nil
		}
		return true, nil
	})
}

func fork(raw []byte, k *forked) error {
	return each(raw, &k.what, func(tag, n uint64, from, behind int) (bool, error) {
		switch tag {
		case forkChild:
			k.what.Child = &k.child
			return true, key(raw[from:behind], &k.child)
		case forkCgroup:
			k.what.ChildCgroupId = n
			return true, nil
		}
		return false, nil
	})
}

func open(raw []byte, k *opened) error {
	return each(raw, &k.what, func(tag, n uint64, from, behind int) (bool, error) {
		switch tag {
		case openFile:
			k.what.File = &k.file
			return true, file(raw[from:behind], "", &k.file)
		case openFlags:
			k.what.Flags = uint32(n) //nolint:gosec // cut to the field's size, as the generated decoder does
			return true, nil
		}
		return false, nil
	})
}

func change(raw []byte, k *changed) error {
	return each(raw, &k.what, func(tag, n uint64, from, behind int) (bool, error) {
		switch tag {
		case changeOperation:
			k.what.Operation = eventv1.FileOperation(n) //nolint:gosec // as above
			return true, nil
		case changeFile:
			k.what.File = &k.file
			return true, file(raw[from:behind], "", &k.file)
		}
		return false, nil
	})
}

func memory(raw []byte, k *mapped) error {
	return each(raw, &k.what, func(tag, n uint64, from, behind int) (bool, error) {
		switch tag {
		case memoryOperation:
			k.what.Operation = eventv1.MemoryOperation(n) //nolint:gosec // as above
			return true, nil
		case memoryFile:
			k.what.File = &k.file
			return true, file(raw[from:behind], "", &k.file)
		case memoryFlags:
			k.what.Flags = uint32(n) //nolint:gosec // as above
			return true, nil
		}
		return false, nil
	})
}

func connect(raw []byte, k *connected) error {
	return each(raw, &k.what, func(tag, _ uint64, from, behind int) (bool, error) {
		switch tag {
		case connectLocal:
			k.what.Local = &k.local
			return true, k.local.UnmarshalVT(raw[from:behind])
		case connectRemote:
			k.what.Remote = &k.remote
			return true, k.remote.UnmarshalVT(raw[from:behind])
		}
		return false, nil
	})
}

func socket(raw []byte, k *used) error {
	return each(raw, &k.what, func(tag, _ uint64, from, behind int) (bool, error) {
		if tag != socketAddress {
			return false, nil
		}
		k.what.Address = &k.address
		return true, k.address.UnmarshalVT(raw[from:behind])
	})
}

// Fields of a file.
const (
	filePath       = 1<<3 | bytesType
	filePathSource = 2<<3 | varintType
	fileDevice     = 4<<3 | varintType
	fileInode      = 5<<3 | varintType
	fileMode       = 6<<3 | varintType
	fileUpperLayer = 9<<3 | varintType
)

// file reads one. Text is raw as a string that the path is to be a part of; if it is empty, the path is a string of its own.
func file(raw []byte, text string, m *eventv1.File) error {
	return each(raw, m, func(tag, n uint64, from, behind int) (bool, error) {
		switch tag {
		case filePath:
			if text == "" {
				m.Path = string(raw[from:behind])
			} else {
				m.Path = text[from:behind]
			}
		case filePathSource:
			m.PathSource = eventv1.PathSource(n) //nolint:gosec // as above
		case fileDevice:
			m.Device = uint32(n) //nolint:gosec // as above
		case fileInode:
			m.Inode = n
		case fileMode:
			m.Mode = uint32(n) //nolint:gosec // as above
		case fileUpperLayer:
			m.UpperLayer = n != 0
		default:
			return false, nil
		}
		return true, nil
	})
}
