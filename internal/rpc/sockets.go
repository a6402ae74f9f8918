package rpc

import (
	"errors"
	"fmt"
	"path/filepath"

	"google.golang.org/grpc"

	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

// Sockets is the part of every process's configuration that says where the others are.
type Sockets struct {
	// Directory holds one socket a process, <process>.sock. It must be sticky, so that no process removes
	// another's.
	Directory string `yaml:"directory"`
	// Group owns the sockets; every process is in it.
	Group int `yaml:"group"`
	// UIDs says which uid each process runs as. Keys that are absent keep the table of privileges' value.
	UIDs UIDs `yaml:"uids"`
}

// DefaultSockets are the table of privileges'.
func DefaultSockets() (Sockets, error) {
	table, err := privilege.Load()
	if err != nil {
		return Sockets{}, err
	}
	return Sockets{Directory: table.SocketDirectory, Group: int(table.SocketGroup), UIDs: table.UIDs()}, nil
}

// Validate reports every fault.
func (s Sockets) Validate() error {
	var errs []error
	if !filepath.IsAbs(s.Directory) {
		errs = append(errs, fmt.Errorf("sockets.directory: %q is not an absolute path", s.Directory))
	}
	if s.Group < 0 {
		errs = append(errs, fmt.Errorf("sockets.group: %d is negative", s.Group))
	}
	if _, ok := s.UIDs[Operator]; !ok {
		errs = append(errs, fmt.Errorf("sockets.uids: no uid for %s", Operator))
	}
	return errors.Join(errs...)
}

// Path is where a process listens.
func (s Sockets) Path(process string) string {
	return filepath.Join(s.Directory, process+".sock")
}

// Listen makes the process's own socket.
func (s Sockets) Listen(process string) (*unixsock.Listener, error) {
	return unixsock.Listen(s.Path(process), s.Group)
}

// Dial connects to another process, and to nobody who pretends to be it.
func (s Sockets) Dial(process string, extra ...grpc.DialOption) (*grpc.ClientConn, error) {
	uid, ok := s.UIDs[process]
	if !ok {
		return nil, fmt.Errorf("sockets.uids: no uid for %s", process)
	}
	return Dial(s.Path(process), uid, extra...)
}
