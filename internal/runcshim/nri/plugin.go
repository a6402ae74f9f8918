// Package nri is Palisade's plugin for runtimes that speak NRI, the Node Resource Interface (github.com/containerd/nri): containerd from 2.0 on, and CRI-O.
//
// In: what such a runtime's CRI is about to create. Out: for each container one OCI hook, which asks the enforcer where the runC shim would; and the enforcer
// hears of each pod's sandbox, which gets no hooks. The plugin itself decides nothing: a runtime goes on without a plugin that does not answer
// in two seconds, and knows less of a container than its configuration says.
//
// # Privileges
//
// Root, for the runtime's socket and the enforcer's. Who may speak on the runtime's could change every container: nothing is asked of it but that hook.
package nri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/palisade-sec/palisade/internal/unixsock"
)

const (
	// name and index are the plugin's: after those that give devices and resources, of which it knows nothing, and before those from 90 on, which log.
	name  = "palisade"
	index = "80"

	// retry is the time between looks for a runtime, and for whether the plugin is installed.
	retry = time.Second
	// dialTime bounds one connection.
	dialTime = time.Second
	// startTime bounds a registration; a runtime gives a plugin five seconds.
	startTime = 10 * time.Second
)

// Plugin is one. What it needs may come and go while it runs.
type Plugin struct {
	// Socket is the runtime's, and HookFile the hook, as this process finds them.
	Socket, HookFile string
	// Enforcer finds the enforcer's socket for shims.
	Enforcer func() string
	// Hook is the hook's path on the host, where runC finds it.
	Hook string
	// Changed is told what becomes of the plugin, by the goroutine of Run.
	Changed func(State)

	state  State         // Run's goroutine alone
	synced chan struct{} // the runtime has told what it runs, the last thing before it asks
}

// State is how it stands.
type State struct {
	// Installed says that a runtime's socket is named and the hook is there; Connected that the runtime gives every new container the hook.
	Installed, Connected bool
	// Err is why it is not connected, nil if it is or need not be.
	Err error
}

// Run keeps the plugin connected as long as it is installed, until ctx ends.
func (p *Plugin) Run(ctx context.Context) error {
	p.synced = make(chan struct{}, 1)
	for {
		if p.installed() {
			if err := p.serve(ctx); p.installed() {
				p.become(State{Installed: true, Err: err})
			}
		}
		if !p.installed() {
			p.become(State{})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
}

// become tells of a change, and of nothing else.
func (p *Plugin) become(state State) {
	if fmt.Sprint(state) != fmt.Sprint(p.state) {
		p.state = state
		p.Changed(state)
	}
}

// installed says whether there is a runtime to connect to and a hook to give.
func (p *Plugin) installed() bool {
	_, err := os.Lstat(p.Socket)
	return err == nil && p.hooks()
}

// hooks says whether runC would find the hook. A hook that is gone would keep every container from being created.
func (p *Plugin) hooks() bool {
	info, err := os.Stat(p.HookFile)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// serve is one connection. It returns when that is lost, or the plugin is not installed any more.
func (p *Plugin) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := make(chan struct{})
	select {
	case <-p.synced: // of the connection before
	default:
	}
	conn, err := unixsock.Dial(ctx, p.Socket, 0, dialTime) // a runtime is root's, and nobody else gets to say what the plugin hears
	if err != nil {
		return fmt.Errorf("no container runtime serves NRI at %s: %w", p.Socket, err)
	}
	plugin, err := stub.New(p, stub.WithPluginName(name), stub.WithPluginIdx(index), stub.WithConnection(conn), stub.WithLogger(quiet{}),
		stub.WithOnClose(sync.OnceFunc(func() { close(lost) })))
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("make the NRI plugin: %w", err)
	}
	if err := start(ctx, plugin); err != nil {
		_ = conn.Close()
		return fmt.Errorf("register with the container runtime at %s: %w", p.Socket, err)
	}
	defer plugin.Stop()
	return p.stay(ctx, lost)
}

// start registers with the runtime. The library waits for ever for one that goes away in between; that wait is left behind.
func start(ctx context.Context, plugin stub.Stub) error {
	started := make(chan error, 1)
	go func() { started <- plugin.Start(ctx) }()
	select {
	case err := <-started:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(startTime):
		return errors.New("it does not answer")
	}
}

// stay returns when the connection is lost, or the plugin is not installed any more.
func (p *Plugin) stay(ctx context.Context, lost <-chan struct{}) error {
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lost:
			return fmt.Errorf("the container runtime at %s hung up", p.Socket)
		case <-p.synced:
			settled = time.After(retry) // it takes the plugin among those that it asks a moment after that
		case <-settled:
			p.become(State{Installed: true, Connected: true})
		case <-time.After(retry):
			if !p.installed() {
				return errors.New("it was taken out")
			}
		}
	}
}

// Synchronize hears of what runs already (NRI, Synchronize), which is not asked about.
func (p *Plugin) Synchronize(context.Context, []*api.PodSandbox, []*api.Container) ([]*api.ContainerUpdate, error) {
	select {
	case p.synced <- struct{}{}:
	default:
	}
	return nil, nil
}

// CreateContainer gives a container the hook (NRI, CreateContainer).
func (p *Plugin) CreateContainer(context.Context, *api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	if !p.installed() {
		return nil, nil, nil
	}
	adjustment := &api.ContainerAdjustment{}
	adjustment.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: p.Hook, Args: []string{HookName}}}})
	return adjustment, nil, nil
}

// RunPodSandbox tells the enforcer of a pod's sandbox (NRI, RunPodSandbox), which has no hooks: it runs a program of the runtime's, from an image of the
// node's. One that could not be told of is found as one that went around. An error would keep the pod from running.
func (p *Plugin) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	_ = p.register(ctx, pod.GetId())
	return nil
}

// register says that a container starts.
func (p *Plugin) register(ctx context.Context, id string) error {
	conn, err := unixsock.Dial(ctx, p.Enforcer(), 0, dialTime)
	if err != nil {
		return err
	}
	defer conn.Close()
	return tell(conn, id, time.Now().Add(dialTime))
}

// tell sends the word and waits until it is taken.
func tell(conn net.Conn, id string, deadline time.Time) error {
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	message, err := started(id)
	if err != nil {
		return err
	}
	if _, err := conn.Write(message); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, lengthBytes))
	return err
}

// quiet keeps the library from writing its own log, which says nothing that State does not.
type quiet struct{}

func (quiet) Debugf(context.Context, string, ...any) {}
func (quiet) Infof(context.Context, string, ...any)  {}
func (quiet) Warnf(context.Context, string, ...any)  {}
func (quiet) Errorf(context.Context, string, ...any) {}
