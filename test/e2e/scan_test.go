package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// imageDirectory is a directory among the runtimes', where the scanner may look. It is there before the node starts.
func imageDirectory(t *testing.T) string {
	t.Helper()
	const store = "/var/lib/containers"
	if err := os.Mkdir(store, 0o755); err == nil {
		t.Cleanup(func() { os.Remove(store) })
	}
	dir, err := os.MkdirTemp(store, "palisade-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func put(t *testing.T, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestScan has a running node scan an image's layers, whose files only their owner may read, and asks for the report on the command
// line. Then the same is tried with directories that are no image's, and a new store of advisories changes the report.
func TestScan(t *testing.T) {
	layer := imageDirectory(t)
	put(t, layer, "etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n")
	put(t, layer, "var/lib/dpkg/status", "Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.2.13.dfsg-1\nArchitecture: amd64\nSource: zlib\n\n")
	if err := os.Chown(filepath.Join(layer, "var/lib/dpkg/status"), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	n := startNode(t)
	sockets, err := rpc.DefaultSockets()
	if err != nil {
		t.Fatal(err)
	}
	sockets.Directory = n.run
	conn, err := sockets.Dial("scanner")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := scannerv1.NewScannerServiceClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	digest := "sha256:" + strings.Repeat("ab", 32)
	request := &scannerv1.ScanRequest{Image: "e2e:1", ImageDigest: digest, Layers: []string{layer}}
	if _, err := client.Scan(ctx, request); status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("Scan without advisories = %v, want FailedPrecondition", err)
	}
	store := filepath.Join(n.state, "advisories")
	if out, code := n.palisade("vulndb", "import", "../../internal/advisory/testdata/debian/DSA-5532-1.json", "--directory", store); code != 0 {
		t.Fatalf("import: %s", out)
	}
	if _, err := client.Scan(ctx, request); err != nil {
		t.Fatal(err)
	}
	if out, code := n.palisade("scan", "e2e:1", "--fail-on", "any", "--strict"); code != 0 || !strings.Contains(out, "0 vulnerabilities in 1 packages") {
		t.Errorf("before the import: exit code %d: %s", code, out)
	}
	if out, code := n.palisade("vulndb", "import", "../../internal/advisory/testdata/debian", "--directory", store); code != 0 {
		t.Fatalf("import: %s", out)
	}
	out, code := n.palisade("scan", digest[:20], "--fail-on", "critical", "-o", "json")
	var report struct {
		Vulnerabilities []struct {
			ID, Package, Severity string
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 3 || len(report.Vulnerabilities) != 1 || report.Vulnerabilities[0].ID != "CVE-2023-45853" {
		t.Errorf("after the import: exit code %d, %v: %s", code, err, out)
	}
	n.readsNothingElse(ctx, t, client)
	n.leavesNothingOfAScan(t)
}

// readsNothingElse asks for the scan of directories that the scanner has no business in. Its row of the table is kept by the kernel
// (Landlock): what it may not open cannot be in a report.
func (n *node) readsNothingElse(ctx context.Context, t *testing.T, client scannerv1.ScannerServiceClient) {
	t.Helper()
	if _, _, errno := syscall.Syscall(444, 0, 0, 1); errno == syscall.ENOSYS || errno == syscall.EOPNOTSUPP { // landlock_create_ruleset: which version
		t.Skip("this kernel has no Landlock")
	}
	for _, dir := range []string{"/", "/root", filepath.Join(n.state, "console"), n.bin} {
		answer, err := client.Scan(ctx, &scannerv1.ScanRequest{Layers: []string{dir}})
		if err == nil && (len(answer.GetReport().GetPackages()) > 0 || len(answer.GetReport().GetFaults()) == 0) {
			t.Errorf("Scan(%s) = %d packages, faults %q", dir, len(answer.GetReport().GetPackages()), answer.GetReport().GetFaults())
		}
	}
}

func (n *node) leavesNothingOfAScan(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(n.state, "scanner", "scratch"))
	if err != nil || len(left) > 0 {
		t.Errorf("scratch space after the scans: %v, %v", left, err)
	}
	kept, err := os.ReadDir(filepath.Join(n.state, "scanner", "reports"))
	if err != nil || len(kept) != 1 {
		t.Errorf("reports: %v, %v, want one", kept, err)
	}
}
