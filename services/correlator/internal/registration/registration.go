// Package registration tells the collector which cgroups are containers', so that the kernel knows whose a nested cgroup is. Data
// in: cgroups that the workload index binds and forgets. Data out: calls of the collector's WorkloadService.
package registration

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

const (
	// callTimeout bounds one call.
	callTimeout = 5 * time.Second
	// retryAfter is the pause after one that failed.
	retryAfter = time.Second
)

// Registrar keeps the collector's workloads those of the index. Its methods do not block.
type Registrar struct {
	client collectorv1.WorkloadServiceClient
	log    *slog.Logger
	wake   chan struct{} // has a value when there is something to tell

	mu    sync.Mutex
	epoch string          // guarded by mu, like all below
	bound map[uint64]bool // cgroups that are containers'
	news  map[uint64]bool // what the collector has not been told: that they are, or that they are no more
}

// New returns a registrar that calls the collector.
func New(collector grpc.ClientConnInterface, log *slog.Logger) *Registrar {
	return &Registrar{
		client: collectorv1.NewWorkloadServiceClient(collector), log: log, wake: make(chan struct{}, 1),
		bound: map[uint64]bool{}, news: map[uint64]bool{},
	}
}

// Bind says that a cgroup is a container's, or is no more.
func (r *Registrar) Bind(cgroup uint64, bound bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if bound {
		r.bound[cgroup] = true
	} else {
		delete(r.bound, cgroup)
	}
	r.news[cgroup] = bound
	r.notify()
}

// Rings says which rings events come from. What the collector was told is pinned with them, so new ones know nothing.
func (r *Registrar) Rings(epoch string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch == r.epoch {
		return
	}
	r.epoch = epoch
	for cgroup := range r.bound {
		r.news[cgroup] = true
	}
	r.notify()
}

// notify expects mu to be held.
func (r *Registrar) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run tells the collector until ctx ends; what it could not be told is tried again.
func (r *Registrar) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		}
		if err := r.tell(ctx); err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "Could not register workloads", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(retryAfter):
			}
		}
	}
}

// tell says all that is new, and takes it back if it cannot.
func (r *Registrar) tell(ctx context.Context) error {
	register, forget := r.take()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var err error
	if len(forget) > 0 {
		_, err = r.client.ForgetWorkloads(ctx, &collectorv1.ForgetWorkloadsRequest{CgroupIds: forget})
	}
	if err == nil && len(register) > 0 {
		_, err = r.client.RegisterWorkloads(ctx, &collectorv1.RegisterWorkloadsRequest{CgroupIds: register})
	}
	if err != nil {
		r.untold(append(register, forget...))
	}
	return err
}

func (r *Registrar) take() (register, forget []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for cgroup, bound := range r.news {
		if bound {
			register = append(register, cgroup)
		} else {
			forget = append(forget, cgroup)
		}
	}
	clear(r.news)
	return register, forget
}

// untold makes what is true of cgroups by now new again.
func (r *Registrar) untold(cgroups []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cgroup := range cgroups {
		r.news[cgroup] = r.bound[cgroup]
	}
	r.notify()
}
