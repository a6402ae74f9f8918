package kerneltest

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// prefixed is messages as they lie in a TCP stream (RFC 1035 4.2.2).
func prefixed(messages ...[]byte) []byte {
	var stream []byte
	for _, m := range messages {
		stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(m))), m...)
	}
	return stream
}

// answer has n addresses for a name.
func answer(t *testing.T, name string, n int) []byte {
	t.Helper()
	full := dnsmessage.MustNewName(name + ".")
	message := dnsmessage.Message{Header: dnsmessage.Header{ID: 77, Response: true},
		Questions: []dnsmessage.Question{{Name: full, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	for i := range n {
		message.Answers = append(message.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: full, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, byte(i)}},
		})
	}
	raw, err := message.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// askStream is the role that sends each of args[3:], which are in hexadecimal, as a segment to the address args[0], reads args[1]
// bytes of answers, and then sends args[2]. It leaves nothing in its socket that would be sent later.
func askStream(args []string) error {
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		return err
	}
	for _, segment := range args[3:] {
		if err := sendHex(conn, segment); err != nil {
			return err
		}
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, n)); err != nil {
		return err
	}
	return sendHex(conn, args[2])
}

func sendHex(conn net.Conn, segment string) error {
	raw, err := hex.DecodeString(segment)
	if err != nil || len(raw) == 0 {
		return err
	}
	_, err = conn.Write(raw)
	return err
}

// serveStreams takes one connection after the other: reads so many bytes, sends segments, and tells how much it got until the end.
func serveStreams(t *testing.T, address string, questions int, answers ...[]byte) (received <-chan int) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skipf("no IPv6 here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	counts := make(chan int, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := io.ReadFull(conn, make([]byte, questions))
			for _, segment := range answers {
				_, _ = conn.Write(segment)
			}
			rest, _ := io.Copy(io.Discard, conn) // a reset ends it as well
			_ = conn.Close()
			counts <- n + int(rest)
		}
	}()
	return counts
}

// told says in words what an event says of DNS over TCP; nothing if it is not about that.
func told(e *eventv1.Event, pid uint32) string {
	d := e.GetDns()
	if d.GetProtocol() != unix.IPPROTO_TCP || e.GetProcess().GetPid() != pid {
		return ""
	}
	words := []string{"question"}
	if d.GetResponse() {
		words[0] = "answer"
	}
	for _, q := range d.GetQuestions() {
		words = append(words, q.GetName())
	}
	if n := len(d.GetAnswers()); n > 0 {
		words = append(words, strconv.Itoa(n))
	}
	if d.GetTruncated() {
		words = append(words, "truncated")
	}
	if d.GetMalformed() {
		words = append(words, "malformed")
	}
	if e.GetGuard() != 0 {
		words = append(words, fmt.Sprint("guard ", e.GetGuard(), " ", e.GetResult()))
	}
	return strings.Join(words, " ")
}

func (w *watcher) toldStreams(pid uint32) (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if s := told(e, pid); s != "" {
			all = append(all, s)
		}
	}
	return all
}

