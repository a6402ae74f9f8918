// Package container asks the container runtimes, through the gate, which containers run. Data in: lists and events of
// containerd, of CRI-O, and of Docker and Podman; data out: workload.Update, one container once. It is the only package of the
// correlator that knows runtimes' APIs, and it can only read: the gate forwards nothing else.
package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// Config says how to ask.
type Config struct {
	// Timeout bounds one call.
	Timeout time.Duration `yaml:"timeout"`
	// Relist is how often everything is listed anew, whatever the events said.
	Relist time.Duration `yaml:"relist"`
	// Poll is how often a runtime is listed that has no events.
	Poll time.Duration `yaml:"poll"`
	// AskInterval is the least time between two lists that were asked for.
	AskInterval time.Duration `yaml:"ask_interval"`
}

// DefaultConfig asks at most 20 times a second.
func DefaultConfig() Config {
	return Config{Timeout: 5 * time.Second, Relist: 30 * time.Second, Poll: time.Second, AskInterval: 50 * time.Millisecond}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	for key, value := range map[string]time.Duration{
		"gate.timeout": c.Timeout, "gate.relist": c.Relist, "gate.poll": c.Poll, "gate.ask_interval": c.AskInterval,
	} {
		if value <= 0 {
			errs = append(errs, fmt.Errorf("%s: %v is not positive", key, value))
		}
	}
	return errors.Join(errs...)
}

// Watcher follows one containerd.
type Watcher struct {
	cfg     Config
	client  *client.Client
	updates chan workload.Update
	asked   chan struct{}
	// known caches descriptions. A container's image and labels are read once, when it first appears: what its tag
	// means later says nothing about it.
	known  map[workload.Ref]known // guarded by mu: a list and an event may describe at once
	mu     sync.Mutex
	health health
}

// known is a description and when it was made.
type known struct {
	workload *findingv1.Workload
	since    time.Time
}

// errNotYet is the state before the first answer.
var errNotYet = errors.New("not connected yet")

// New returns a watcher that speaks over a connection to the gate. It keeps the connection open.
func New(cfg Config, conn *grpc.ClientConn, log *slog.Logger) (*Watcher, error) {
	c, err := client.NewWithConn(conn)
	if err != nil {
		return nil, fmt.Errorf("containerd client: %w", err)
	}
	return &Watcher{
		cfg: cfg, client: c, updates: make(chan workload.Update), asked: make(chan struct{}, 1),
		known: map[workload.Ref]known{}, health: health{runtime: "containerd", log: log, err: errNotYet},
	}, nil
}

// Updates is where news arrives. It is never closed.
func (w *Watcher) Updates() <-chan workload.Update { return w.updates }

// Ask wants a list soon. It does not block; several asks before an answer are one.
func (w *Watcher) Ask() {
	select {
	case w.asked <- struct{}{}:
	default:
	}
}

// Err is why containerd is not followed at the moment, nil if it is. Safe for concurrent use.
func (w *Watcher) Err() error {
	err, _ := w.health.get()
	return err
}

