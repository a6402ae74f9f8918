package outbox

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
)

// The peers.
const (
	uplink     = "uplink"
	correlator = "correlator"
)

// pushFindings sends what waits. The uplink knows a finding that it has by its id, so one may be sent again.
func (o *Outbox) pushFindings(ctx context.Context) error {
	for {
		o.mu.Lock()
		some := append([]*findingv1.Finding(nil), o.findings[:min(len(o.findings), batch)]...)
		o.mu.Unlock()
		if len(some) == 0 {
			return nil
		}
		call, cancel := context.WithTimeout(ctx, callTime)
		_, err := o.uplink.PushFindings(call, &uplinkv1.PushFindingsRequest{Findings: some})
		cancel()
		o.note(ctx, uplink, err)
		if err != nil {
			return err
		}
		o.sent(some[len(some)-1])
	}
}

// sent takes the findings up to this one out. It may be gone by itself: dropped for a newer one.
func (o *Outbox) sent(last *findingv1.Finding) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n, finding := range o.findings {
		if finding == last {
			clear(o.findings[:n+1])
			o.findings = o.findings[n+1:]
			return
		}
	}
}

// pushRegistrations sends what the correlator has not been told.
func (o *Outbox) pushRegistrations(ctx context.Context) error {
	for {
		o.mu.Lock()
		some := o.book.next(batch)
		o.mu.Unlock()
		if len(some) == 0 {
			return nil
		}
		for _, e := range some {
			call, cancel := context.WithTimeout(ctx, callTime)
			_, err := o.correlator.RegisterContainer(call, e.registration)
			cancel()
			o.note(ctx, correlator, err)
			if err != nil {
				return err
			}
			o.told(e)
		}
	}
}

// told moves the mark behind an entry. The book may have moved meanwhile.
func (o *Outbox) told(e entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.book.told < len(o.book.entries) && o.book.entries[o.book.told].registration == e.registration {
		o.book.told++
	}
}

// reportShim says where the shim stands, once all registrations are told.
func (o *Outbox) reportShim(ctx context.Context) error {
	o.mu.Lock()
	request := &correlatorv1.ReportShimRequest{Places: o.shim.places, Instance: o.instance}
	if o.shim.since != 0 {
		request.SinceBoottimeNs = max(o.shim.since, o.book.floor)
	}
	o.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	answer, err := o.correlator.ReportShim(call, request)
	o.note(ctx, correlator, err)
	if err != nil {
		return err
	}
	return o.meet(answer.GetInstance())
}

// errStranger says that a correlator has not been told what another one was.
var errStranger = errors.New("the correlator has begun anew")

// meet begins anew with a correlator that does.
func (o *Outbox) meet(instance string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if instance == o.instance {
		return nil
	}
	o.instance, o.book.told = instance, 0
	return errStranger
}

// note keeps the outcome of a call.
func (o *Outbox) note(ctx context.Context, peer string, err error) {
	if ctx.Err() != nil {
		return
	}
	o.mu.Lock()
	before := o.errs[peer]
	o.errs[peer] = err
	o.mu.Unlock()
	switch {
	case err != nil && before == nil:
		o.log.WarnContext(ctx, "Lost a peer", "peer", peer, "err", err)
	case err == nil && before != nil:
		o.log.InfoContext(ctx, "Reached a peer again", "peer", peer)
	}
}

// boottime is the kernel's clock that goes on while the machine sleeps.
func boottime() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano()) //nolint:gosec // never negative
}
