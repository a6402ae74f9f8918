package scan

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

// ReadReport reads what `palisade scan -o json` wrote, as far as an admission policy looks at it.
func ReadReport(raw []byte) (*scannerv1.Report, error) {
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("it is no report as palisade scan -o json writes it: %w", err)
	}
	if r.Vulnerabilities == nil {
		return nil, errors.New("it is no report as palisade scan -o json writes it: there are no vulnerabilities")
	}
	out := &scannerv1.Report{Image: r.Image, ImageDigest: r.ImageDigest, Faults: r.Faults}
	for i, v := range r.Vulnerabilities {
		severity, ok := severities[v.Severity]
		if !ok && v.Severity != severityWord(scannerv1.Severity_SEVERITY_UNSPECIFIED) {
			return nil, fmt.Errorf("vulnerabilities[%d].severity: %.40q is not known", i, v.Severity)
		}
		fixed, err := instant(v.FixedAt)
		if err != nil {
			return nil, fmt.Errorf("vulnerabilities[%d].fixed_at: %w", i, err)
		}
		out.Vulnerabilities = append(out.Vulnerabilities, &scannerv1.Vulnerability{
			Id: strings.TrimSpace(v.ID), Aliases: v.Aliases, Severity: severity, Score: v.Score, Vector: v.Vector, Package: v.Package, Version: v.Version,
			Ecosystem: v.Ecosystem, FixedVersion: v.FixedVersion, FixedAt: fixed, Summary: v.Summary, RiskFactors: v.RiskFactors, Locations: v.Locations,
		})
	}
	return out, nil
}

// instant is nil for "".
func instant(text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // unset is a value of the contract's
	}
	t, err := time.Parse(time.RFC3339, text)
	return timestamppb.New(t), err
}