// Over TCP the same is seen as over UDP, however the messages lie in segments; what is cut off says so.
func TestDNSOverTCP(t *testing.T) {
	a, b := question("a.example"), question("b.example")
	both := prefixed(a, b)
	one, many := answer(t, "a.example", 1), answer(t, "a.example", 100)
	pipelined := prefixed(slices.Repeat([][]byte{a}, 50)...)
	tests := []struct {
		name               string
		questions, answers [][]byte
		want               []string
	}{
		{"a question and its answer", [][]byte{prefixed(a)}, [][]byte{prefixed(one)},
			[]string{"question a.example", "answer a.example 1"}},
		{"pipelined", [][]byte{both}, [][]byte{prefixed(one, one)},
			[]string{"question a.example", "question b.example", "answer a.example 1", "answer a.example 1"}},
		{"fifty in one segment", [][]byte{pipelined}, nil, slices.Repeat([]string{"question a.example"}, 50)},
		{"length in a segment of its own", [][]byte{both[:2], both[2:]}, [][]byte{prefixed(one)[:2], one},
			[]string{"question a.example", "question b.example", "answer a.example 1"}},
		{"each octet of the length in one", [][]byte{both[:1], both[1:2], both[2:]}, nil, []string{"question a.example", "question b.example"}},
		{"an empty message", [][]byte{prefixed(nil, b)}, nil, []string{"question malformed", "question b.example"}},
		{"split in the name", [][]byte{both[:20], both[20:]}, nil, []string{"question truncated malformed", "question b.example"}},
		{"split into many", [][]byte{both[:20], both[20:22], both[22:24], both[24:]}, nil, []string{"question truncated malformed", "question b.example"}},
		{"split behind the question", [][]byte{prefixed(append(slices.Clip(a), 1, 2, 3))[:2+len(a)], {1, 2, 3}, prefixed(b)}, nil,
			[]string{"question a.example truncated", "question b.example"}},
		{"an answer longer than a record", [][]byte{prefixed(a)}, [][]byte{prefixed(many, one)},
			[]string{"question a.example", "answer a.example 62 truncated malformed", "answer a.example 1"}},
		{"an answer that is split", [][]byte{prefixed(a)}, [][]byte{prefixed(one, one)[:40], prefixed(one, one)[40:]},
			[]string{"question a.example", "answer a.example truncated malformed", "answer a.example 1"}},
		{"not DNS", [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, nil, []string{"question truncated malformed"}},
	}
	for _, tt := range tests {
		for _, address := range []string{nameServer, nameServer6} {
			t.Run(tt.name+" "+address, func(t *testing.T) {
				checkStream(t, address, tt.questions, tt.answers, tt.want)
			})
		}
	}
}

func checkStream(t *testing.T, address string, questions, answers [][]byte, want []string) {
	t.Helper()
	w := watch(t)
	sent, expected := len(slices.Concat(questions...)), len(slices.Concat(answers...))
	received := serveStreams(t, address, sent, answers...)
	last := "question last.example"
	args := []string{address, strconv.Itoa(expected), ""}
	if !strings.Contains(want[len(want)-1], "malformed") {
		args[2] = hex.EncodeToString(prefixed(question("last.example")))
		want = append(slices.Clone(want), last)
	}
	for _, segment := range questions {
		args = append(args, hex.EncodeToString(segment))
	}
	pid, _ := perform(t, "ask-stream", args...)
	if n := <-received; n < sent {
		t.Errorf("%d bytes arrived, want %d", n, sent)
	}
	w.await(t, want[len(want)-1], func(e *eventv1.Event) bool {
		return told(e, pid) == want[len(want)-1] && len(w.toldStreams(pid)) >= len(want)
	})
	if got := w.toldStreams(pid); !slices.Equal(got, want) {
		t.Errorf("events = %q\nwant %q", got, want)
	}
	lost := w.lost(t)
	if lost[record.DNSQuestion] != 0 || lost[record.DNSAnswer] != 0 {
		t.Errorf("%d questions and %d answers lost, want none", lost[record.DNSQuestion], lost[record.DNSAnswer])
	}
}

// More messages than are looked at in one segment are counted, and those of the next one are seen.
func TestDNSOverTCPCountsWhatItLeavesOut(t *testing.T) {
	w := watch(t)
	segment := prefixed(slices.Repeat([][]byte{question("a.example")}, 65)...)
	received := serveStreams(t, nameServer, len(segment))
	pid, _ := perform(t, "ask-stream", nameServer, "0", hex.EncodeToString(prefixed(question("last.example"))), hex.EncodeToString(segment))
	<-received
	w.await(t, "question in the next segment", func(e *eventv1.Event) bool { return told(e, pid) == "question last.example" })
	if got := len(w.toldStreams(pid)); got != 65 {
		t.Errorf("%d events, want 65", got)
	}
	if lost := w.lost(t)[record.DNSQuestion]; lost != 1 {
		t.Errorf("%d lost, want 1", lost)
	}
}

// A name that may not be looked up does not leave over TCP either, however it is cut.
func TestGuardsOnNamesOverTCP(t *testing.T) {
	bad, good := prefixed(question("a.bad.example")), prefixed(question("good.example"))
	const denied = -int64(unix.EPERM)
	pointer := prefixed(append(question("a.bad.example")[:18:18], 0xc0, 12, 0, 1, 0, 1))
	tests := []struct {
		name    string
		send    [][]byte
		arrives int
		want    string
	}{
		{"alone", [][]byte{bad}, 0, fmt.Sprint("question a.bad.example guard 41 ", denied)},
		{"behind another", [][]byte{slices.Concat(good, bad)}, 0, fmt.Sprint("question a.bad.example guard 41 ", denied)},
		{"after another", [][]byte{good, bad}, len(good), fmt.Sprint("question a.bad.example guard 41 ", denied)},
		{"behind its length", [][]byte{bad[:2], bad[2:]}, 2, fmt.Sprint("question a.bad.example guard 41 ", denied)},
		{"behind half of its length", [][]byte{bad[:1], bad[1:]}, 1, fmt.Sprint("question a.bad.example guard 41 ", denied)},
		{"split in the name", [][]byte{bad[:20], bad[20:]}, 0, fmt.Sprint("question truncated malformed guard ", cannotJudge, " ", denied)},
		{"split in the header", [][]byte{bad[:4], bad[4:]}, 0, fmt.Sprint("question truncated malformed guard ", cannotJudge, " ", denied)},
		{"more than are looked at", [][]byte{prefixed(slices.Repeat([][]byte{question("good.example")}, 65)...)}, 0,
			fmt.Sprint("question good.example guard ", cannotJudge, " ", denied)},
		{"allowed", [][]byte{good, good}, 2 * len(good), "question good.example"},
		{"allowed, split behind the name", [][]byte{good[:len(good)-2], good[len(good)-2:]}, len(good), "question truncated malformed"},
		{"a pointer", [][]byte{pointer}, len(pointer), fmt.Sprint("question malformed guard ", cannotJudge, " 0")},
	}
	w := watch(t)
	guarded, neighbour := newWorkload(t), newWorkload(t)
	exec := &collectorv1.Guard{Id: 42, CgroupId: neighbour.id, Subject: &collectorv1.Guard_ExecPrefix{ExecPrefix: "/nowhere/"}}
	w.guards(t, nameGuard(41, guarded.id, ".bad.example"), exec)
	for _, tt := range tests {
		for _, address := range []string{nameServer, nameServer6} {
			t.Run(tt.name+" "+address, func(t *testing.T) {
				received := serveStreams(t, address, 1<<20)
				args := []string{address, "0", ""}
				for _, segment := range tt.send {
					args = append(args, hex.EncodeToString(segment))
				}
				pid, _ := performIn(t, guarded.nested(t, 1), "ask-stream", args...)
				if got := <-received; got != tt.arrives {
					t.Errorf("%d bytes arrived, want %d", got, tt.arrives)
				}
				w.await(t, tt.want, func(e *eventv1.Event) bool { return told(e, pid) == tt.want })
				performIn(t, neighbour.directory, "ask-stream", args...) // which has a guard, but none of names
				if got, want := <-received, len(slices.Concat(tt.send...)); got != want {
					t.Errorf("%d bytes of the neighbour's arrived, want %d", got, want)
				}
			})
		}
	}
}
