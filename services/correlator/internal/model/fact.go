package model

import (
	"fmt"
	"strconv"
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/interest"
	"github.com/palisade-sec/palisade/services/correlator/internal/uapi"
)

// Family is a kind of fact. What is learned is bounded by family, and so is what is judged.
type Family uint8

// The families.
const (
	Programs Family = iota
	WrittenDirectories
	ListeningPorts
	OutboundPorts
	Domains
	Capabilities
	Syscalls

	numFamilies
)

// families says what each is called in files, what a finding of it is called, and how many facts are learned at most.
var families = [numFamilies]struct {
	name, rule, noun string
	limit            int
}{
	{"programs", "Unlearned program", "programs", 512},
	{"written_directories", "Unlearned written directory", "written directories", 512},
	{"listening_ports", "Unlearned listening port", "listening ports", 128},
	{"outbound_ports", "Unlearned outbound port", "outbound ports", 256},
	{"domains", "Unlearned domain", "domains", 512},
	{"capabilities", "Unlearned capability", "capabilities", 64},
	{"syscalls", "Unlearned system call", "system calls", 1024},
}

func (f Family) String() string { return families[f].name }

func familyNames() []string {
	names := make([]string, numFamilies)
	for f := range families {
		names[f] = families[f].name
	}
	return names
}

func familyNamed(name string) (Family, bool) {
	for f := range families {
		if families[f].name == name {
			return Family(f), true //nolint:gosec // below numFamilies
		}
	}
	return 0, false
}

// Kinds are the events that a model learns from. SyscallsUsed, which is no process's, comes besides.
const Kinds = field.KindExec | field.KindExisting | field.KindFileOpen | writes | field.KindListen | field.KindBind | field.KindConnect |
	field.KindSend | field.KindDNSQuestion | field.KindCapset

// writes are the kinds that give a directory a new name or a file another size.
const writes = field.KindRename | field.KindLink | field.KindSymlink | field.KindMkdir | field.KindMknod | field.KindTruncate

// Interest is what the kernel must record for models: their kinds, and of opened files those that are opened for writing.
func Interest() interest.Interest {
	var opens interest.Opens
	opens[interest.WriteOnly], opens[interest.ReadWrite] = interest.Everything(), interest.Everything()
	return interest.New(Kinds, opens, interest.Everybody())
}

// Origin is where a program's file came from.
type Origin uint8

// The origins. An image's files are those that no overlay's upper layer holds; those of a volume are taken for the image's, because
// the kernel's word is only on overlays.
const (
	FromImage Origin = iota
	FromUpperLayer
	FromMemory // a memfd, or a file without a name
)

// origins are their names in files.
var origins = [...]string{"image", "upper_layer", "memory"}

// Outside stands for a parent that is not the container's: its runtime, which starts the first process and those of an exec.
const Outside = "outside"

// Fact is one thing that an image does. Facts are equal if they are the same to a model.
type Fact struct {
	Family Family
	// Origin is a program's.
	Origin Origin
	// Number is protocol<<16|port, a capability's, or abi<<16|system call.
	Number uint32
	// Name is a program's path, a directory or a domain, generalised.
	Name string
	// Parent is the path of a program's parent, or Outside.
	Parent string
}

const (
	protocolTCP = 6
	protocolUDP = 17
	// ephemeral stands for all ports of the range that the kernel chooses from (net.ipv4.ip_local_port_range's default).
	ephemeral                     = 0xffff
	firstEphemeral, lastEphemeral = 32768, 60999
)

// portNumber is a port as a fact's number.
func portNumber(protocol, port uint32) uint32 {
	if port >= firstEphemeral && port <= lastEphemeral {
		port = ephemeral
	}
	return protocol<<16 | port&0xffff
}

func protocolName(number uint32) string {
	switch number {
	case protocolTCP:
		return "tcp"
	case protocolUDP:
		return "udp"
	}
	return strconv.FormatUint(uint64(number), 10)
}

func portName(number uint32) string {
	if number&0xffff == ephemeral {
		return "ephemeral"
	}
	return strconv.FormatUint(uint64(number&0xffff), 10)
}

// capabilityName is CAP_CHOWN for 0, and the number of one that we do not know.
func capabilityName(number uint32) string {
	for _, bit := range uapi.Capabilities {
		if number < 64 && bit.Mask == 1<<number {
			return bit.Name
		}
	}
	return strconv.FormatUint(uint64(number), 10)
}

func capabilityNumber(name string) (uint32, bool) {
	for number := range uint32(64) {
		if capabilityName(number) == name {
			return number, true
		}
	}
	return 0, false
}

// abis are the names of system call tables in files, by eventv1.Abi.
var abis = map[eventv1.Abi]string{eventv1.Abi_ABI_NATIVE: "native", eventv1.Abi_ABI_COMPAT_32: "compat32", eventv1.Abi_ABI_X32: "x32"}

// String is the fact for people. What a container chose is quoted if it could drive a terminal.
func (f Fact) String() string {
	switch f.Family {
	case Programs:
		return fmt.Sprintf("%s (from %s, parent %s)", printable(f.Name), origins[f.Origin], printable(f.Parent))
	case ListeningPorts, OutboundPorts:
		return protocolName(f.Number>>16) + "/" + portName(f.Number)
	case Capabilities:
		return capabilityName(f.Number)
	case Syscalls:
		return abis[eventv1.Abi(f.Number>>16)] + " " + strconv.FormatUint(uint64(f.Number&0xffff), 10) //nolint:gosec // an Abi was put there
	case WrittenDirectories, Domains, numFamilies:
	}
	return printable(f.Name)
}

// printable is the text itself, or quoted as Go does it if it has anything but printable characters.
func printable(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if quoted := strconv.Quote(text); len(quoted) != len(text)+2 || strings.ContainsRune(text, ' ') {
		return quoted
	}
	return text
}
