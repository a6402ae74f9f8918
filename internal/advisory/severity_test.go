package advisory

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ossf/osv-schema/bindings/go/osvschema"
	"google.golang.org/protobuf/encoding/protojson"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

const (
	low      = scannerv1.Severity_SEVERITY_LOW
	medium   = scannerv1.Severity_SEVERITY_MEDIUM
	high     = scannerv1.Severity_SEVERITY_HIGH
	critical = scannerv1.Severity_SEVERITY_CRITICAL
)

func TestRate(t *testing.T) {
	const (
		v2 = "AV:N/AC:L/Au:N/C:P/I:P/A:P"
		v3 = "CVSS:3.1/AV:L/AC:L/PR:L/UI:R/S:U/C:H/I:N/A:N"
		v4 = "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"
	)
	tests := []struct {
		name, advisory string
		want           *rating
	}{
		{"nobody has said anything", `{}`, nil},
		{"version 2", `{"severity": [{"type": "CVSS_V2", "score": "` + v2 + `"}]}`,
			&rating{Severity: high, Score: 7.5, Vector: v2, Factors: []string{"network", "no-privileges"}}},
		{"version 3.0", `{"severity": [{"type": "CVSS_V3", "score": "CVSS:3.0/AV:N/AC:H/PR:N/UI:N/S:U/C:L/I:N/A:N"}]}`,
			&rating{Severity: low, Score: 3.7, Vector: "CVSS:3.0/AV:N/AC:H/PR:N/UI:N/S:U/C:L/I:N/A:N", Factors: []string{"network", "no-interaction", "no-privileges"}}},
		{"version 3.1", `{"severity": [{"type": "CVSS_V3", "score": "` + v3 + `"}]}`, &rating{Severity: medium, Score: 5, Vector: v3}},
		{"version 4.0, exploited", `{"severity": [{"type": "CVSS_V4", "score": "` + v4 + `/E:A"}]}`,
			&rating{Severity: critical, Score: 9.3, Vector: v4 + "/E:A", Factors: []string{"exploited", "network", "no-interaction", "no-privileges"}}},
		{"a high proof of concept is no exploitation", `{"severity": [{"type": "CVSS_V3", "score": "` + v3 + `/E:H"}]}`, &rating{Severity: medium, Score: 5, Vector: v3 + "/E:H"}},
		{"the newest of several", `{"severity": [{"type": "CVSS_V4", "score": "` + v4 + `"}, {"type": "CVSS_V3", "score": "` + v3 + `"}]}`,
			&rating{Severity: critical, Score: 9.3, Vector: v4, Factors: []string{"network", "no-interaction", "no-privileges"}}},
		{"no impact", `{"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:P/AC:H/PR:H/UI:R/S:U/C:N/I:N/A:N"}]}`,
			&rating{Severity: low, Vector: "CVSS:3.1/AV:P/AC:H/PR:H/UI:R/S:U/C:N/I:N/A:N"}},
		{"a vector that is none", `{"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N"}]}`, nil},
		{"a number", `{"severity": [{"type": "CVSS_V3", "score": "9.8"}]}`, nil},
		{"the package's own before the advisory's", `{"severity": [{"type": "CVSS_V4", "score": "` + v4 + `"}], "affected": [{"severity": [{"type": "CVSS_V3", "score": "` + v3 + `"}]}]}`,
			&rating{Severity: medium, Score: 5, Vector: v3}},
		{"a vector before a word", `{"severity": [{"type": "CVSS_V3", "score": "` + v3 + `"}], "database_specific": {"severity": "CRITICAL"}}`, &rating{Severity: medium, Score: 5, Vector: v3}},
		{"GitHub's word", `{"database_specific": {"severity": "MODERATE"}}`, &rating{Severity: medium}},
		{"Ubuntu's", `{"severity": [{"type": "Ubuntu", "score": "negligible"}]}`, &rating{Severity: low}},
		{"Debian's", `{"affected": [{"ecosystem_specific": {"urgency": "high"}}]}`, &rating{Severity: high}},
		{"Red Hat's", `{"affected": [{"database_specific": {"severity": "Important"}}]}`, &rating{Severity: high}},
		{"Debian has not looked yet", `{"affected": [{"ecosystem_specific": {"urgency": "not yet assigned"}}]}`, nil},
		{"a word that is none", `{"database_specific": {"severity": 7}}`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			advisory := &osvschema.Vulnerability{}
			if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(tt.advisory), advisory); err != nil {
				t.Fatal(err)
			}
			affected := &osvschema.Affected{}
			if len(advisory.GetAffected()) > 0 {
				affected = advisory.GetAffected()[0]
			}
			if diff := cmp.Diff(tt.want, rate(advisory, affected)); diff != "" {
				t.Errorf("rate() (-want +got):\n%s", diff)
			}
		})
	}
}

// The bounds of CVSS 3.1, section 5.
func TestQualitative(t *testing.T) {
	for _, tt := range []struct {
		score float64
		want  scannerv1.Severity
	}{{0.1, low}, {3.9, low}, {4, medium}, {6.9, medium}, {7, high}, {8.9, high}, {9, critical}, {10, critical}} {
		if got := qualitative(tt.score); got != tt.want {
			t.Errorf("qualitative(%v) = %v, want %v", tt.score, got, tt.want)
		}
	}
}
