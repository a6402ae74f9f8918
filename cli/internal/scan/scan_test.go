package scan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	spdxjson "github.com/spdx/tools-golang/json"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

const digest = "sha256:4b7ce07002c69e8f3d704a9c5d6fd3053be500b7f1c69fc0d80990c2ad8dd412"

func sample() *scannerv1.Report {
	at := timestamppb.New(time.Date(2026, 11, 1, 12, 0, 0, 5, time.UTC))
	return &scannerv1.Report{
		Image: "shop:1", ImageDigest: digest, ScannedAt: at, AdvisoriesAt: at,
		Packages: []*scannerv1.Package{
			{Name: "libssl3", Version: "3.0.9-1", Ecosystem: "Debian:12", Purl: "pkg:deb/debian/libssl3@3.0.9-1?arch=amd64", Source: "openssl", Locations: []string{"var/lib/dpkg/status"}},
			{Name: "left-pad", Version: "1.3.0", Ecosystem: "npm", Purl: "pkg:npm/left-pad@1.3.0"},
		},
		Vulnerabilities: []*scannerv1.Vulnerability{
			{
				Id: "CVE-2023-5363", Aliases: []string{"DSA-5532-1"}, Severity: scannerv1.Severity_SEVERITY_HIGH, Score: 7.5, Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N",
				Package: "libssl3", Version: "3.0.9-1", Ecosystem: "Debian:12", FixedVersion: "3.0.11-1~deb12u2", PublishedAt: at, Summary: "keys \x1b[2J",
			},
			{Id: "MAL-1", Package: "left-pad", Version: "1.3.0", Ecosystem: "npm"},
		},
	}
}

// scanner answers as the node's does.
type scanner struct {
	scannerv1.UnimplementedScannerServiceServer
	reports []*scannerv1.Report
}

func (s scanner) ListReports(context.Context, *scannerv1.ListReportsRequest) (*scannerv1.ListReportsResponse, error) {
	return &scannerv1.ListReportsResponse{Reports: s.reports}, nil
}

