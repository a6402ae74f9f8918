package inventory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/google/osv-scalibr/extractor"
	apkmeta "github.com/google/osv-scalibr/extractor/filesystem/os/apk/metadata"
	dpkgmeta "github.com/google/osv-scalibr/extractor/filesystem/os/dpkg/metadata"
	rpmmeta "github.com/google/osv-scalibr/extractor/filesystem/os/rpm/metadata"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/escape"
)

// add turns what an extractor found into a package of the report. One whose name or version is too long to be one is a fault.
func (c *collection) add(p *extractor.Package) {
	path := p.Location.PathOrEmpty()
	if p.Name == "unknown" && p.Version == "unknown" { // a Java archive that does not say what it is
		return
	}
	out := &scannerv1.Package{Name: p.Name, Version: p.Version, Ecosystem: p.Ecosystem().String()}
	if url := p.PURL(); url != nil {
		out.Purl = url.String()
	}
	switch m := p.Metadata.(type) {
	case *dpkgmeta.Metadata:
		out.Source, out.SourceVersion = m.SourceName, m.SourceVersion
	case *apkmeta.Metadata:
		out.Source = m.OriginName
	case *rpmmeta.Metadata:
		out.Source = sourceOf(m.SourceRPM)
		if m.Epoch > 0 { // advisories have it in the version, the extractor beside it
			out.Version = fmt.Sprintf("%d:%s", m.Epoch, out.Version)
		}
	}
	if out.GetSource() == out.GetName() && out.GetSourceVersion() == "" {
		out.Source = ""
	}
	for _, text := range []*string{&out.Name, &out.Version, &out.Ecosystem, &out.Source, &out.SourceVersion} {
		if len(*text) > MaxText {
			c.fault(path, "a package whose name or version has more than 512 bytes")
			return
		}
		*text = shown(*text)
	}
	if out.GetName() == "" {
		return
	}
	if len(out.GetPurl()) > 2*MaxText {
		out.Purl = ""
	}
	out.Purl = shownAll(out.GetPurl())
	if path != "" {
		out.Locations = []string{shown(path)}
	}
	c.packages = append(c.packages, out)
}

// sourceOf is the name in name-version-release.src.rpm.
func sourceOf(file string) string {
	parts := strings.Split(file, "-")
	if len(parts) < 3 {
		return ""
	}
	return strings.Join(parts[:len(parts)-2], "-")
}

// shown makes text safe to show, and cuts it.
func shown(text string) string {
	if len(text) > MaxText {
		text = text[:MaxText] + "…"
	}
	return shownAll(text)
}

func shownAll(text string) string { return string(escape.Append(nil, text)) }

// sorted puts packages in order, each once, with its locations.
func sorted(packages []*scannerv1.Package) []*scannerv1.Package {
	order := func(a, b *scannerv1.Package) int {
		return cmp.Or(cmp.Compare(a.GetEcosystem(), b.GetEcosystem()), cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetVersion(), b.GetVersion()),
			cmp.Compare(a.GetSource(), b.GetSource()), cmp.Compare(a.GetSourceVersion(), b.GetSourceVersion()), cmp.Compare(a.GetPurl(), b.GetPurl()))
	}
	slices.SortStableFunc(packages, order)
	var once []*scannerv1.Package
	for _, p := range packages {
		if len(once) == 0 || order(once[len(once)-1], p) != 0 {
			once = append(once, p)
			continue
		}
		last := once[len(once)-1]
		last.Locations = append(last.Locations, p.GetLocations()...)
	}
	for _, p := range once {
		slices.Sort(p.Locations)
		p.Locations = slices.Compact(p.Locations)
		p.Locations = p.Locations[:min(len(p.Locations), MaxLocations)]
	}
	return once
}
