package scan

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/escape"
)

// shown makes foreign text safe for a terminal.
func shown(text string) string { return string(escape.Append(nil, text)) }

// severityWord is a severity as people, CycloneDX and --fail-on write it.
func severityWord(s scannerv1.Severity) string {
	if s == scannerv1.Severity_SEVERITY_UNSPECIFIED {
		return "unrated"
	}
	return strings.ToLower(strings.TrimPrefix(s.String(), "SEVERITY_"))
}

func write(w io.Writer, format string, r *scannerv1.Report) error {
	switch format {
	case "json":
		return writeJSON(w, newReport(r))
	case "cyclonedx":
		return writeCycloneDX(w, r)
	case "spdx":
		return writeSPDX(w, r)
	}
	return writeText(w, r)
}

func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// writeText writes a table, worst first, and what it is a table of.
func writeText(w io.Writer, r *scannerv1.Report) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.GetVulnerabilities()) > 0 {
		fmt.Fprintln(out, "SEVERITY\tPACKAGE\tINSTALLED\tFIXED\tID")
	}
	for _, v := range r.GetVulnerabilities() {
		fixed := v.GetFixedVersion()
		if fixed == "" {
			fixed = "-"
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", severityWord(v.GetSeverity()), shown(v.GetPackage()), shown(v.GetVersion()), shown(fixed), shown(v.GetId()))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if len(r.GetVulnerabilities()) > 0 {
		fmt.Fprintln(w)
	}
	name := r.GetImage()
	if r.GetImageDigest() != "" {
		name += " (" + r.GetImageDigest() + ")"
	}
	_, err := fmt.Fprintf(w, "%s: %d vulnerabilities in %d packages, scanned at %s, advisories of %s\n", shown(name), len(r.GetVulnerabilities()),
		len(r.GetPackages()), when(r.GetScannedAt()), when(r.GetAdvisoriesAt()))
	for _, line := range r.GetFaults() {
		fmt.Fprintf(w, "not judged: %s\n", shown(line))
	}
	return err
}

func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Truncate(time.Second).Format(time.RFC3339)
}

// report is a report as JSON.
type report struct {
	Image           string          `json:"image"`
	ImageDigest     string          `json:"image_digest,omitempty"`
	ScannedAt       string          `json:"scanned_at"`
	AdvisoriesAt    string          `json:"advisories_at"`
	Packages        []pkg           `json:"packages"`
	Vulnerabilities []vulnerability `json:"vulnerabilities"`
	Faults          []string        `json:"faults"`
}

type pkg struct {
	Name          string   `json:"name"`
	Version       string   `json:"version"`
	Ecosystem     string   `json:"ecosystem"`
	PURL          string   `json:"purl,omitempty"`
	Source        string   `json:"source,omitempty"`
	SourceVersion string   `json:"source_version,omitempty"`
	Locations     []string `json:"locations"`
}

type vulnerability struct {
	ID           string   `json:"id"`
	Aliases      []string `json:"aliases"`
	Severity     string   `json:"severity"`
	Score        float64  `json:"score,omitempty"`
	Vector       string   `json:"vector,omitempty"`
	Package      string   `json:"package"`
	Version      string   `json:"version"`
	Ecosystem    string   `json:"ecosystem"`
	FixedVersion string   `json:"fixed_version,omitempty"`
	FixedAt      string   `json:"fixed_at,omitempty"`
	PublishedAt  string   `json:"published_at,omitempty"`
	Summary      string   `json:"summary,omitempty"`
	RiskFactors  []string `json:"risk_factors"`
	Locations    []string `json:"locations"`
}

func newReport(r *scannerv1.Report) report {
	out := report{
		Image: r.GetImage(), ImageDigest: r.GetImageDigest(), ScannedAt: when(r.GetScannedAt()), AdvisoriesAt: when(r.GetAdvisoriesAt()),
		Packages: []pkg{}, Vulnerabilities: []vulnerability{}, Faults: list(r.GetFaults()),
	}
	for _, p := range r.GetPackages() {
		out.Packages = append(out.Packages, pkg{
			Name: p.GetName(), Version: p.GetVersion(), Ecosystem: p.GetEcosystem(), PURL: p.GetPurl(), Source: p.GetSource(), SourceVersion: p.GetSourceVersion(),
			Locations: list(p.GetLocations()),
		})
	}
	for _, v := range r.GetVulnerabilities() {
		out.Vulnerabilities = append(out.Vulnerabilities, vulnerability{
			ID: v.GetId(), Aliases: list(v.GetAliases()), Severity: severityWord(v.GetSeverity()), Score: v.GetScore(), Vector: v.GetVector(), Package: v.GetPackage(),
			Version: v.GetVersion(), Ecosystem: v.GetEcosystem(), FixedVersion: v.GetFixedVersion(), FixedAt: when(v.GetFixedAt()), PublishedAt: when(v.GetPublishedAt()),
			Summary: v.GetSummary(), RiskFactors: list(v.GetRiskFactors()), Locations: list(v.GetLocations()),
		})
	}
	return out
}

// list is never null in JSON.
func list(values []string) []string { return append([]string{}, values...) }

// writeList writes which images there are reports of.
func writeList(w io.Writer, format string, reports []*scannerv1.Report) error {
	if format == "json" {
		lines := []report{}
		for _, r := range reports {
			lines = append(lines, newReport(r))
		}
		return writeJSON(w, lines)
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "IMAGE\tDIGEST\tSCANNED\tADVISORIES OF\tFAULTS")
	for _, r := range reports {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%d\n", shown(r.GetImage()), shown(r.GetImageDigest()), when(r.GetScannedAt()), when(r.GetAdvisoriesAt()), len(r.GetFaults()))
	}
	return out.Flush()
}
