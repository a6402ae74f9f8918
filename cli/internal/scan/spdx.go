package scan

import (
	"fmt"
	"io"
	"strings"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// unknown is SPDX's word for what nobody looked at.
const unknown = "NOASSERTION"

// writeSPDX writes a bill of materials, SPDX 2.3, whose packages' comments name what is known against them.
// https://spdx.github.io/spdx-spec/v2.3/
func writeSPDX(w io.Writer, r *scannerv1.Report) error {
	namespace, err := identity(r)
	if err != nil {
		return err
	}
	known := map[[3]string][]string{}
	for _, v := range r.GetVulnerabilities() {
		key := [3]string{v.GetEcosystem(), v.GetPackage(), v.GetVersion()}
		text := v.GetId() + " (" + severityWord(v.GetSeverity())
		if v.GetFixedVersion() != "" {
			text += ", fixed in " + v.GetFixedVersion()
		}
		known[key] = append(known[key], text+")")
	}
	image := spdxPackage("image", named(r), r.GetImageDigest())
	image.PrimaryPackagePurpose = "CONTAINER"
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: named(r), DocumentNamespace: namespace,
		CreationInfo: &spdx.CreationInfo{
			Created: when(r.GetScannedAt()), Creators: []common.Creator{{CreatorType: "Tool", Creator: "palisade-" + rpc.Version()}},
		},
		Packages:      []*spdx.Package{image},
		Relationships: []*spdx.Relationship{relationship("DOCUMENT", "image", common.TypeRelationshipDescribe)},
	}
	if n := len(r.GetFaults()); n > 0 {
		doc.DocumentComment = fmt.Sprintf("Not all could be read or judged: %d faults. The first: %s", n, r.GetFaults()[0])
	}
	for i, p := range r.GetPackages() {
		out := spdxPackage(fmt.Sprintf("package-%d", i+1), p.GetName(), p.GetVersion())
		if p.GetSource() != "" {
			out.PackageSourceInfo = strings.TrimSpace("built from " + p.GetSource() + " " + p.GetSourceVersion())
		}
		if p.GetPurl() != "" {
			out.PackageExternalReferences = []*spdx.PackageExternalReference{{
				Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: p.GetPurl(),
			}}
		}
		out.PackageComment = strings.Join(known[[3]string{p.GetEcosystem(), p.GetName(), p.GetVersion()}], "; ")
		doc.Packages = append(doc.Packages, out)
		doc.Relationships = append(doc.Relationships, relationship("image", string(out.PackageSPDXIdentifier), common.TypeRelationshipContains))
	}
	return spdxjson.Write(doc, w, spdxjson.Indent("  "))
}

func spdxPackage(id, name, version string) *spdx.Package {
	return &spdx.Package{
		PackageName: name, PackageSPDXIdentifier: common.ElementID(id), PackageVersion: version, PackageDownloadLocation: unknown, PackageLicenseConcluded: unknown,
		PackageLicenseDeclared: unknown, PackageCopyrightText: unknown,
	}
}

func relationship(from, to, kind string) *spdx.Relationship {
	return &spdx.Relationship{RefA: common.MakeDocElementID("", from), RefB: common.MakeDocElementID("", to), Relationship: kind}
}
