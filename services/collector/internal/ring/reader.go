// Package ring moves records from the kernel's rings to the stream. In: the rings' maps and the counters of what is
// missing. Out: batches of events, in the order in which they happened, and Loss events. It reads only as fast as the stream
// takes, and gives a record's place back when the subscriber has acknowledged it: the kernel's rings are the queue, and
// outlive this process.
package ring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

const (
	maxBatch = 512
	// maxBatchBytes keeps a flood of execs with 32 KiB of arguments from making a batch that is large beside the memory
	// the stream may use.
	maxBatchBytes = 256 << 10
	// pause between looks at rings that ran dry.
	pause = time.Millisecond
	// linger is how long after the last record we go on looking, before we ask to be woken up.
	linger = 20 * time.Millisecond
	// oversleep is how long a record may wait whose writer had not seen yet that we sleep.
	oversleep = 50 * time.Millisecond
	// unheard is how long we sleep while records wait for their acknowledgement: the kernel wakes nobody for a
	// new one as long as an older one keeps its place.
	unheard = 4 * time.Millisecond
)

// Publish takes a batch; it blocks until there is room for it or ctx ends. done is called once, when the subscriber has
// acknowledged the batch, and must not block.
type Publish func(ctx context.Context, events []*eventv1.Event, done func()) error

// Counts says how many records were read.
type Counts struct {
	// ByKind counts decoded records.
	ByKind [record.Kinds]uint64
	// Malformed counts records that could not be decoded: a bug, either side.
	Malformed uint64
	// Own counts those of the self-test, which are told to nobody.
	Own uint64
}

// Own is what the collector did itself, in its self-test: nobody's business, and some of it would look like an attack.
type Own struct {
	// Processes by pid, and the time, since boot, in which all that they did was the self-test.
	Processes map[uint32]bool
	From, To  uint64
}

func (o Own) has(e *eventv1.Event) bool {
	at := e.GetBoottimeNs()
	return at <= o.To && at >= o.From && o.Processes[e.GetProcess().GetPid()]
}

// Source is where the rings are. *probe.Set is one.
type Source interface {
	Urgent() *ebpf.Map
	Bulk() *ebpf.Map
	// SetAwake says that the kernel need not wake us up.
	SetAwake(awake bool) error
	Keep
}

// Reader reads the rings.
type Reader struct {
	urgent, bulk *ring
	setAwake     func(bool) error
	poll, wake   int       // an epoll descriptor for both rings and the wake-up, and an eventfd
	last         time.Time // when a record was read
	decoder      record.Decoder
	publish      Publish
	leftBehind   map[uint32]probe.Progress // by ring
	failed       atomic.Pointer[error]     // of giving back, which happens in others' calls
	read         [record.Kinds]atomic.Uint64
	malformed    atomic.Uint64
	own          Own
	ownRead      atomic.Uint64
}

// NewReader maps the rings.
func NewReader(source Source, decoder record.Decoder, publish Publish) (r *Reader, err error) {
	r = &Reader{decoder: decoder, publish: publish, setAwake: source.SetAwake, poll: -1, wake: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
			r = nil
		}
	}()
	var urgentLeft, bulkLeft probe.Progress
	if r.urgent, urgentLeft, err = openRing(probe.UrgentRing, source.Urgent(), source); err != nil {
		return r, err
	}
	if r.bulk, bulkLeft, err = openRing(probe.BulkRing, source.Bulk(), source); err != nil {
		return r, err
	}
	r.leftBehind = map[uint32]probe.Progress{probe.UrgentRing: urgentLeft, probe.BulkRing: bulkLeft}
	if r.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return r, fmt.Errorf("open epoll: %w", err)
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return r, fmt.Errorf("open eventfd: %w", err)
	}
	for _, fd := range []int{source.Urgent().FD(), source.Bulk().FD(), r.wake} {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)} //nolint:gosec // a descriptor
		if err = unix.EpollCtl(r.poll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return r, fmt.Errorf("watch ring: %w", err)
		}
	}
	return r, nil
}

// settle is for who has kept what leftBehind says.
func (r *Reader) settle() error { return errors.Join(r.urgent.settle(), r.bulk.settle()) }

// LeaveOut makes the reader tell nobody of these. Run must not have begun.
func (r *Reader) LeaveOut(own Own) { r.own = own }

