package ahead

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
)

// snapshotLabel, and a snapshotter's name, are on the content of an image's configuration once that has its layers (containerd, core/unpack); the value
// is the topmost one's key.
const snapshotLabel = "containerd.io/gc.ref.snapshot."

// unpacked finds an image's layers, the topmost first, and holds them until done is called. The error is errLater if no snapshotter has them yet.
func unpacked(ctx context.Context, containerd *client.Client, image client.Image) (layers []string, done func(), err error) {
	config, err := image.Config(ctx)
	if errdefs.IsNotFound(err) {
		return nil, nil, errLater // the content is on its way, or of another platform
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := containerd.ContentStore().Info(ctx, config.Digest)
	if errdefs.IsNotFound(err) {
		return nil, nil, errLater
	}
	if err != nil {
		return nil, nil, err
	}
	err = errLater
	for label, key := range info.Labels {
		snapshotter, ok := strings.CutPrefix(label, snapshotLabel)
		if !ok {
			continue
		}
		layers, done, err = view(ctx, containerd, snapshotter, key)
		if err == nil {
			return layers, done, nil
		}
		if errdefs.IsNotFound(err) {
			err = errLater
		}
	}
	return nil, nil, err
}

// view makes a view of a snapshot, and returns the directories that it consists of.
func view(ctx context.Context, containerd *client.Client, snapshotter, key string) (layers []string, done func(), err error) {
	ctx, release, err := containerd.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(2*scanTime))
	if err != nil {
		return nil, nil, err
	}
	name := "palisade-scan-" + rand.Text()
	service := containerd.SnapshotService(snapshotter)
	mounts, err := service.View(ctx, name, key)
	done = func() {
		ctx := context.WithoutCancel(ctx)
		_ = service.Remove(ctx, name) // the lease's end removes it, too
		_ = release(ctx)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	layers = directories(mounts)
	if len(layers) == 0 {
		done()
		return nil, nil, errLater // a file system that is no directory before somebody mounts it
	}
	return layers, done, nil
}

// directories are what a view's mount shows, the topmost first; nil if that is not directories of the host.
func directories(mounts []mount.Mount) []string {
	if len(mounts) != 1 {
		return nil
	}
	var found []string
	switch m := mounts[0]; m.Type {
	case "bind":
		found = []string{m.Source}
	case "overlay":
		for _, option := range m.Options {
			if lower, ok := strings.CutPrefix(option, "lowerdir="); ok {
				found = strings.Split(lower, ":")
			}
		}
	}
	for i, path := range found {
		real, err := filepath.EvalSymlinks(path) // as the runC shim names layers
		if err != nil || !filepath.IsAbs(real) {
			return nil
		}
		found[i] = real
	}
	return found
}
