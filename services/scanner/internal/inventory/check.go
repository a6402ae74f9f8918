package inventory

import (
	"errors"
	"fmt"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

// Check says whether a report is one that Collect may have made: packages and faults within their bounds, and nothing else.
func Check(r *scannerv1.Report) error {
	if r.GetImage() != "" || r.GetImageDigest() != "" || r.GetScannedAt() != nil || r.GetAdvisoriesAt() != nil || len(r.GetVulnerabilities()) != 0 {
		return errors.New("it says more than which packages there are")
	}
	if len(r.GetPackages()) > MaxPackages || len(r.GetFaults()) > MaxFaults {
		return fmt.Errorf("%d packages and %d faults, at most %d and %d", len(r.GetPackages()), len(r.GetFaults()), MaxPackages, MaxFaults)
	}
	for _, line := range r.GetFaults() {
		if err := text(line); err != nil {
			return fmt.Errorf("fault: %w", err)
		}
	}
	for i, p := range r.GetPackages() {
		if p.GetName() == "" || len(p.GetLocations()) > MaxLocations {
			return fmt.Errorf("package %d: no name, or too many locations", i)
		}
		for _, value := range append([]string{p.GetName(), p.GetVersion(), p.GetEcosystem(), p.GetPurl(), p.GetSource(), p.GetSourceVersion()}, p.GetLocations()...) {
			if err := text(value); err != nil {
				return fmt.Errorf("package %d: %w", i, err)
			}
		}
	}
	return nil
}

// maxShown is how long a text becomes at most when each byte is shown as \xNN.
const maxShown = 4096

// text refuses what Collect would not have written: too long, or with something in it that would have to be escaped.
func text(value string) error {
	if len(value) > maxShown {
		return fmt.Errorf("a text of %d bytes, at most %d", len(value), maxShown)
	}
	if shownAll(value) != value {
		return errors.New("unprintable text")
	}
	return nil
}