// Close unmaps the rings. Run must have returned.
func (r *Reader) Close() error {
	var errs []error
	for _, ring := range []*ring{r.urgent, r.bulk} {
		if ring != nil {
			errs = append(errs, ring.close())
		}
	}
	for _, fd := range []*int{&r.poll, &r.wake} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// Counts may be called at any time.
func (r *Reader) Counts() Counts {
	c := Counts{Malformed: r.malformed.Load(), Own: r.ownRead.Load()}
	for kind := range c.ByKind {
		c.ByKind[kind] = r.read[kind].Load()
	}
	return c
}

// Waiting is how many bytes of each ring are taken. It may be called at any time.
func (r *Reader) Waiting() (urgent, bulk uint64) { return r.urgent.waiting(), r.bulk.waiting() }

// Run reads until ctx ends.
func (r *Reader) Run(ctx context.Context) error {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		r.wakeUp()
	})
	defer func() {
		if !stop() {
			<-woken // Close must not take the eventfd away under it
		}
	}()
	defer func() { _ = r.setAwake(false) }() // who reads next says so itself
	for ctx.Err() == nil {
		events := r.batch()
		if len(events) == 0 {
			if err := r.wait(); err != nil {
				return err
			}
			continue
		}
		r.last = time.Now()
		if err := r.publish(ctx, events, r.doneAt(r.urgent.unread, r.bulk.unread)); err != nil {
			return err
		}
		if err := errors.Join(r.urgent.relieve(), r.bulk.relieve()); err != nil {
			return err
		}
		if err := r.failed.Load(); err != nil {
			return *err
		}
	}
	return ctx.Err()
}

// doneAt gives back what lies before two places.
func (r *Reader) doneAt(urgent, bulk place) func() {
	return func() {
		if err := errors.Join(r.urgent.acknowledge(urgent), r.bulk.acknowledge(bulk)); err != nil {
			r.failed.Store(&err)
		}
	}
}

func (r *Reader) wakeUp() {
	_, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // fails only if it is full, and so awake
}

// batch takes what is there, up to a full batch. Whatever led to a bulk record was on the urgent ring before it, so
// the urgent ring is emptied before and after: sorted by time, a process is never seen to act before it is seen to exist.
func (r *Reader) batch() []*eventv1.Event {
	var events []*eventv1.Event
	take := func(id uint32) func([]byte, uint64) {
		return func(sample []byte, position uint64) { events = r.decode(events, sample, id, position) }
	}
	if n, bytes := r.urgent.read(maxBatch, maxBatchBytes, take(probe.UrgentRing)); n < maxBatch && bytes < maxBatchBytes {
		r.bulk.read(maxBatch, maxBatchBytes, take(probe.BulkRing))
		r.urgent.read(math.MaxInt, maxBatchBytes, take(probe.UrgentRing)) // what came meanwhile
	}
	slices.SortStableFunc(events, func(a, b *eventv1.Event) int { return cmp.Compare(a.GetBoottimeNs(), b.GetBoottimeNs()) })
	return events
}

func (r *Reader) decode(events []*eventv1.Event, sample []byte, id uint32, position uint64) []*eventv1.Event {
	event, kind, err := r.decoder.Decode(sample)
	if err != nil {
		r.malformed.Add(1)
		return events
	}
	if r.own.has(event) {
		r.ownRead.Add(1)
		return events
	}
	r.read[kind].Add(1)
	event.Ring, event.Position = id, position
	return append(events, event)
}

// wait returns when there may be something to read, or somebody wakes us.
func (r *Reader) wait() error {
	if !r.urgent.dry() || !r.bulk.dry() {
		time.Sleep(unheard)
		return nil
	}
	if time.Since(r.last) > linger {
		if err := r.sleep(); err != nil {
			return err
		}
	}
	time.Sleep(pause)
	return nil
}

// sleep returns when the kernel or somebody else wakes us up.
func (r *Reader) sleep() error {
	if err := r.setAwake(false); err != nil {
		return err
	}
	if r.urgent.dry() && r.bulk.dry() { // still, now that we are no longer taken to be awake
		var events [3]unix.EpollEvent
		_, err := unix.EpollWait(r.poll, events[:], int(oversleep.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for records: %w", err)
		}
	}
	return r.setAwake(true)
}
