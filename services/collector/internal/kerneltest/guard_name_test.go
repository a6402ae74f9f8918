package kerneltest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/guard"
)

const (
	// nameServer6 is the only address of the loopback network that IPv6 has.
	nameServer6 = "[::1]:53"
	// cannotJudge is the number that stands for no guard (Event.guard).
	cannotJudge = 1<<32 - 1
)

func nameGuard(id uint32, cgroup uint64, name string) *collectorv1.Guard {
	return &collectorv1.Guard{Id: id, CgroupId: cgroup, Subject: &collectorv1.Guard_DnsName{DnsName: name}}
}

func (w *watcher) guards(t *testing.T, guards ...*collectorv1.Guard) {
	t.Helper()
	table := guard.NewTable(w.set.Guards())
	if _, err := table.Apply(guards); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := table.Apply(nil); err != nil {
			t.Error(err)
		}
	})
}

// question asks for a name, which may be any bytes with dots between its labels.
func question(name string) []byte {
	message := []byte{0, 77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0} // recursion is desired, one question
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		message = append(append(message, byte(len(label))), label...)
	}
	if name != "." {
		message = append(message, 0)
	}
	return append(message, 0, byte(dnsmessage.TypeA), 0, byte(dnsmessage.ClassINET))
}

// ask is the role that sends args[3] times the message args[2], which is in hexadecimal, to the address args[1]. args[0] is how: in a
// connected socket, in one that is not, or behind a header of options of IPv6. It prints how often that succeeded.
func ask(args []string) error {
	message, err := hex.DecodeString(args[2])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	send, err := sender(args[0], args[1])
	if err != nil {
		return err
	}
	through := 0
	for range n {
		switch err := send(message); {
		case err == nil:
			through++
		case !errors.Is(err, unix.EPERM):
			return err
		}
	}
	fmt.Println(through)
	return nil
}

func sender(how, to string) (func([]byte) error, error) {
	addr, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		return nil, err
	}
	if how == "unconnected" {
		conn, err := net.ListenUDP("udp", nil)
		return func(message []byte) error { _, err := conn.WriteToUDP(message, addr); return err }, err
	}
	conn, err := net.DialUDP("udp", nil, addr)
	if err != nil || how == "connected" {
		return func(message []byte) error { _, err := conn.Write(message); return err }, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		const padding = "\x00\x00\x01\x04\x00\x00\x00\x00" // RFC 8200 4.2
		failed = unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, padding)
	})
	return func(message []byte) error { _, err := conn.Write(message); return err }, errors.Join(err, failed)
}

// names is a server that only counts what arrives.
type names struct {
	conn *net.UDPConn
}

func serveNames(t *testing.T, address string) names {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Skipf("cannot serve names at %s: %v", address, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return names{conn: conn.(*net.UDPConn)}
}

// arrived counts what has come in, and waits until there is as much as has got through. Loopback delivers within the sender's call
// but for a machine so busy that ksoftirqd has to, and Go's deadlines say nothing of what is there once they have passed.
func (n names) arrived(t *testing.T, through int) (count int) {
	t.Helper()
	raw, err := n.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 2048)
	for end := time.Now().Add(patience); ; {
		var failed error
		err := raw.Control(func(fd uintptr) { _, _, failed = unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT) })
		switch {
		case err != nil || failed != nil && !errors.Is(failed, unix.EAGAIN):
			t.Fatal(errors.Join(err, failed))
		case failed == nil:
			count++
		case count >= through || time.Now().After(end):
			return count
		default:
			time.Sleep(time.Millisecond)
		}
	}
}

// long is a name of 253 bytes, the most there can be.
var long = strings.Repeat(strings.Repeat("l", 48)+".", 4) + strings.Repeat("s", 45) + ".bad.example"

