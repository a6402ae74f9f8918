// Package demo starts a small container through containerd, the way any client would, and does harmless attacks in it.
// It knows nothing of Palisade: what the node makes of it is for the node to say.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/internal/ociimage"
)

const (
	// Image is the demo image's name.
	Image = "palisade.demo/shell:1"
	// Namespace is the containerd namespace the container lives in.
	Namespace = "palisade-demo"
)

// Attack is one thing an intruder does.
type Attack struct {
	// Rule is the built-in rule that should notice.
	Rule string
	// Story says what happens, for people.
	Story string
	// Terminal gives the process a terminal.
	Terminal bool
	Args     []string
}

// Attacks are what the demo does, in order.
var Attacks = []Attack{
	{
		Rule:  "Terminal shell in container",
		Story: "someone opens an interactive shell in the running container", Terminal: true,
		Args: []string{"/bin/sh", "-c", "id"},
	},
	{
		Rule:  "Sensitive file read",
		Story: "the shell reads the container's password hashes",
		Args:  []string{"/bin/sh", "-c", "cat /etc/shadow"},
	},
	{
		Rule:  "Dropped binary executed",
		Story: "a program that was not in the image is written to /tmp and run",
		Args:  []string{"/bin/sh", "-c", "cp /bin/busybox /tmp/busybox-miner && /tmp/busybox-miner sleep 20; exit $?"},
	},
}

// Result is how an attack ended.
type Result struct {
	ExitCode uint32
	// Took is how long its process lived.
	Took time.Duration
}

// Killed reports whether the attack was ended by SIGKILL, as a shell reports it.
func (r Result) Killed() bool { return r.ExitCode == 128+uint32(syscall.SIGKILL) }

// Container is a running demo container. Close removes it.
type Container struct {
	client    *client.Client
	container client.Container
	task      client.Task
}

// Start imports the image and starts a container that sleeps. The socket is containerd's.
func Start(ctx context.Context, socket string) (*Container, error) {
	c, err := client.New(socket, client.WithTimeout(3*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd on %s: %w: is it running? --containerd-socket names another", socket, err)
	}
	demo := &Container{client: c}
	if err := demo.start(namespaces.WithNamespace(ctx, Namespace)); err != nil {
		return nil, errors.Join(err, demo.Close(ctx))
	}
	return demo, nil
}

func (c *Container) start(ctx context.Context) error {
	image, err := importImage(ctx, c.client)
	if err != nil {
		return err
	}
	id := fmt.Sprintf("demo-%d", time.Now().UnixNano())
	c.container, err = c.client.NewContainer(ctx, id,
		client.WithNewSnapshot(id, image),
		client.WithNewSpec(oci.WithImageConfig(image), oci.WithProcessArgs("/bin/sleep", "300"), withoutOOMScore,
			oci.WithCgroup("/"+Namespace+"-"+id)), // no parent of its own, which runC would leave behind
	)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	c.task, err = c.container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return fmt.Errorf("create task: %w", err)
	}
	if err := c.task.Start(ctx); err != nil {
		return fmt.Errorf("start task: %w", err)
	}
	return nil
}

// withoutOOMScore leaves the score alone: lowering it needs CAP_SYS_RESOURCE, which not every host's root has.
func withoutOOMScore(_ context.Context, _ oci.Client, _ *containers.Container, spec *specs.Spec) error {
	spec.Process.OOMScoreAdj = nil
	return nil
}

func importImage(ctx context.Context, c *client.Client) (client.Image, error) {
	files, err := ociimage.Busybox()
	if err != nil {
		return nil, fmt.Errorf("make demo image: %w", err)
	}
	var archive bytes.Buffer
	if err := ociimage.Write(&archive, ociimage.Config{Name: Image, Command: []string{"/bin/sh"}}, files); err != nil {
		return nil, fmt.Errorf("make demo image: %w", err)
	}
	if _, err := c.Import(ctx, &archive); err != nil {
		return nil, fmt.Errorf("import demo image: %w", err)
	}
	image, err := c.GetImage(ctx, Image)
	if err != nil {
		return nil, fmt.Errorf("import demo image: %w", err)
	}
	if err := image.Unpack(ctx, ""); err != nil {
		return nil, fmt.Errorf("unpack demo image: %w", err)
	}
	return image, nil
}

// ID is the container's id.
func (c *Container) ID() string { return c.container.ID() }

// PID is the container's first process.
func (c *Container) PID() uint32 { return c.task.Pid() }

// Run does one attack and waits for its end.
func (c *Container) Run(ctx context.Context, attack Attack, name string) (Result, error) {
	ctx = namespaces.WithNamespace(ctx, Namespace)
	spec, err := c.container.Spec(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", attack.Rule, err)
	}
	process := *spec.Process
	process.Args, process.Terminal = attack.Args, attack.Terminal
	streams := []cio.Opt{cio.WithStreams(strings.NewReader(""), io.Discard, io.Discard)}
	if attack.Terminal {
		streams = append(streams, cio.WithTerminal)
	}
	began := time.Now()
	exec, err := c.task.Exec(ctx, name, &process, cio.NewCreator(streams...))
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", attack.Rule, err)
	}
	exited, err := exec.Wait(ctx)
	if err == nil {
		err = exec.Start(ctx)
	}
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", attack.Rule, err)
	}
	status := <-exited
	_, err = exec.Delete(ctx)
	return Result{ExitCode: status.ExitCode(), Took: time.Since(began)}, err
}

// Running reports whether the container's first process still runs.
func (c *Container) Running(ctx context.Context) (bool, error) {
	status, err := c.task.Status(namespaces.WithNamespace(ctx, Namespace))
	return status.Status == client.Running, err
}

// Close ends and removes the container. The image stays until containerd's garbage collection.
func (c *Container) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.WithoutCancel(ctx), Namespace), 10*time.Second)
	defer cancel()
	var errs []error
	if c.task != nil {
		_, err := c.task.Delete(ctx, client.WithProcessKill)
		errs = append(errs, ignoreGone(err))
	}
	if c.container != nil {
		errs = append(errs, ignoreGone(c.container.Delete(ctx, client.WithSnapshotCleanup)))
	}
	return errors.Join(append(errs, c.client.Close())...)
}

func ignoreGone(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
