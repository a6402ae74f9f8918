package container

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// crio is what CRI-O's containers are known by, as runtime and as namespace.
const crio = "cri-o"

// criWatcher follows one runtime by its CRI. It tells of pods' sandboxes as of containers: where one has a process, that is in a cgroup
// of its own.
type criWatcher struct {
	cfg     Config
	client  runtimeapi.RuntimeServiceClient
	updates chan workload.Update
	asked   chan struct{}
	health  health
	loud    *rate.Sometimes
	// known and pods are what this connection has described, by id. Only Run's goroutine uses them.
	known map[string]criKnown
	pods  map[string]*runtimeapi.PodSandboxStatus
}

// criKnown is a container and the state in which it was described. Its process is the same as long as it has one: the CRI starts no
// container twice.
type criKnown struct {
	state runtimeapi.ContainerState
	task  workload.Task
}

func newCRIWatcher(cfg Config, conn *grpc.ClientConn, log *slog.Logger) *criWatcher {
	return &criWatcher{
		cfg: cfg, client: runtimeapi.NewRuntimeServiceClient(conn), updates: make(chan workload.Update), asked: make(chan struct{}, 1),
		health: health{runtime: crio, log: log, err: errNotYet}, loud: &rate.Sometimes{First: 10, Interval: time.Minute},
	}
}

// list asks for all that run and describes those that are new, or in another state than before. One that cannot be described is left
// out, and told of when it can be.
func (c *criWatcher) list(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	pods, err := c.client.ListPodSandbox(call, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	containers, err := c.client.ListContainers(call, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	listed := map[string]bool{}
	for _, pod := range pods.GetItems() {
		if pod.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
			continue
		}
		listed[pod.GetId()] = true
		if _, ok := c.known[pod.GetId()]; !ok {
			if err := c.tolerate(ctx, pod.GetId(), c.describePod(ctx, pod.GetId())); err != nil {
				return err
			}
		}
	}
	for _, found := range containers.GetContainers() {
		if !runs(found.GetState()) {
			continue
		}
		listed[found.GetId()] = true
		if known, ok := c.known[found.GetId()]; !ok || known.task.PID == 0 || known.state != found.GetState() {
			if err := c.tolerate(ctx, found.GetId(), c.describe(ctx, found.GetId())); err != nil {
				return err
			}
		}
	}
	return c.tell(ctx, listed)
}

// tell passes a complete list on and forgets what is not in it.
func (c *criWatcher) tell(ctx context.Context, listed map[string]bool) error {
	update := workload.Update{Complete: true}
	for id, known := range c.known {
		switch {
		case !listed[id]:
			c.forget(id)
		case known.task.PID != 0:
			update.Running = append(update.Running, known.task)
		}
	}
	for id := range c.pods {
		if !listed[id] {
			delete(c.pods, id)
		}
	}
	return c.send(ctx, update)
}

// runs says whether a container in that state may have a process: CRI-O's has one from its creation on.
func runs(state runtimeapi.ContainerState) bool {
	return state == runtimeapi.ContainerState_CONTAINER_CREATED || state == runtimeapi.ContainerState_CONTAINER_RUNNING
}

// tolerate returns errors that say that the runtime does not answer. Another is about one container, which is no reason to know nothing of
// the others: one that is gone is nothing to tell, the rest is logged.
func (c *criWatcher) tolerate(ctx context.Context, id string, err error) error {
	switch {
	case err == nil || status.Code(err) == codes.NotFound:
		return nil
	case lost(err):
		return err
	}
	c.loud.Do(func() {
		c.health.log.WarnContext(ctx, "Cannot describe a container", "runtime", crio, "container_id", id[:min(len(id), maxLoggedBytes)], "err", err)
	})
	return nil
}

// maxLoggedBytes bounds a foreign string in the log.
const maxLoggedBytes = 128

// lost says whether an error is about the connection, and not about what was asked.
func lost(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.PermissionDenied:
		return true
	default:
		return false
	}
}

