package scan

import (
	"fmt"
	"io"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// identity is a name for a document that is the same for the same report.
func identity(r *scannerv1.Report) (string, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("name the document: %w", err)
	}
	return uuid.NewSHA1(uuid.NameSpaceOID, raw).URN(), nil
}

// writeCycloneDX writes a bill of materials with vulnerabilities, CycloneDX 1.6. https://cyclonedx.org/docs/1.6/json/
func writeCycloneDX(w io.Writer, r *scannerv1.Report) error {
	name, err := identity(r)
	if err != nil {
		return err
	}
	bom := cdx.NewBOM()
	bom.SerialNumber = name
	bom.Metadata = &cdx.Metadata{
		Timestamp: when(r.GetScannedAt()),
		Tools:     &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: "palisade", Version: rpc.Version()}}},
		Component: &cdx.Component{BOMRef: "image", Type: cdx.ComponentTypeContainer, Name: named(r), Version: r.GetImageDigest()},
	}
	if len(r.GetFaults()) > 0 { // what is not listed is not thereby absent
		bom.Compositions = &[]cdx.Composition{{Aggregate: cdx.CompositionAggregateIncomplete, Assemblies: &[]cdx.BOMReference{"image"}}}
	}
	components, refs := []cdx.Component{}, map[[3]string][]string{}
	for i, p := range r.GetPackages() {
		ref := fmt.Sprintf("package-%d", i+1)
		key := [3]string{p.GetEcosystem(), p.GetName(), p.GetVersion()}
		refs[key] = append(refs[key], ref)
		components = append(components, cdx.Component{
			BOMRef: ref, Type: cdx.ComponentTypeLibrary, Name: p.GetName(), Version: p.GetVersion(), PackageURL: p.GetPurl(), Properties: properties(p),
		})
	}
	bom.Components = &components
	vulnerabilities := []cdx.Vulnerability{}
	for i, v := range r.GetVulnerabilities() {
		out := cycloneVulnerability(v, refs[[3]string{v.GetEcosystem(), v.GetPackage(), v.GetVersion()}])
		out.BOMRef = fmt.Sprintf("vulnerability-%d", i+1)
		vulnerabilities = append(vulnerabilities, out)
	}
	bom.Vulnerabilities = &vulnerabilities
	return cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6)
}

// named is the image's name; a document must have one.
func named(r *scannerv1.Report) string {
	if r.GetImage() != "" {
		return r.GetImage()
	}
	return "image"
}

func properties(p *scannerv1.Package) *[]cdx.Property {
	out := []cdx.Property{{Name: "palisade:ecosystem", Value: p.GetEcosystem()}}
	for _, property := range []cdx.Property{{Name: "palisade:source", Value: p.GetSource()}, {Name: "palisade:source_version", Value: p.GetSourceVersion()}} {
		if property.Value != "" {
			out = append(out, property)
		}
	}
	for _, path := range p.GetLocations() {
		out = append(out, cdx.Property{Name: "palisade:location", Value: path})
	}
	return &out
}

func cycloneVulnerability(v *scannerv1.Vulnerability, refs []string) cdx.Vulnerability {
	out := cdx.Vulnerability{ID: v.GetId(), Description: v.GetSummary(), Published: when(v.GetPublishedAt())}
	rating := cdx.VulnerabilityRating{Severity: cdx.SeverityUnknown}
	if v.GetSeverity() != scannerv1.Severity_SEVERITY_UNSPECIFIED {
		rating.Severity = cdx.Severity(severityWord(v.GetSeverity()))
	}
	if v.GetVector() != "" {
		score := v.GetScore()
		rating.Score, rating.Vector, rating.Method = &score, v.GetVector(), method(v.GetVector())
	}
	out.Ratings = &[]cdx.VulnerabilityRating{rating}
	if v.GetFixedVersion() != "" {
		out.Recommendation = "Update " + v.GetPackage() + " to " + v.GetFixedVersion()
	}
	affects := []cdx.Affects{}
	for _, ref := range refs {
		affects = append(affects, cdx.Affects{Ref: ref})
	}
	out.Affects = &affects
	return out
}

// method is the version of CVSS that a vector is in.
func method(vector string) cdx.ScoringMethod {
	switch {
	case strings.HasPrefix(vector, "CVSS:4"):
		return cdx.ScoringMethodCVSSv4
	case strings.HasPrefix(vector, "CVSS:3.1"):
		return cdx.ScoringMethodCVSSv31
	case strings.HasPrefix(vector, "CVSS:3"):
		return cdx.ScoringMethodCVSSv3
	}
	return cdx.ScoringMethodCVSSv2
}