// send hands an update over, or gives up with ctx.
func (w *Watcher) send(ctx context.Context, u workload.Update) error {
	select {
	case w.updates <- u:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// list asks for every task of every namespace. It fails if one namespace does not answer: a list is complete, or none.
func (w *Watcher) list(ctx context.Context) ([]workload.Task, error) {
	call, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	names, err := w.client.NamespaceService().List(call)
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var all []workload.Task
	for _, name := range names {
		tasks, err := w.listNamespace(namespaces.WithNamespace(call, name), name)
		if err != nil {
			return nil, fmt.Errorf("list namespace %s: %w", name, err)
		}
		all = append(all, tasks...)
	}
	return all, nil
}

// listNamespace is the running tasks of one namespace, described.
func (w *Watcher) listNamespace(ctx context.Context, name string) ([]workload.Task, error) {
	answer, err := w.client.TaskService().List(ctx, &tasksapi.ListTasksRequest{})
	if err != nil {
		return nil, err
	}
	var tasks []workload.Task
	for _, t := range answer.GetTasks() {
		// A stopped task's pid may be another process's by now.
		if t.GetPid() == 0 || t.GetStatus() == tasktypes.Status_STOPPED {
			continue
		}
		ref := workload.Ref{Namespace: name, ID: t.GetID()}
		description, err := w.describe(ctx, ref, "")
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, workload.Task{Ref: ref, PID: t.GetPid(), Workload: description})
	}
	return tasks, nil
}

// forgetAllBut drops descriptions of what does not run, except young ones: those may be about to start.
func (w *Watcher) forgetAllBut(running []workload.Task) {
	runs := make(map[workload.Ref]bool, len(running))
	for _, t := range running {
		runs[t.Ref] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for ref, k := range w.known {
		if !runs[ref] && time.Since(k.since) > w.cfg.Relist {
			delete(w.known, ref)
		}
	}
}

// describe is what containerd knows of a container. ctx carries the namespace. One that is gone already is described by
// its id and by what the caller knows of its image, which may be nothing.
func (w *Watcher) describe(ctx context.Context, ref workload.Ref, image string) (*findingv1.Workload, error) {
	if known := w.recall(ref); known != nil {
		return known, nil
	}
	description := &findingv1.Workload{
		ContainerId: ref.ID, Image: image, Runtime: ref.Namespace, Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN,
	}
	c, err := w.client.ContainerService().Get(ctx, ref.ID)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("get container: %w", err)
	}
	if err == nil {
		description.Image = c.Image
		description.Labels = c.Labels
		setPod(description, c.Labels)
		if err := w.describeSpec(ctx, description, c); err != nil {
			return nil, err
		}
	}
	if description.Image == "" { // Docker's namespace has none
		return w.remember(ref, description, err == nil), nil
	}
	found, imageErr := w.client.ImageService().Get(ctx, description.Image)
	if imageErr != nil && !errdefs.IsNotFound(imageErr) {
		return nil, fmt.Errorf("get image: %w", imageErr)
	}
	if imageErr == nil {
		description.ImageDigest = found.Target.Digest.String()
	}
	return w.remember(ref, description, true), nil
}

// setPod takes the pod's facts out of the labels that the kubelet gives every container.
func setPod(w *findingv1.Workload, labels map[string]string) {
	if name := labels["io.kubernetes.container.name"]; name != "" {
		w.ContainerName = name
	}
	w.PodName = labels["io.kubernetes.pod.name"]
	w.PodNamespace = labels["io.kubernetes.pod.namespace"]
	w.PodUid = labels["io.kubernetes.pod.uid"]
}

// setPodOf takes what the kubelet's labels do not say, for pods that others make, from the annotations that the CRI gives every container.
func setPodOf(w *findingv1.Workload, annotations map[string]string) {
	for of, to := range map[string]*string{
		"container-name": &w.ContainerName, "sandbox-name": &w.PodName, "sandbox-namespace": &w.PodNamespace, "sandbox-uid": &w.PodUid,
	} {
		if *to == "" {
			*to = annotations["io.kubernetes.cri."+of]
		}
	}
}

// describeSpec adds what the container's specification says, and its pod's labels, which its sandbox's container has.
func (w *Watcher) describeSpec(ctx context.Context, description *findingv1.Workload, c containers.Container) error {
	if c.Spec == nil {
		return nil
	}
	s := parseSpec(c.Spec.GetValue())
	description.Mounts = s.mounts()
	description.Privileged = s.privileged()
	setPodOf(description, s.Annotations)
	sandbox := s.Annotations["io.kubernetes.cri.sandbox-id"]
	if sandbox == "" || sandbox == c.ID {
		return nil
	}
	pod, err := w.client.ContainerService().Get(ctx, sandbox)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get sandbox: %w", err)
	}
	description.PodLabels = podLabels(pod.Labels)
	return nil
}

// podLabels are a sandbox's labels but those by which kubelet and runtime know it.
func podLabels(labels map[string]string) map[string]string {
	out := map[string]string{}
	for name, value := range labels {
		if !strings.HasPrefix(name, "io.kubernetes.") && !strings.HasPrefix(name, "io.cri-containerd") {
			out[name] = value
		}
	}
	return out
}

// recall is what was remembered of a container, nil if nothing was.
func (w *Watcher) recall(ref workload.Ref) *findingv1.Workload {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[ref].workload
}

func (w *Watcher) forget(ref workload.Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.known, ref)
}

// remember caches a description that is worth it.
func (w *Watcher) remember(ref workload.Ref, description *findingv1.Workload, worth bool) *findingv1.Workload {
	if worth {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.known[ref] = known{workload: description, since: time.Now()}
	}
	return description
}
