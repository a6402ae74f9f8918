// Package identity finds out which image a container has that is about to be created, and whose it is.
//
// In: what the shim knows, the bundle and the id. Out: what the container's runtime says, through the gate. A configuration's
// annotations are asked only where the CRI wrote them: with other engines anybody who may run a container writes what he likes there.
package identity

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/palisade-sec/palisade/internal/rpc"
)

// Container is what a runtime says of a container.
type Container struct {
	// Runtime is containerd's namespace, docker or podman; "" if nobody knows the container.
	Runtime string
	// Name is the container's for people, "" if it has none but its id.
	Name string
	// Image is its reference, and Digest what that stands for: of the manifest in the registry that it came from, else the image's own.
	// "" if the container has no image, or the image is not known any more.
	Image, Digest string
	// DiffIDs are the digests of the layers' content from the bottom up, nil if the runtime does not tell.
	DiffIDs []string
	// Namespace is the pod's, "" outside Kubernetes. Labels are the container's, and its pod's where it has none of that name.
	Namespace string
	Labels    map[string]string
}

// ErrUnknown says that no runtime that can be asked knows of the container.
var ErrUnknown = errors.New("no container runtime tells of it")

// Finder asks the runtimes. It is safe for concurrent use.
type Finder struct {
	containerd     *containerd
	docker, podman *engine
}

// New returns a finder that asks the gate. Nothing is connected before the first question.
func New(sockets rpc.Sockets) (*Finder, error) {
	conn, err := sockets.Dial("gate")
	if err != nil {
		return nil, err
	}
	gate := sockets.UIDs["gate"]
	return &Finder{
		containerd: newContainerd(conn),
		docker:     newEngine("docker", sockets.Path("gate-docker"), gate),
		podman:     newEngine("podman", sockets.Path("gate-podman"), gate),
	}, nil
}

// Close ends the connections.
func (f *Finder) Close() error {
	f.docker.client.CloseIdleConnections()
	f.podman.client.CloseIdleConnections()
	return f.containerd.conn.Close()
}

// Where containerd has bundles, below its state directory: <this>/<namespace>/<id>. And Podman and CRI-O, below theirs.
const (
	containerdTasks = "io.containerd.runtime.v2.task"
	podmanBundles   = "overlay-containers"
	podmanBundle    = "userdata"
	// dockerNamespace is containerd's for Docker, which keeps images and labels to itself (up to version 28).
	dockerNamespace = "moby"
)

// Find asks whom the bundle's path points to. The error is ErrUnknown, or why there was no answer.
func (f *Finder) Find(ctx context.Context, bundle, id string) (Container, error) {
	above, of := filepath.Split(filepath.Clean(bundle))
	directory := filepath.Dir(filepath.Clean(above))
	switch {
	case of == id && filepath.Base(directory) == containerdTasks:
		namespace := filepath.Base(above)
		if namespace == dockerNamespace {
			return f.docker.find(ctx, id)
		}
		return f.containerd.find(ctx, namespace, id)
	case of == podmanBundle && filepath.Base(above) == id && filepath.Base(directory) == podmanBundles:
		return f.podman.find(ctx, id)
	}
	return Container{}, ErrUnknown
}

// repository is a reference without its tag or digest.
func repository(reference string) string {
	reference, _, _ = strings.Cut(reference, "@")
	if i := strings.LastIndexByte(reference, ':'); i > strings.LastIndexByte(reference, '/') {
		return reference[:i]
	}
	return reference
}
