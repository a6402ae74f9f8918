// Package admit answers the runC shim: may this container be created.
//
// In: a question on a unix socket, from root alone, in the form of docs/adr/0015: a protobuf message behind its length. Out: the answer in
// the same form, and word to everybody who has to know: the audit log, the uplink, the correlator. Package admission decides; here is
// found out what it is to know. The shim waits for nobody longer than a moment: what is not known by then is unknown.
package admit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

const (
	// SocketName is the socket's in the directory of sockets, as a process's name would be.
	SocketName = "enforcer-admission"

	// conversationTime bounds a question and its answer. The shim waits for less.
	conversationTime = 250 * time.Millisecond
	// answerTime is of it what the answer may take to find. The shim gives up after 150 ms.
	answerTime = 120 * time.Millisecond
	// maxConversations may run at once. An engine that starts a node's containers after a boot asks for a few at a time.
	maxConversations = 128
	// maxQuestion bounds a question in bytes. A configuration is about 20 KiB; one above 4 MiB no check looks at.
	maxQuestion = 5 << 20
	// maxBytes is what all questions that are being answered may have.
	maxBytes = 8 << 20
	// minCharge is what a small one counts for: to answer takes memory, too.
	minCharge = 64 << 10
	// lengthBytes come before a message: its length, big-endian.
	lengthBytes = 4
)

// answerer finds answers.
type answerer interface {
	// answer is never nil. told is called once the shim has the answer, or with the reason why it does not.
	answer(ctx context.Context, question *enforcerv1.AdmissionRequest, shim unixsock.Peer) (response *enforcerv1.AdmissionResponse, told func(error))
}

// server speaks with shims.
type server struct {
	answerer answerer
	log      *slog.Logger
	metrics  *metrics
	bytes    *semaphore.Weighted
	slots    *semaphore.Weighted
}

func newServer(a answerer, m *metrics, log *slog.Logger) *server {
	return &server{answerer: a, metrics: m, log: log, bytes: semaphore.NewWeighted(maxBytes), slots: semaphore.NewWeighted(maxConversations)}
}

// run serves until ctx ends or the listener fails.
func (s *server) run(ctx context.Context, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	var conversations sync.WaitGroup
	defer conversations.Wait()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("accept a shim: %w", err)
		}
		if !s.slots.TryAcquire(1) {
			s.metrics.turnedAway.Inc()
			_ = conn.Close() // the shim then goes its own way
			continue
		}
		conversations.Go(func() {
			defer s.slots.Release(1)
			defer conn.Close()
			ctx, cancel := context.WithTimeout(ctx, conversationTime)
			defer cancel()
			if err := s.converse(ctx, conn); err != nil {
				s.metrics.failed.Inc()
				s.log.WarnContext(ctx, "A shim got no answer", "err", err)
			}
		})
	}
}

// converse takes one question and answers it.
func (s *server) converse(ctx context.Context, conn net.Conn) error {
	peer, err := unixsock.PeerOf(conn)
	if err != nil {
		return err
	}
	if peer.UID != 0 {
		return fmt.Errorf("uid %d asked: only root may", peer.UID)
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	question, release, err := s.read(ctx, conn)
	defer release()
	if err != nil {
		return err
	}
	response, told := s.ask(ctx, question, peer)
	err = writeMessage(conn, response)
	told(err)
	return err
}

// ask bounds the search, not what is done with its result.
func (s *server) ask(ctx context.Context, question *enforcerv1.AdmissionRequest, peer unixsock.Peer) (*enforcerv1.AdmissionResponse, func(error)) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return s.answerer.answer(ctx, question, peer)
}

// read reads a question once there is room for it. release gives the room back.
func (s *server) read(ctx context.Context, from io.Reader) (question *enforcerv1.AdmissionRequest, release func(), err error) {
	release = func() {}
	length, err := readLength(from)
	if err != nil {
		return nil, release, err
	}
	charge := int64(max(length, minCharge))
	if err := s.bytes.Acquire(ctx, charge); err != nil {
		return nil, release, errors.New("too many large questions at once")
	}
	release = func() { s.bytes.Release(charge) }
	raw := make([]byte, length)
	if _, err := io.ReadFull(from, raw); err != nil {
		return nil, release, fmt.Errorf("read a question: %w", err)
	}
	question = &enforcerv1.AdmissionRequest{}
	if err := proto.Unmarshal(raw, question); err != nil {
		return nil, release, fmt.Errorf("read a question: %w", err)
	}
	return question, release, nil
}

// readLength is that of the message that follows, in bytes.
func readLength(from io.Reader) (int, error) {
	var prefix [lengthBytes]byte
	if _, err := io.ReadFull(from, prefix[:]); err != nil {
		return 0, fmt.Errorf("read a question: %w", err)
	}
	length := binary.BigEndian.Uint32(prefix[:])
	if length > maxQuestion {
		return 0, fmt.Errorf("read a question: %d bytes, at most %d", length, maxQuestion)
	}
	return int(length), nil
}

func writeMessage(to io.Writer, message proto.Message) error {
	out, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, lengthBytes), message)
	if err != nil {
		return fmt.Errorf("write an answer: %w", err)
	}
	binary.BigEndian.PutUint32(out, uint32(len(out)-lengthBytes)) //nolint:gosec // a text of a few KiB
	if _, err := to.Write(out); err != nil {
		return fmt.Errorf("write an answer: %w", err)
	}
	return nil
}
