package identity

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// containerd asks containerd, which knows a container and its image before it has runC create it.
type containerd struct {
	conn       *grpc.ClientConn
	containers containersapi.ContainersClient
	images     imagesapi.ImagesClient
}

func newContainerd(conn *grpc.ClientConn) *containerd {
	return &containerd{conn: conn, containers: containersapi.NewContainersClient(conn), images: imagesapi.NewImagesClient(conn)}
}

const (
	// namespaceHeader is how containerd is told a namespace (pkg/namespaces).
	namespaceHeader = "containerd-namespace"
	// kubernetesNamespace is the CRI's. Labels that start with io.kubernetes. are the kubelet's there.
	kubernetesNamespace = "k8s.io"
	// The CRI writes annotations in the end, over what a pod may have said. The sandbox's id names a container's pod for containerd 1, which
	// has no field for it. What there are labels for too, a kubelet sets: who makes pods by the CRI alone may have set none.
	sandboxAnnotation   = "io.kubernetes.cri.sandbox-id"
	namespaceAnnotation = "io.kubernetes.cri.sandbox-namespace"
	nameAnnotation      = "io.kubernetes.cri.container-name"
)

func (c *containerd) find(ctx context.Context, namespace, id string) (Container, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, namespaceHeader, namespace)
	answer, err := c.containers.Get(ctx, &containersapi.GetContainerRequest{ID: id})
	if status.Code(err) == codes.NotFound {
		return Container{}, ErrUnknown
	}
	if err != nil {
		return Container{}, fmt.Errorf("ask containerd for the container: %w", err)
	}
	found := answer.GetContainer()
	out := Container{Runtime: namespace, Image: found.GetImage(), Labels: maps.Clone(found.GetLabels())}
	if namespace == kubernetesNamespace {
		annotations := annotationsOf(found.GetSpec().GetValue())
		out.Name = cmp.Or(annotations[nameAnnotation], out.Labels["io.kubernetes.container.name"])
		out.Namespace = cmp.Or(annotations[namespaceAnnotation], out.Labels["io.kubernetes.pod.namespace"])
		if err := c.addPod(ctx, found, cmp.Or(found.GetSandbox(), annotations[sandboxAnnotation]), &out); err != nil {
			return out, err
		}
	}
	if out.Image == "" {
		return out, nil
	}
	image, err := c.images.Get(ctx, &imagesapi.GetImageRequest{Name: out.Image})
	if err != nil && status.Code(err) != codes.NotFound {
		return out, fmt.Errorf("ask containerd for the image: %w", err)
	}
	out.Digest = image.GetImage().GetTarget().GetDigest()
	return out, nil
}

// addPod adds the labels of the pod, which its sandbox has.
func (c *containerd) addPod(ctx context.Context, found *containersapi.Container, sandbox string, out *Container) error {
	if sandbox == "" || sandbox == found.GetID() {
		return nil
	}
	answer, err := c.containers.Get(ctx, &containersapi.GetContainerRequest{ID: sandbox})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask containerd for the pod: %w", err)
	}
	for name, value := range answer.GetContainer().GetLabels() {
		if _, has := out.Labels[name]; !has {
			out.Labels[name] = value
		}
	}
	return nil
}

// annotationsOf are a configuration's, none if it cannot be read: then labels alone say whose the container is.
func annotationsOf(spec []byte) map[string]string {
	var s struct{ Annotations map[string]string }
	if json.Unmarshal(spec, &s) != nil {
		return nil
	}
	return s.Annotations
}
