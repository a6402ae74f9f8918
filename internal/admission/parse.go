package admission

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/compliance"
	"github.com/palisade-sec/palisade/internal/document"
)

const (
	maxSerial    = 1 << 30
	maxGraceDays = 3650
)

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// severities are the words of thresholds.
var severities = map[string]scannerv1.Severity{
	"low": scannerv1.Severity_SEVERITY_LOW, "medium": scannerv1.Severity_SEVERITY_MEDIUM,
	"high": scannerv1.Severity_SEVERITY_HIGH, "critical": scannerv1.Severity_SEVERITY_CRITICAL,
}

// severityWords are its keys in their order.
var severityWords = []string{"low", "medium", "high", "critical"}

// Parse reads a policy. The error names every fault with file, line and column.
func Parse(name string, raw []byte) (*Policy, error) {
	file, top := document.Parse(name, raw)
	top.Only("the policy", "version", "serial", "dry_run", "checks", "rules")
	top.Require("the policy", "version").Word("1")
	p := &Policy{DryRun: top.Value("dry_run").Bool()}
	p.Serial = top.Value("serial").Int(1, maxSerial)
	p.checks = checksOf(top)
	names := map[string]bool{}
	rules := top.Require("the policy", "rules")
	if len(rules.Items()) == 0 && rules.Present() {
		rules.Fail("rules has no items: a policy without rules is no file at all")
	}
	for _, item := range rules.Items() {
		p.Rules = append(p.Rules, p.rule(item.Mapping(), names))
	}
	if err := file.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

// checksOf are the built-in checks and the file's own, by id.
func checksOf(top document.Mapping) map[string]compliance.Check {
	checks := map[string]compliance.Check{}
	builtin, err := compliance.Builtin()
	if err != nil {
		top.Fail("%v", err)
	}
	for _, check := range append(builtin, compliance.Parse(top)...) {
		checks[check.ID] = check
	}
	return checks
}

func (p *Policy) rule(m document.Mapping, names map[string]bool) Rule {
	m.Only("a rule", "name", "match", "message", "on_error", "vulnerability", "compliance", "trusted")
	r := Rule{Name: m.Require("a rule", "name").Text()}
	if names[r.Name] && r.Name != "" {
		m.Value("name").Fail("there is another rule of this name")
	}
	names[r.Name] = true
	r.Match = selector(m, "match")
	r.Message = m.Value("message").Text()
	r.DenyOnError = m.Value("on_error").Word("allow", "deny") == "deny"
	r.Vulnerability = vulnerability(m.Value("vulnerability").Mapping())
	r.Compliance = p.compliance(m.Value("compliance"))
	r.Trusted = trusted(m.Value("trusted").Mapping())
	return r
}

func selector(m document.Mapping, key string) Selector {
	sub := m.Value(key).Mapping()
	allowed := []string{"images", "namespaces", "hosts", "labels"}
	if key == "match" {
		allowed = append(allowed, "not")
	}
	sub.Only(key, allowed...)
	s := Selector{Images: sub.Value("images").Texts(), Namespaces: sub.Value("namespaces").Texts(), Hosts: sub.Value("hosts").Texts()}
	if sub.Has("labels") {
		labels := sub.Value("labels").Mapping()
		s.Labels = map[string]string{}
		for _, label := range labels.Keys() {
			s.Labels[label] = labels.Value(label).Text()
		}
	}
	if key == "match" && sub.Has("not") {
		not := selector(sub, "not")
		if not.empty() {
			sub.Value("not").Fail("not is empty: it would undo every match")
		}
		s.Not = &not
	}
	return s
}

func vulnerability(m document.Mapping) Vulnerability {
	m.Only("vulnerability", "alert", "block", "only_fixed", "unrated", "grace_days", "no_grace_for", "exceptions")
	v := Vulnerability{Alert: severity(m, "alert"), Block: severity(m, "block"), Unrated: severity(m, "unrated"), OnlyFixed: m.Value("only_fixed").Bool()}
	grace := m.Value("grace_days").Mapping()
	grace.Only("grace_days", severityWords...)
	if keys := grace.Keys(); len(keys) > 0 {
		v.GraceDays = map[scannerv1.Severity]int{}
		for _, key := range keys {
			v.GraceDays[severities[key]] = grace.Value(key).Int(0, maxGraceDays)
		}
	}
	for _, item := range m.Value("no_grace_for").Items() {
		v.NoGrace = append(v.NoGrace, item.Word("exploited", "network", "no-interaction", "no-privileges"))
	}
	for _, item := range m.Value("exceptions").Items() {
		v.Exceptions = append(v.Exceptions, exception(item.Mapping()))
	}
	return v
}

func exception(m document.Mapping) Exception {
	m.Only("an exception", "id", "package", "reason", "until")
	if !m.Has("id") && !m.Has("package") {
		m.Fail("an exception needs an id or a package")
	}
	return Exception{ID: m.Value("id").Text(), Package: m.Value("package").Text(), Reason: m.Value("reason").Text(), Until: m.Require("an exception", "until").Until()}
}

// compliance compiles the checks that may have an effect, and no others.
func (p *Policy) compliance(v document.Value) Compliance {
	m := v.Mapping()
	m.Only("compliance", "alert", "block", "checks")
	c := Compliance{Alert: m.Value("alert").Word(severityWords...), Block: m.Value("block").Word(severityWords...)}
	single := m.Value("checks").Mapping()
	for _, id := range single.Keys() {
		if _, ok := p.checks[id]; !ok {
			single.Value(id).Fail("there is no check %q: palisade compliance lists them", id)
		}
		if c.Effects == nil {
			c.Effects = map[string]Effect{}
		}
		c.Effects[id] = Effect(single.Value(id).Word(string(Ignore), string(Alert), string(Block)))
	}
	var wanted []compliance.Check
	for _, id := range slices.Sorted(maps.Keys(p.checks)) {
		if c.effect(p.checks[id]) != Ignore {
			wanted = append(wanted, p.checks[id])
		}
	}
	if len(wanted) == 0 {
		return c
	}
	set, err := compliance.Compile(wanted)
	if err != nil {
		v.Fail("compliance: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	c.set = set
	return c
}

func trusted(m document.Mapping) Trusted {
	m.Only("trusted", "effect", "images", "digests", "base_layers")
	t := Trusted{Effect: Block, Images: m.Value("images").Texts(), Digests: digests(m.Value("digests"))}
	if m.Has("effect") {
		t.Effect = Effect(m.Value("effect").Word(string(Ignore), string(Alert), string(Block)))
	}
	for _, item := range m.Value("base_layers").Items() {
		if layers := digests(item); len(layers) > 0 {
			t.BaseLayers = append(t.BaseLayers, layers)
		}
	}
	return t
}

// digests are texts of the form sha256:….
func digests(v document.Value) []string {
	texts := v.Texts()
	for _, text := range texts {
		if !digestForm.MatchString(text) {
			v.Fail("%q is no digest: sha256: and 64 hexadecimal digits", text)
		}
	}
	return texts
}

func severity(m document.Mapping, key string) scannerv1.Severity {
	return severities[m.Value(key).Word(severityWords...)]
}

// expired says whether an exception is over.
func (e Exception) expired(now time.Time) bool { return !now.Before(e.Until) }