// namesToAsk are messages and the guard that must stand in their way, 0 if none.
var namesToAsk = []struct {
	name    string
	message []byte
	guard   uint32
}{
	{"the name itself", question("evil.example"), 31},
	{"in capitals", question("EvIL.EXAMPLE"), 31},
	{"below a name that is denied alone", question("a.evil.example"), 0},
	{"one that ends like it", question("notevil.example"), 0},
	{"above", question("example"), 0},
	{"elsewhere", question("evil.example.org"), 0},
	{"the root", question("."), 0},
	{"with all below it, itself", question("bad.example"), 32},
	{"below", question("A.Bad.Example"), 32},
	{"far below", question(strings.Repeat("x.", 100) + "bad.example"), 32},
	{"as long as names can be", question(long), 32},
	{"its label is the end of another", question("worsebad.example"), 0},
	{"two questions", append(question("a.bad.example")[:29:29], question("evil.example")[12:]...), 32},
	{"a pointer", append(question("a.bad.example")[:18:18], 0xc0, 12, 0, 1, 0, 1), cannotJudge},
	{"ends within the name", question("evil.example")[:20], cannotJudge},
	{"longer than names can be", question("l." + long), cannotJudge},
}

func TestGuardsOnNames(t *testing.T) {
	w := watch(t)
	w.guards(t, nameGuard(31, 0, "Evil.example"), nameGuard(32, 0, ".bad.example."))
	server := serveNames(t, nameServer)
	for _, tt := range namesToAsk {
		t.Run(tt.name, func(t *testing.T) { w.checkQuestion(t, server, "connected", nameServer, tt.message, tt.guard) })
	}
	t.Run("not connected", func(t *testing.T) {
		w.checkQuestion(t, server, "unconnected", nameServer, question("a.bad.example"), 32)
	})
	t.Run("IPv6", func(t *testing.T) {
		w.checkQuestion(t, serveNames(t, nameServer6), "connected", nameServer6, question("a.bad.example"), 32)
	})
	t.Run("IPv6 with options", func(t *testing.T) {
		w.checkQuestion(t, serveNames(t, nameServer6), "with options", nameServer6, question("a.bad.example"), 32)
	})
	t.Run("IPv6 with options, allowed", func(t *testing.T) {
		w.checkQuestion(t, serveNames(t, nameServer6), "with options", nameServer6, question("good.example"), 0)
	})
}

// checkQuestion asks and looks at the three sides of it: what the asker is told, what arrives, what the event says.
func (w *watcher) checkQuestion(t *testing.T, server names, how, address string, message []byte, guard uint32) {
	t.Helper()
	denied := guard != 0 && guard != cannotJudge
	pid, through := perform(t, "ask", how, address, hex.EncodeToString(message), "1")
	least := 1
	if through == "0" {
		least = 0
	}
	if arrived := server.arrived(t, least); arrived != least || (through == "0") != denied {
		t.Errorf("%s of 1 got through, %d arrived, want denied = %v", through, arrived, denied)
	}
	event := w.await(t, "question", func(e *eventv1.Event) bool { return e.GetProcess().GetPid() == pid && classOf(e) == "dns_question" })
	if event.GetGuard() != guard || event.GetKilled() || event.GetResultKnown() != denied || denied != (event.GetResult() == -int64(unix.EPERM)) {
		t.Errorf("event = %v, want guard %d, denied = %v", event, guard, denied)
	}
	if urgent := event.GetRing() == 1; urgent != (guard != 0) {
		t.Errorf("event is on ring %d, want the urgent one only for what a guard is about", event.GetRing())
	}
}

// Nothing gets through, every denial is told or counted, and who is not guarded asks on; also in a nested cgroup.
func TestGuardsOnNamesHoldUnderManyTries(t *testing.T) {
	w := watch(t)
	guarded, neighbour := newWorkload(t), newWorkload(t)
	w.guards(t, nameGuard(33, guarded.id, ".bad.example"))
	server := serveNames(t, nameServer)
	message := hex.EncodeToString(question("exfiltrated.bad.example"))
	beside := w.startBeside(t, neighbour, "lookup", "")
	pid, through := performIn(t, guarded.nested(t, 1), "ask", "connected", nameServer, message, strconv.Itoa(tries()))
	beside.check(t)
	if through != "0" {
		t.Errorf("%s of %d got through", through, tries())
	}
	w.awaitDenials(t, "dns_question", func(e *eventv1.Event) bool { return e.GetProcess().GetPid() == pid && e.GetGuard() == 33 })
	if server.arrived(t, 1) == 0 {
		t.Error("nothing of the neighbour's arrived")
	}
}