func (s scanner) GetReport(_ context.Context, req *scannerv1.GetReportRequest) (*scannerv1.GetReportResponse, error) {
	for _, r := range s.reports {
		if r.GetImageDigest() == req.GetImageDigest() {
			return &scannerv1.GetReportResponse{Report: r}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no")
}

// palisade runs the command line against a scanner on a socket.
func palisade(t *testing.T, reports []*scannerv1.Report, args ...string) (string, error) {
	t.Helper()
	me := uint32(os.Getuid())
	sockets := rpc.Sockets{Directory: t.TempDir(), Group: os.Getgid(), UIDs: rpc.UIDs{rpc.Operator: me, "scanner": me}}
	callers := rpc.Callers{}
	for _, method := range []string{scannerv1.ScannerService_GetReport_FullMethodName, scannerv1.ScannerService_ListReports_FullMethodName, scannerv1.ScannerService_Scan_FullMethodName} {
		callers[method] = []string{rpc.Operator}
	}
	server, err := rpc.NewServer(rpc.ServerConfig{Process: "scanner", Callers: callers, UIDs: sockets.UIDs, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	scannerv1.RegisterScannerServiceServer(server, scanner{reports: reports})
	var listener net.Listener
	if listener, err = sockets.Listen("scanner"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	go func() { defer close(done); server.Run(ctx, listener) }()
	defer func() { stop(); <-done }()
	output := "text"
	cmd := New(Options{
		Output: &output, Usage: func(err error) error { return usage{err} },
		Dial:    func(process string) (*grpc.ClientConn, error) { return sockets.Dial(process) },
		Explain: func(process string, err error) error { return errors.Join(errors.New(process), err) },
	})
	cmd.Flags().StringVarP(&output, "output", "o", "text", "")
	var out bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(t.Context())
	return out.String(), err
}

type usage struct{ error }

func TestTable(t *testing.T) {
	out, err := palisade(t, []*scannerv1.Report{sample()}, "shop:1")
	want := `SEVERITY  PACKAGE   INSTALLED  FIXED             ID
high      libssl3   3.0.9-1    3.0.11-1~deb12u2  CVE-2023-5363
unrated   left-pad  1.3.0      -                 MAL-1

shop:1 (` + digest + `): 2 vulnerabilities in 2 packages, scanned at 2026-11-01T12:00:00Z, advisories of 2026-11-01T12:00:00Z
`
	if diff := cmp.Diff(want, out); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	hostile := sample()
	hostile.Vulnerabilities[0].Id = "CVE\x1b[2J\nhigh"
	hostile.Faults = []string{"x\x1b]0;y\a"}
	if out, err := palisade(t, []*scannerv1.Report{hostile}, digest[:20]); err != nil || strings.ContainsAny(out, "\x1b\a") || !strings.Contains(out, `not judged: x\x1b]0;y\x07`) {
		t.Errorf("hostile text: %q, %v", out, err)
	}
}

func TestImageIsFound(t *testing.T) {
	other := sample()
	other.ImageDigest = strings.Replace(digest, "4b7ce", "00000", 1)
	other.Image = "shop:2"
	twin := sample()
	twin.ImageDigest = strings.Replace(digest, "4b7ce", "11111", 1)
	reports := []*scannerv1.Report{sample(), other}
	for _, name := range []string{"shop:1", digest, strings.TrimPrefix(digest, "sha256:"), digest[:7+12], "shop:1@" + digest} {
		if got, err := find(reports, name); err != nil || got != digest {
			t.Errorf("find(%s) = %s, %v", name, got, err)
		}
	}
	for _, name := range []string{"shop", "shop:3", digest[:7+11], "", "sha256:", "shop:2@" + digest} {
		if got, err := find(reports, name); err == nil {
			t.Errorf("find(%s) = %s, want an error", name, got)
		}
	}
	if _, err := find(append(reports, twin), "shop:1"); err == nil || !strings.Contains(err.Error(), twin.GetImageDigest()) {
		t.Errorf("find of a name that two have = %v, want both digests", err)
	}
}

func TestVerdicts(t *testing.T) {
	faulty := sample()
	faulty.Faults = []string{"x"}
	clean := &scannerv1.Report{Image: "shop:1", ImageDigest: digest}
	for _, tt := range []struct {
		name   string
		report *scannerv1.Report
		args   []string
		want   int
	}{
		{"shown", sample(), nil, 0},
		{"high or worse", sample(), []string{"--fail-on", "high"}, 3},
		{"nothing critical", sample(), []string{"--fail-on", "critical"}, 0},
		{"low or worse", sample(), []string{"--fail-on", "low"}, 3},
		{"any of none", clean, []string{"--fail-on", "any", "--strict"}, 0},
		{"faults are shown", faulty, nil, 0},
		{"no faults", faulty, []string{"--strict"}, 4},
		{"both", faulty, []string{"--strict", "--fail-on", "any"}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := palisade(t, []*scannerv1.Report{tt.report}, append(tt.args, "shop:1")...)
			verdict := Verdict{}
			if errors.As(err, &verdict) != (tt.want != 0) || verdict.Code != tt.want || !strings.Contains(out, "shop:1") {
				t.Errorf("%v: exit code %d, want %d, and the report: %q", err, verdict.Code, tt.want, out)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"a", "b"}, {"a", "--list"}, {"a", "--rootfs", "/"}, {"--list", "--rootfs", "/"}, {"a", "-o", "xml"}, {"--list", "-o", "spdx"}, {"a", "--fail-on", "severe"},
	} {
		if _, err := palisade(t, nil, args...); !errors.As(err, &usage{}) {
			t.Errorf("palisade scan %q = %v, want a usage error", args, err)
		}
	}
	for name, args := range map[string][]string{
		"no report of": {"shop:1"}, "no such file": {"--rootfs", "/no/such"}, "name its directory with --bin": {"--rootfs", "/", "--bin", t.TempDir()},
	} {
		if _, err := palisade(t, nil, args...); err == nil || errors.As(err, &usage{}) || !strings.Contains(err.Error(), name) {
			t.Errorf("palisade scan %q = %v, want %q", args, err, name)
		}
	}
}

func TestJSON(t *testing.T) {
	out, err := palisade(t, []*scannerv1.Report{sample()}, "shop:1", "-o", "json")
	var got report
	if err != nil || json.Unmarshal([]byte(out), &got) != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got.Vulnerabilities[0].Severity != "high" || got.Vulnerabilities[1].Severity != "unrated" || got.Packages[0].Source != "openssl" || got.Faults == nil {
		t.Errorf("%+v", got)
	}
	out, err = palisade(t, []*scannerv1.Report{sample()}, "--list", "-o", "json")
	var list []report
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 || list[0].ImageDigest != digest {
		t.Errorf("--list: %v: %s", err, out)
	}
}

// TestCycloneDX reads the document back with the format's own library, and follows its references.
func TestCycloneDX(t *testing.T) {
	r := sample()
	r.Faults = []string{"x"}
	out, err := palisade(t, []*scannerv1.Report{r}, "shop:1", "-o", "cyclonedx")
	if err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(strings.NewReader(out), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if bom.SpecVersion != cdx.SpecVersion1_6 || bom.Metadata.Component.Name != "shop:1" || bom.Metadata.Component.Version != digest || len(*bom.Components) != 2 {
		t.Errorf("bom = %+v", bom)
	}
	if bom.Compositions == nil || (*bom.Compositions)[0].Aggregate != cdx.CompositionAggregateIncomplete {
		t.Errorf("compositions = %v, want incomplete", bom.Compositions)
	}
	names := map[string]string{}
	for _, c := range *bom.Components {
		names[c.BOMRef] = c.Name
	}
	for i, want := range []string{"libssl3", "left-pad"} {
		v := (*bom.Vulnerabilities)[i]
		if len(*v.Affects) != 1 || names[(*v.Affects)[0].Ref] != want {
			t.Errorf("%s affects %v, want %s", v.ID, v.Affects, want)
		}
	}
	first := (*bom.Vulnerabilities)[0]
	rating := (*first.Ratings)[0]
	if rating.Severity != cdx.SeverityHigh || *rating.Score != 7.5 || rating.Method != cdx.ScoringMethodCVSSv31 || first.Recommendation != "Update libssl3 to 3.0.11-1~deb12u2" {
		t.Errorf("vulnerability = %+v, %+v", first, rating)
	}
	if (*(*bom.Vulnerabilities)[1].Ratings)[0].Severity != cdx.SeverityUnknown {
		t.Error("an unrated vulnerability is rated")
	}
}

// TestSPDX reads the document back with the format's own library.
func TestSPDX(t *testing.T) {
	out, err := palisade(t, []*scannerv1.Report{sample()}, "shop:1", "-o", "spdx")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := spdxjson.Read(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if doc.SPDXVersion != "SPDX-2.3" || len(doc.Packages) != 3 || len(doc.Relationships) != 3 || doc.CreationInfo.Created != "2026-11-01T12:00:00Z" {
		t.Errorf("document = %+v", doc)
	}
	ssl := doc.Packages[1]
	if ssl.PackageName != "libssl3" || ssl.PackageComment != "CVE-2023-5363 (high, fixed in 3.0.11-1~deb12u2)" || ssl.PackageSourceInfo != "built from openssl" ||
		ssl.PackageExternalReferences[0].Locator != "pkg:deb/debian/libssl3@3.0.9-1?arch=amd64" {
		t.Errorf("package = %+v", ssl)
	}
	again, err := palisade(t, []*scannerv1.Report{sample()}, "shop:1", "-o", "spdx")
	if err != nil || again != out {
		t.Errorf("the same report is another document: %v", err)
	}
}

func TestRootDirectory(t *testing.T) {
	liar := t.TempDir()
	if err := os.WriteFile(filepath.Join(liar, "palisade-scanner"), []byte("#!/bin/sh\necho 'palisade-scanner: no' >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := palisade(t, nil, "--rootfs", t.TempDir(), "--bin", liar)
	if err == nil || !strings.Contains(out, "palisade-scanner: no") {
		t.Errorf("a scan that fails: %q, %v", out, err)
	}
}
