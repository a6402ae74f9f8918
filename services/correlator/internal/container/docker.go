package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/unixsock"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// Socket is a window of the gate's on a runtime that speaks Docker's API.
type Socket struct {
	// Runtime is docker or podman, Namespace the one its containers are known by: containerd's, if it uses containerd.
	Runtime, Namespace string
	Path               string
	// UID serves the window.
	UID uint32
}

// maxAnswerBytes bounds an answer; the gate passes no more on.
const maxAnswerBytes = 16 << 20

// dockerWatcher follows one Docker or Podman. It knows a container's description from its creation on, before it runs.
type dockerWatcher struct {
	cfg     Config
	socket  Socket
	client  *http.Client
	updates chan workload.Update
	asked   chan struct{}
	health  health
	// running are the pids of this connection's containers, images the digests of images by id; rested has a value when another list
	// may be asked for, and is nil if one may be now. Only Run's goroutine uses them.
	running map[string]uint32
	images  map[string]string
	rested  <-chan time.Time
}

// maxImages bounds the cache of digests.
const maxImages = 1024

func newDockerWatcher(cfg Config, socket Socket, log *slog.Logger) *dockerWatcher {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return unixsock.Dial(ctx, socket.Path, socket.UID, cfg.Timeout)
		},
		DisableCompression: true, ResponseHeaderTimeout: cfg.Timeout, MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second,
	}
	return &dockerWatcher{
		cfg: cfg, socket: socket, client: &http.Client{Transport: transport}, updates: make(chan workload.Update), asked: make(chan struct{}, 1),
		health: health{runtime: socket.Runtime, log: log, err: errNotYet}, images: map[string]string{},
	}
}

// get opens an answer. Its caller closes the body.
func (d *dockerWatcher) get(ctx context.Context, target string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gate"+target, http.NoBody)
	if err != nil {
		return nil, err
	}
	answer, err := d.client.Do(request)
	if err != nil {
		return nil, err
	}
	switch answer.StatusCode {
	case http.StatusOK:
		return answer.Body, nil
	case http.StatusNotFound:
		err = errGone
	default:
		err = fmt.Errorf("%s answers %s", d.socket.Runtime, answer.Status)
	}
	return nil, errors.Join(err, answer.Body.Close())
}

// errGone says that there is no such container or image any more.
var errGone = errors.New("no such object")

// read decodes one bounded answer.
func (d *dockerWatcher) read(ctx context.Context, target string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	body, err := d.get(ctx, target)
	if err != nil {
		return fmt.Errorf("get %s: %w", target, err)
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswerBytes)).Decode(into); err != nil {
		return fmt.Errorf("get %s: %w", target, err)
	}
	return nil
}

// inspection is what is read of a container.
type inspection struct {
	ID     string `json:"Id"`
	Name   string
	Image  string
	Config struct {
		Image  string
		Labels map[string]string
	}
	State struct {
		Running   bool
		Pid       uint32
		StartedAt time.Time
	}
	HostConfig struct{ Privileged bool }
	Mounts     []struct {
		Source, Destination string
		RW                  bool
	}
}

// inspect asks for one container.
func (d *dockerWatcher) inspect(ctx context.Context, id string) (workload.Task, error) {
	var found inspection
	if err := d.read(ctx, "/containers/"+id+"/json", &found); err != nil {
		return workload.Task{}, err
	}
	digest, err := d.digest(ctx, found.Image, found.Config.Image)
	if err != nil {
		return workload.Task{}, err
	}
	task := workload.Task{Ref: workload.Ref{Namespace: d.socket.Namespace, ID: id}, Workload: found.workload(d.socket.Runtime, digest)}
	if found.State.Running {
		task.PID = found.State.Pid
	}
	return task, nil
}

// workload is the container for findings.
func (i inspection) workload(runtime, digest string) *findingv1.Workload {
	w := &findingv1.Workload{
		ContainerId: i.ID, ContainerName: strings.TrimPrefix(i.Name, "/"), Image: i.Config.Image, ImageDigest: digest, Runtime: runtime,
		Labels: i.Config.Labels, Privileged: i.HostConfig.Privileged, Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN,
	}
	setPod(w, i.Config.Labels)
	if i.State.Running && !i.State.StartedAt.IsZero() {
		w.StartTime = timestamppb.New(i.State.StartedAt)
	}
	for _, m := range i.Mounts[:min(len(i.Mounts), maxMounts)] {
		w.Mounts = append(w.Mounts, &findingv1.Mount{Source: m.Source, Destination: m.Destination, ReadOnly: !m.RW})
	}
	return w
}

// digest is an image's, by its id: of its manifest in the registry that it came from under the given name, or another; the
// id itself, a digest too, of one that came from none. Never what the name means now.
func (d *dockerWatcher) digest(ctx context.Context, id, name string) (string, error) {
	if id == "" {
		return "", nil
	}
	key := id + " " + name
	if known, ok := d.images[key]; ok {
		return known, nil
	}
	var image struct{ RepoDigests []string }
	err := d.read(ctx, "/images/"+id+"/json", &image)
	if err != nil && !errors.Is(err, errGone) {
		return "", err
	}
	digest := "sha256:" + strings.TrimPrefix(id, "sha256:")
	for i, full := range image.RepoDigests {
		repository, of, _ := strings.Cut(full, "@")
		if same := strings.HasPrefix(name, repository); of != "" && (same || i == 0) {
			digest = of
			if same {
				break
			}
		}
	}
	if len(d.images) >= maxImages {
		clear(d.images)
	}
	d.images[key] = digest
	return digest, nil
}

// health is whether a runtime is followed. Safe for concurrent use.
type health struct {
	runtime string
	log     *slog.Logger

	mu   sync.Mutex
	err  error // why it is not followed, nil if it is; guarded by mu
	once bool  // it has been followed before; guarded by mu
}

func (h *health) set(ctx context.Context, err error) {
	h.mu.Lock()
	before := h.err
	h.err = err
	h.once = h.once || err == nil
	h.mu.Unlock()
	switch {
	case err != nil && before == nil:
		h.log.WarnContext(ctx, "Lost a container runtime", "runtime", h.runtime, "err", err)
	case err == nil && before != nil:
		h.log.InfoContext(ctx, "Follows a container runtime", "runtime", h.runtime)
	}
}

// get returns why the runtime is not followed, and whether it ever was.
func (h *health) get() (err error, before bool) { //nolint:revive // the error is the subject here
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err, h.once
}
