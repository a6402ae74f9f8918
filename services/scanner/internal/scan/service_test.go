package scan_test

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/advisory"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/services/scanner/internal/cache"
	"github.com/palisade-sec/palisade/services/scanner/internal/child"
	"github.com/palisade-sec/palisade/services/scanner/internal/scan"
)

// binary is the scanner as it is released: static, without cgo.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "scanner-*")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "palisade-scanner")
	build := exec.Command("go", "build", "-o", binary, "../..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the scanner: %v\n%s", err, out)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// node is a scanner on a socket.
type node struct {
	scannerv1.ScannerServiceClient
	advisories, reports string
	registry            *prometheus.Registry
}

// serve starts the service for a caller of this test's uid under the given name.
func serve(t *testing.T, caller string, change func(*child.Config)) node {
	t.Helper()
	dir := t.TempDir()
	n := node{advisories: filepath.Join(dir, "advisories"), reports: filepath.Join(dir, "reports"), registry: prometheus.NewRegistry()}
	kept, err := cache.Open(n.reports, cache.Limits{Reports: 10, MiB: 64})
	if err != nil {
		t.Fatal(err)
	}
	cfg := child.Config{Binary: binary, Scratch: t.TempDir(), Time: time.Minute, Bounds: child.DefaultBounds()}
	if change != nil {
		change(&cfg)
	}
	uids := rpc.UIDs{rpc.Operator: 4_000_000, "enforcer": 4_000_001, "scanner": uint32(os.Getuid())}
	uids[caller] = uint32(os.Getuid())
	server, err := rpc.NewServer(rpc.ServerConfig{
		Process: "scanner", Callers: scan.Callers(), UIDs: uids, Log: slog.New(slog.DiscardHandler), Metrics: n.registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	advisories := scan.NewAdvisories(n.advisories)
	t.Cleanup(func() { advisories.Close() })
	scan.New(cfg, advisories, kept, slog.New(slog.NewTextHandler(t.Output(), nil)), n.registry).Register(server)
	sockets := rpc.Sockets{Directory: t.TempDir(), Group: os.Getgid(), UIDs: uids}
	var listener net.Listener
	if listener, err = sockets.Listen("scanner"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); server.Run(t.Context(), listener) }()
	t.Cleanup(func() { <-done })
	conn, err := sockets.Dial("scanner")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	n.ScannerServiceClient = scannerv1.NewScannerServiceClient(conn)
	return n
}

func (n node) imports(t *testing.T, paths ...string) {
	t.Helper()
	if _, err := advisory.Import(t.Context(), paths, n.advisories, nil); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, root, name, content string) string {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func code(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%s = %v, want %v", what, err, want)
	}
}

// record is an advisory about a package of Alpine's.
func record(t *testing.T, id, fixed string) string {
	t.Helper()
	return write(t, t.TempDir(), id+".json", fmt.Sprintf(`{"schema_version": "1.7.0", "id": %q, "modified": "2026-01-01T00:00:00Z", "published": "2026-01-01T00:00:00Z",
		"affected": [{"package": {"ecosystem": "Alpine:v3.20", "name": "openssl"}, "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": %q}]}]}],
		"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]}`, id, fixed))
}

// alpine is a layer with openssl's library of the given version.
func alpine(t *testing.T, version string) string {
	t.Helper()
	layer := t.TempDir()
	write(t, layer, "etc/os-release", "ID=alpine\nVERSION_ID=3.20.1\n")
	write(t, layer, "lib/apk/db/installed", "P:libcrypto3\nV:"+version+"\nA:x86_64\no:openssl\n\n")
	return layer
}

func digest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

func ids(r *scannerv1.Report) (found []string) {
	for _, v := range r.GetVulnerabilities() {
		found = append(found, v.GetPackage()+" "+v.GetId())
	}
	return found
}

func TestReportsAreKeptAndMatchedAgain(t *testing.T) {
	n := serve(t, rpc.Operator, nil)
	request := &scannerv1.ScanRequest{Image: "app:1\n", ImageDigest: digest(1), Layers: []string{alpine(t, "3.3.0-r0")}}
	_, err := n.Scan(t.Context(), request)
	code(t, "Scan without advisories", err, codes.FailedPrecondition)
	_, err = n.GetReport(t.Context(), &scannerv1.GetReportRequest{ImageDigest: digest(1)})
	code(t, "GetReport of an image that was not scanned", err, codes.NotFound)

	n.imports(t, record(t, "CVE-2026-1", "3.3.0-r1"))
	scanned, err := n.Scan(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	report := scanned.GetReport()
	if diff := cmp.Diff([]string{"libcrypto3 CVE-2026-1"}, ids(report)); diff != "" || report.GetImage() != `app:1\x0a` || len(report.GetFaults()) != 0 {
		t.Errorf("report = %v", report)
	}
	if v := report.GetVulnerabilities()[0]; v.GetSeverity() != scannerv1.Severity_SEVERITY_CRITICAL || v.GetFixedVersion() != "3.3.0-r1" {
		t.Errorf("vulnerability = %v", v)
	}
	kept, err := n.GetReport(t.Context(), &scannerv1.GetReportRequest{ImageDigest: digest(1)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(report, kept.GetReport(), protocmp.Transform()); diff != "" {
		t.Errorf("GetReport (-scanned +kept):\n%s", diff)
	}

	n.imports(t, record(t, "CVE-2026-1", "3.3.0-r1"), record(t, "CVE-2026-2", "3.3.0-r2"))
	kept, err = n.GetReport(t.Context(), &scannerv1.GetReportRequest{ImageDigest: digest(1)})
	if err != nil {
		t.Fatal(err)
	}
	again := kept.GetReport()
	if diff := cmp.Diff([]string{"libcrypto3 CVE-2026-1", "libcrypto3 CVE-2026-2"}, ids(again)); diff != "" {
		t.Errorf("after an import (-want +got):\n%s", diff)
	}
	if !again.GetAdvisoriesAt().AsTime().After(report.GetAdvisoriesAt().AsTime()) || !again.GetScannedAt().AsTime().Equal(report.GetScannedAt().AsTime()) {
		t.Errorf("after an import: %v and %v, before: %v and %v", again.GetAdvisoriesAt(), again.GetScannedAt(), report.GetAdvisoriesAt(), report.GetScannedAt())
	}
	list, err := n.ListReports(t.Context(), &scannerv1.ListReportsRequest{})
	if err != nil || len(list.GetReports()) != 1 || list.GetReports()[0].GetImageDigest() != digest(1) {
		t.Errorf("ListReports = %v, %v", list, err)
	}
	// Without its store what is kept still answers, and says of when it is.
	if err := os.RemoveAll(n.advisories); err != nil {
		t.Fatal(err)
	}
	if _, err := n.GetReport(t.Context(), &scannerv1.GetReportRequest{ImageDigest: digest(1)}); err != nil {
		t.Error(err)
	}
}

func TestOneScanForAllWhoAsk(t *testing.T) {
	n := serve(t, "enforcer", nil)
	n.imports(t, record(t, "CVE-2026-1", "9"))
	layer := alpine(t, "3.3.0-r0")
	for i := range 4000 { // so that it takes a while
		write(t, layer, fmt.Sprintf("d/%d/%d", i%40, i), "")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := n.Scan(t.Context(), &scannerv1.ScanRequest{Image: "app", ImageDigest: digest(2), Layers: []string{layer}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if done := counted(t, n.registry, "done"); done < 1 || done > 4 {
		t.Errorf("%v scans for eight callers at the same time, want one, or a few if some came late", done)
	}
	if files, _ := os.ReadDir(n.reports); len(files) != 1 {
		t.Errorf("%d reports are kept, want 1", len(files))
	}
	// Without a digest nothing is kept.
	if _, err := n.Scan(t.Context(), &scannerv1.ScanRequest{Layers: []string{layer}}); err != nil {
		t.Error(err)
	}
	if files, _ := os.ReadDir(n.reports); len(files) != 1 {
		t.Errorf("%d reports are kept, want 1", len(files))
	}
}

func counted(t *testing.T, registry *prometheus.Registry, outcome string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "palisade_scanner_scans_total" && metric.GetLabel()[0].GetValue() == outcome {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestBadRequests(t *testing.T) {
	n := serve(t, rpc.Operator, func(c *child.Config) { c.Bounds.Files = 10 })
	n.imports(t, record(t, "CVE-2026-1", "9"))
	layer := alpine(t, "1")
	for name, request := range map[string]*scannerv1.ScanRequest{
		"no layers":      {},
		"a relative one": {Layers: []string{"etc"}},
		"dots":           {Layers: []string{layer + "/../" + filepath.Base(layer)}},
		"not there":      {Layers: []string{layer, "/no/such/layer"}},
		"a file":         {Layers: []string{filepath.Join(layer, "etc/os-release")}},
		"no digest":      {Layers: []string{layer}, ImageDigest: "sha256:../../x"},
		"a long name":    {Layers: []string{layer}, Image: strings.Repeat("x", 2000)},
		"many layers":    {Layers: slices.Repeat([]string{layer}, 501)},
	} {
		_, err := n.Scan(t.Context(), request)
		code(t, "Scan with "+name, err, codes.InvalidArgument)
	}
	_, err := n.GetReport(t.Context(), &scannerv1.GetReportRequest{ImageDigest: "../etc"})
	code(t, "GetReport(../etc)", err, codes.InvalidArgument)
	// A scan that outgrows its bounds fails alone.
	for i := range 20 {
		write(t, layer, fmt.Sprint("x", i), "")
	}
	_, err = n.Scan(t.Context(), &scannerv1.ScanRequest{Layers: []string{layer}, ImageDigest: digest(3)})
	code(t, "Scan of many files", err, codes.ResourceExhausted)
	_, err = n.GetReport(t.Context(), &scannerv1.GetReportRequest{ImageDigest: digest(3)})
	code(t, "GetReport after that", err, codes.NotFound)
	if _, err := n.Scan(t.Context(), &scannerv1.ScanRequest{Layers: []string{alpine(t, "1")}}); err != nil {
		t.Errorf("the next scan: %v", err)
	}
}

func TestCallers(t *testing.T) {
	n := serve(t, "enforcer", nil)
	_, err := n.ListReports(t.Context(), &scannerv1.ListReportsRequest{})
	code(t, "ListReports by the enforcer", err, codes.PermissionDenied)
	_, err = n.GetReport(t.Context(), &scannerv1.GetReportRequest{ImageDigest: digest(1)})
	code(t, "GetReport by the enforcer", err, codes.NotFound)
	n = serve(t, "scanner", nil)
	_, err = n.Scan(t.Context(), &scannerv1.ScanRequest{})
	code(t, "Scan by somebody else", err, codes.PermissionDenied)
}
