package advisory

import (
	"strings"

	"github.com/ossf/osv-schema/bindings/go/osvschema"
	cvss20 "github.com/pandatix/go-cvss/20"
	cvss30 "github.com/pandatix/go-cvss/30"
	cvss31 "github.com/pandatix/go-cvss/31"
	cvss40 "github.com/pandatix/go-cvss/40"
	"google.golang.org/protobuf/types/known/structpb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

// rating is how severe somebody says a vulnerability is.
type rating struct {
	Severity scannerv1.Severity `json:"l"`
	// Score and Vector are 0 and empty if it was said in a word.
	Score   float64  `json:"s,omitempty"`
	Vector  string   `json:"v,omitempty"`
	Factors []string `json:"f,omitempty"`
}

// graver says whether a says worse than b. Either may be nil: nobody has said anything.
func graver(a, b *rating) bool {
	switch {
	case a == nil || b == nil:
		return a != nil
	case a.Severity != b.Severity:
		return a.Severity > b.Severity
	}
	return a.Score > b.Score
}

// words are those that databases use where they have no vector, in lower case. Words that mean that nobody has looked yet are not
// among them.
var words = map[string]scannerv1.Severity{
	"negligible":  scannerv1.Severity_SEVERITY_LOW, // Ubuntu
	"unimportant": scannerv1.Severity_SEVERITY_LOW, // Debian
	"minor":       scannerv1.Severity_SEVERITY_LOW,
	"low":         scannerv1.Severity_SEVERITY_LOW,
	"moderate":    scannerv1.Severity_SEVERITY_MEDIUM, // GitHub, Red Hat
	"medium":      scannerv1.Severity_SEVERITY_MEDIUM,
	"high":        scannerv1.Severity_SEVERITY_HIGH,
	"important":   scannerv1.Severity_SEVERITY_HIGH, // Red Hat
	"critical":    scannerv1.Severity_SEVERITY_CRITICAL,
}

// rate is what an advisory says for one of its packages: by a vector, of the package's before its own, else by a word. It is nil if
// there is neither.
func rate(advisory *osvschema.Vulnerability, affected *osvschema.Affected) *rating {
	for _, severities := range [][]*osvschema.Severity{affected.GetSeverity(), advisory.GetSeverity()} {
		if r := rateVectors(severities); r != nil {
			return r
		}
	}
	for _, severities := range [][]*osvschema.Severity{affected.GetSeverity(), advisory.GetSeverity()} {
		for _, s := range severities {
			if r := rateWord(s.GetScore()); r != nil {
				return r
			}
		}
	}
	for _, specific := range []*structpb.Struct{affected.GetEcosystemSpecific(), affected.GetDatabaseSpecific(), advisory.GetDatabaseSpecific()} {
		for _, key := range []string{"severity", "urgency"} {
			if r := rateWord(specific.GetFields()[key].GetStringValue()); r != nil {
				return r
			}
		}
	}
	return nil
}

// rateVectors takes the newest version of CVSS that is there, and of several by the same the gravest.
func rateVectors(severities []*osvschema.Severity) *rating {
	var best *rating
	newest := 0
	for _, s := range severities {
		r, version := rateVector(s.GetScore())
		if r == nil || version < newest {
			continue
		}
		if version > newest || graver(r, best) {
			best, newest = r, version
		}
	}
	return best
}

func rateWord(word string) *rating {
	severity, ok := words[strings.ToLower(strings.TrimSpace(word))]
	if !ok {
		return nil
	}
	return &rating{Severity: severity}
}

// rateVector reads a vector of any version of CVSS, and says of which; nil if it is none.
func rateVector(text string) (*rating, int) {
	text = strings.TrimSpace(text)
	vector, score, version := parseVector(text)
	if vector == nil {
		return nil, 0
	}
	return &rating{Severity: qualitative(score), Score: score, Vector: text, Factors: factors(vector)}, version
}

// metrics are a vector's values by name.
type metrics interface {
	Get(abbreviation string) (string, error)
}

func parseVector(text string) (vector metrics, score float64, version int) {
	switch {
	case len(text) > maxVersion:
	case strings.HasPrefix(text, "CVSS:4.0/"):
		if v, err := cvss40.ParseVector(text); err == nil {
			return v, v.Score(), 40
		}
	case strings.HasPrefix(text, "CVSS:3.1/"):
		if v, err := cvss31.ParseVector(text); err == nil {
			return v, v.BaseScore(), 31
		}
	case strings.HasPrefix(text, "CVSS:3.0/"):
		if v, err := cvss30.ParseVector(text); err == nil {
			return v, v.BaseScore(), 30
		}
	case strings.HasPrefix(text, "AV:"):
		if v, err := cvss20.ParseVector(text); err == nil {
			return v, v.BaseScore(), 20
		}
	}
	return nil, 0, 0
}

// qualitative is the scale of CVSS 3.1, section 5. A score of 0 says that there is no impact, which is the least we have a word for.
func qualitative(score float64) scannerv1.Severity {
	switch {
	case score >= 9:
		return scannerv1.Severity_SEVERITY_CRITICAL
	case score >= 7:
		return scannerv1.Severity_SEVERITY_HIGH
	case score >= 4:
		return scannerv1.Severity_SEVERITY_MEDIUM
	}
	return scannerv1.Severity_SEVERITY_LOW
}

// factors are what a vector says of how easily the vulnerability is used, sorted. Version 2 asks about authentication instead of
// privileges, and not about interaction.
func factors(vector metrics) []string {
	var found []string
	is := func(metric, value string) bool {
		v, err := vector.Get(metric)
		return err == nil && v == value
	}
	if is("E", "A") { // version 4 alone: attacks were reported
		found = append(found, "exploited")
	}
	if is("AV", "N") {
		found = append(found, "network")
	}
	if is("UI", "N") {
		found = append(found, "no-interaction")
	}
	if is("PR", "N") || is("Au", "N") {
		found = append(found, "no-privileges")
	}
	return found
}