// describe asks for one container and remembers it, if it runs.
func (c *criWatcher) describe(ctx context.Context, id string) error {
	call, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	answer, err := c.client.ContainerStatus(call, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return fmt.Errorf("container status: %w", err)
	}
	found := answer.GetStatus()
	if found.GetId() != id || !runs(found.GetState()) {
		return nil // a stopped container's pid may be another process's by now
	}
	info, err := parseCRIInfo(answer.GetInfo())
	if err != nil {
		return err
	}
	pod, err := c.pod(ctx, info.SandboxID)
	if err != nil {
		return err
	}
	c.known[id] = criKnown{
		state: found.GetState(),
		task:  workload.Task{Ref: workload.Ref{Namespace: crio, ID: id}, PID: info.pid(), Workload: criWorkload(found, info, pod)},
	}
	return nil
}

// criWorkload is a container for findings.
func criWorkload(found *runtimeapi.ContainerStatus, info criInfo, pod *runtimeapi.PodSandboxStatus) *findingv1.Workload {
	s := parseSpec(info.RuntimeSpec)
	w := &findingv1.Workload{
		ContainerId: found.GetId(), ContainerName: found.GetMetadata().GetName(), Runtime: crio, Labels: found.GetLabels(),
		Privileged: info.Privileged || s.privileged(), Mounts: s.mounts(), Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN,
	}
	w.Image, w.ImageDigest = criImage(found)
	if len(w.Mounts) == 0 { // no specification: at least the volumes
		for _, m := range found.GetMounts()[:min(len(found.GetMounts()), maxMounts)] {
			w.Mounts = append(w.Mounts, &findingv1.Mount{Source: m.GetHostPath(), Destination: m.GetContainerPath(), ReadOnly: m.GetReadonly()})
		}
	}
	setPod(w, found.GetLabels())
	setPodStatus(w, pod)
	if at := found.GetStartedAt(); at > 0 {
		w.StartTime = timestamppb.New(time.Unix(0, at))
	}
	return w
}

// setPodStatus takes from the pod what the kubelet's labels do not say, for pods that others make, and the pod's own labels.
func setPodStatus(w *findingv1.Workload, pod *runtimeapi.PodSandboxStatus) {
	if pod == nil {
		return
	}
	of := pod.GetMetadata()
	for _, fact := range []struct {
		to   *string
		from string
	}{{&w.PodName, of.GetName()}, {&w.PodNamespace, of.GetNamespace()}, {&w.PodUid, of.GetUid()}} {
		if *fact.to == "" {
			*fact.to = fact.from
		}
	}
	w.PodLabels = podLabels(pod.GetLabels())
}

// pod is a sandbox's status, asked for once. It is nil if there is none any more.
func (c *criWatcher) pod(ctx context.Context, id string) (*runtimeapi.PodSandboxStatus, error) {
	if id == "" {
		return nil, nil
	}
	if known := c.pods[id]; known != nil {
		return known, nil
	}
	err := c.describePod(ctx, id)
	if status.Code(err) == codes.NotFound {
		return nil, nil
	}
	return c.pods[id], err
}

// describePod asks for one sandbox and remembers it, and its process if it has one.
func (c *criWatcher) describePod(ctx context.Context, id string) error {
	call, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	answer, err := c.client.PodSandboxStatus(call, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return fmt.Errorf("pod status: %w", err)
	}
	found := answer.GetStatus()
	if found.GetId() != id {
		return fmt.Errorf("pod status: %w", errGone)
	}
	c.pods[id] = found
	if found.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil
	}
	info, err := parseCRIInfo(answer.GetInfo())
	if err != nil {
		info = criInfo{} // it has a name all the same, and CRI-O's have no process as a rule
	}
	s := parseSpec(info.RuntimeSpec)
	w := &findingv1.Workload{
		ContainerId: id, Runtime: crio, Labels: found.GetLabels(), Privileged: s.privileged(), Mounts: s.mounts(),
		Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN,
	}
	setPodStatus(w, found)
	if at := found.GetCreatedAt(); at > 0 {
		w.StartTime = timestamppb.New(time.Unix(0, at))
	}
	c.known[id] = criKnown{task: workload.Task{Ref: workload.Ref{Namespace: crio, ID: id}, PID: info.pid(), Workload: w}}
	return nil
}

func (c *criWatcher) forget(id string) {
	delete(c.known, id)
	delete(c.pods, id)
}
