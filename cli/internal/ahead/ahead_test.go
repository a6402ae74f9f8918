package ahead

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/ociimage"
)

// scanner is the node's, as far as its contract is asked here. What the real one does, test/e2e says.
type scanner struct {
	scannerv1.UnimplementedScannerServiceServer

	mu      sync.Mutex
	refuse  codes.Code // of the next scan; guarded by mu, as all below
	scanned []*scannerv1.ScanRequest
}

func (s *scanner) GetReport(_ context.Context, q *scannerv1.GetReportRequest) (*scannerv1.GetReportResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.scanned, func(r *scannerv1.ScanRequest) bool { return r.GetImageDigest() == q.GetImageDigest() }) {
		return &scannerv1.GetReportResponse{Report: &scannerv1.Report{}}, nil
	}
	return nil, status.Error(codes.NotFound, "there is none")
}

func (s *scanner) Scan(_ context.Context, q *scannerv1.ScanRequest) (*scannerv1.ScanResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if code := s.refuse; code != codes.OK {
		s.refuse = codes.OK
		return nil, status.Error(code, "not now")
	}
	for _, layer := range q.GetLayers() { // it has to be there while it is scanned
		if _, err := os.Stat(filepath.Join(layer, "bin")); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	s.scanned = append(s.scanned, q)
	return &scannerv1.ScanResponse{Report: &scannerv1.Report{}}, nil
}

// look starts a watcher, and returns the names of the images that it had scanned.
func look(t *testing.T, daemon *containerdtest.Daemon, s *scanner) (names func() []string) {
	t.Helper()
	directory := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(directory, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	scannerv1.RegisterScannerServiceServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = Watcher{
			Socket: daemon.Socket,
			Dial: func() (*grpc.ClientConn, error) {
				return grpc.NewClient("unix://"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			},
			Failed: func(image string, err error) { t.Errorf("%s could not be scanned: %v", image, err) },
		}.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return func() []string {
		s.mu.Lock()
		defer s.mu.Unlock()
		var found []string
		for _, q := range s.scanned {
			found = append(found, q.GetImage())
		}
		return found
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestImagesThatAreThereAndThatCome(t *testing.T) {
	daemon := containerdtest.Start(t)
	digest := daemon.Image(t)
	s := &scanner{refuse: codes.ResourceExhausted} // it is tried again
	names := look(t, daemon, s)
	eventually(t, "the image that was there is scanned", func() bool { return slices.Contains(names(), containerdtest.ImageName) })
	if got := s.scanned[0].GetImageDigest(); got != digest {
		t.Errorf("digest = %s, want %s", got, digest)
	}
	files, err := ociimage.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	const later = "registry.example/palisade/later:1"
	daemon.Import(t, later, append(files, ociimage.File{Path: "etc/later", Mode: 0o644}))
	eventually(t, "the image that came is scanned", func() bool { return slices.Contains(names(), later) })
	// A second name of what is known is no reason for a second scan.
	daemon.Ctr(t, "images", "tag", later, "registry.example/palisade/again:1")
	daemon.Import(t, "registry.example/palisade/last:1", append(files, ociimage.File{Path: "etc/last", Mode: 0o644}))
	eventually(t, "the last image is scanned", func() bool { return slices.Contains(names(), "registry.example/palisade/last:1") })
	if got := names(); len(got) != 3 {
		t.Errorf("scanned %q, want three", got)
	}
	eventually(t, "nothing is left in containerd", func() bool {
		return !strings.Contains(daemon.Ctr(t, "snapshots", "--snapshotter", "native", "list"), "palisade-scan") && !strings.Contains(daemon.Ctr(t, "leases", "list"), "sha256")
	})
}

// A containerd that restarts is followed again.
func TestContainerdComesAndGoes(t *testing.T) {
	daemon := containerdtest.Start(t)
	daemon.Image(t)
	names := look(t, daemon, &scanner{})
	eventually(t, "the image is scanned", func() bool { return len(names()) == 1 })
	daemon.Down(t)
	daemon.Up(t)
	files, err := ociimage.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	daemon.Import(t, "registry.example/palisade/later:1", append(files, ociimage.File{Path: "etc/later", Mode: 0o644}))
	eventually(t, "the image that came after the restart is scanned", func() bool { return len(names()) == 2 })
}

func TestDirectories(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(a, link); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		mounts []mount.Mount
		want   []string
	}{
		"one layer":      {[]mount.Mount{{Type: "bind", Source: a, Options: []string{"rbind", "ro"}}}, []string{a}},
		"layers":         {[]mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"index=off", "lowerdir=" + b + ":" + link}}}, []string{b, a}},
		"a block device": {[]mount.Mount{{Type: "ext4", Source: "/dev/dm-1"}}, nil},
		"relative":       {[]mount.Mount{{Type: "bind", Source: "etc"}}, nil},
		"gone":           {[]mount.Mount{{Type: "bind", Source: "/nonexistent"}}, nil},
		"several":        {[]mount.Mount{{Type: "bind", Source: a}, {Type: "bind", Source: b}}, nil},
		"none":           {nil, nil},
	} {
		if diff := cmp.Diff(tt.want, directories(tt.mounts)); diff != "" {
			t.Errorf("%s: directories() (-want +got):\n%s", name, diff)
		}
	}
}
