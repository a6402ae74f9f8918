// Package passage keeps the book of containers that passed the runC shim, so that one which went around it can be told (threat B21).
//
// In: what the enforcer says, of containers and of where the shim stands. Out: whether a container is in the book, and since when it
// would have to be. It judges nobody: the pipeline does, which sees what runs.
package passage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/glob"
)

// Config is for the book.
type Config struct {
	// Wait is how long after a container's first program its registration may come.
	Wait time.Duration `yaml:"wait"`
	// Containers is how many the book has at most; the oldest goes, and the enforcer says so.
	Containers int `yaml:"containers"`
	// Except are patterns of runtimes whose containers need not pass: docker, podman, cri-o, or a namespace of containerd's; and of container ids.
	Except []string `yaml:"except"`
}

// DefaultConfig is fit for a node that starts some thousand containers a day.
func DefaultConfig() Config {
	return Config{Wait: 5 * time.Second, Containers: 8192, Except: []string{}}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if c.Wait < time.Second || c.Wait > 10*time.Minute {
		errs = append(errs, fmt.Errorf("shim.wait: %v is not from 1s to 10m", c.Wait))
	}
	if c.Containers < 8192 || c.Containers > 1<<20 { // the enforcer's book has 8192, and takes that for granted
		errs = append(errs, fmt.Errorf("shim.containers: %d is not from 8192 to %d", c.Containers, 1<<20))
	}
	return errors.Join(errs...)
}

// maxID bounds a container's id in bytes; runC's and the engines' are shorter.
const maxID = 1024

// Book is RegistrationService. It is safe for concurrent use.
type Book struct {
	correlatorv1.UnimplementedRegistrationServiceServer
	cfg      Config
	instance string

	mu      sync.Mutex
	order   []string                  // container ids, oldest first; guarded by mu, as all below
	passed  map[string]uint64         // by container id: the cgroup of its init process, 0 if it is not known
	cgroups map[uint64]string         // the other way round
	since   uint64                    // ns of CLOCK_BOOTTIME, 0 while the shim is not in force
	places  []*correlatorv1.ShimPlace // where it stands
}

// New returns an empty book.
func New(cfg Config) *Book {
	return &Book{cfg: cfg, instance: rand.Text(), passed: map[string]uint64{}, cgroups: map[uint64]string{}}
}

// Register adds the service to a server.
func (b *Book) Register(registrar grpc.ServiceRegistrar) {
	correlatorv1.RegisterRegistrationServiceServer(registrar, b)
}

// RegisterContainer takes a container into the book. One that was denied has not passed.
func (b *Book) RegisterContainer(_ context.Context, r *correlatorv1.RegisterContainerRequest) (*correlatorv1.RegisterContainerResponse, error) {
	id := r.GetContainerId()
	switch {
	case id == "" || len(id) > maxID:
		return nil, status.Errorf(codes.InvalidArgument, "container_id: want 1 to %d bytes", maxID)
	case r.GetEvent() != enforcerv1.AdmissionEvent_ADMISSION_EVENT_CREATE && r.GetEvent() != enforcerv1.AdmissionEvent_ADMISSION_EVENT_START:
		return nil, status.Errorf(codes.InvalidArgument, "event: %v is not known", r.GetEvent())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.GetVerdict() == enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY {
		return &correlatorv1.RegisterContainerResponse{}, nil
	}
	if _, known := b.passed[id]; !known {
		b.forget()
		b.order = append(b.order, id)
	}
	b.passed[id] = max(r.GetCgroupId(), b.passed[id])
	if cgroup := r.GetCgroupId(); cgroup != 0 {
		b.cgroups[cgroup] = id
	}
	return &correlatorv1.RegisterContainerResponse{}, nil
}

// forget makes room for one. b.mu is held.
func (b *Book) forget() {
	if len(b.order) < b.cfg.Containers {
		return
	}
	oldest := b.order[0]
	b.order = b.order[1:]
	delete(b.cgroups, b.passed[oldest])
	delete(b.passed, oldest)
}

// ReportShim takes in where the shim stands, unless another correlator than this one was told who is registered.
func (b *Book) ReportShim(_ context.Context, r *correlatorv1.ReportShimRequest) (*correlatorv1.ReportShimResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.GetInstance() == b.instance {
		b.since, b.places = r.GetSinceBoottimeNs(), r.GetPlaces()
	}
	return &correlatorv1.ReportShimResponse{Instance: b.instance}, nil
}

// Since is from when on containers have to be in the book, in ns of CLOCK_BOOTTIME; 0 if they do not.
func (b *Book) Since() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.since
}

// Wait is how long a container may stay unregistered.
func (b *Book) Wait() time.Duration { return b.cfg.Wait }

// Passed says whether a container is in the book, by its id or its first process's cgroup, or need not be.
func (b *Book) Passed(w *findingv1.Workload, cgroup uint64) bool {
	for _, pattern := range b.cfg.Except {
		if glob.Match(pattern, w.GetRuntime()) || w.GetContainerId() != "" && glob.Match(pattern, w.GetContainerId()) {
			return true
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, known := b.passed[w.GetContainerId()]
	_, here := b.cgroups[cgroup]
	return known || here
}

// Describe adds to a status.
func (b *Book) Describe(answer *processv1.GetStatusResponse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	state := "not in force: containers that go around it are not told"
	if b.since != 0 {
		state = fmt.Sprintf("in force, %d containers passed", len(b.order))
	}
	var open []string
	for _, place := range b.places {
		if !place.GetCovered() {
			open = append(open, fmt.Sprintf("%s (%s)", place.GetPath(), strings.Join(place.GetEngines(), ", ")))
		}
	}
	if b.since != 0 && len(open) > 0 {
		state += "; not at " + strings.Join(open, ", ")
	}
	answer.Facts = append(answer.Facts, &processv1.Fact{Name: "runC shim", Value: state})
}
