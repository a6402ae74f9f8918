// Package account reads the host's account files for the correlator, which may touch no file of the host. Data in: the directory
// that holds passwd and group; data out: their bytes, which are not parsed here. It trusts that directory's owner, and reads plain,
// bounded files within it all the same: what is mounted there is somebody's configuration.
package account

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatev1 "github.com/palisade-sec/palisade/api/palisade/gate/v1"
)

// maxBytes bounds a file: some ten thousand accounts.
const maxBytes = 1 << 20

// Config says where the files are.
type Config struct {
	// Directory is the host's /etc, wherever it is mounted. Empty if nobody is to be named.
	Directory string `yaml:"directory"`
}

// DefaultConfig is a process that sees the host's own files.
func DefaultConfig() Config { return Config{Directory: "/etc"} }

// Validate reports every fault.
func (c Config) Validate() error {
	if c.Directory != "" && !filepath.IsAbs(c.Directory) {
		return fmt.Errorf("accounts.directory: %q is not an absolute path", c.Directory)
	}
	return nil
}

// Service is AccountService. It is safe for concurrent use.
type Service struct {
	gatev1.UnimplementedAccountServiceServer

	cfg Config
	log *slog.Logger

	mu  sync.Mutex
	err error // of the last answer, nil if it was one; guarded by mu
}

// New returns a service that has read nothing yet.
func New(cfg Config, log *slog.Logger) *Service { return &Service{cfg: cfg, log: log} }

// Register adds the service to a server.
func (s *Service) Register(server grpc.ServiceRegistrar) {
	gatev1.RegisterAccountServiceServer(server, s)
}

// Err is why the last who asked was told nothing, nil if they were told. Safe for concurrent use.
func (s *Service) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// ReadAccounts opens the files anew for each call: whoever changes them replaces them.
func (s *Service) ReadAccounts(ctx context.Context, request *gatev1.ReadAccountsRequest) (*gatev1.ReadAccountsResponse, error) {
	answer, err := s.read(request.GetKnown())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && (s.err == nil || s.err.Error() != err.Error()) {
		s.log.WarnContext(ctx, "Cannot read the host's account files", "err", err)
	}
	s.err = err
	return answer, outcome(err)
}

// Errors of a file.
var (
	errNotPlain = errors.New("not a plain file")
	errTooLarge = fmt.Errorf("larger than %d bytes", maxBytes)
	errNowhere  = fmt.Errorf("accounts.directory is empty: %w", fs.ErrNotExist)
)

// outcome is what the caller is told: no path, and no reason but its kind.
func outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return status.Error(codes.NotFound, "no account files")
	}
	return status.Error(codes.FailedPrecondition, "account files cannot be read")
}

func (s *Service) read(known string) (*gatev1.ReadAccountsResponse, error) {
	if s.cfg.Directory == "" {
		return nil, errNowhere
	}
	directory, err := os.OpenRoot(s.cfg.Directory)
	if err != nil {
		return nil, err
	}
	defer directory.Close()
	passwd, err := open(directory, "passwd")
	if err != nil {
		return nil, err
	}
	defer passwd.Close()
	group, err := open(directory, "group")
	if err != nil {
		return nil, err
	}
	defer group.Close()
	// Before the content: a file that is changed while it is read has another version the next time.
	answer := &gatev1.ReadAccountsResponse{Version: passwd.version + " " + group.version}
	if answer.GetVersion() == known {
		return answer, nil
	}
	if answer.Passwd, err = passwd.content(); err != nil {
		return nil, err
	}
	answer.Group, err = group.content()
	return answer, err
}

// file is an open file and what it was when it was opened.
type file struct {
	*os.File
	version string
}

// open opens a plain file in a directory, or below it by a link. Not blocking: a FIFO would have us wait for its writer.
func open(directory *os.Root, name string) (file, error) {
	f, err := directory.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return file{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", name, errNotPlain)
	}
	if err != nil {
		return file{}, errors.Join(err, f.Close())
	}
	return file{f, version(info)}, nil
}

func (f file) content() ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err == nil && len(raw) > maxBytes {
		err = fmt.Errorf("%s: %w", filepath.Base(f.Name()), errTooLarge)
	}
	if err != nil {
		return nil, err
	}
	return raw, nil
}
