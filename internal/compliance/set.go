package compliance

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types/ref"
)

// Bounds of Failure.Detail: what a hostile spec says ends up on people's terminals.
const (
	maxEvidence     = 10
	maxEvidenceText = 200
)

// Failure is a check that a spec does not pass.
type Failure struct {
	Check Check `json:"check"`
	// Detail is the evidence, or why the check could not be evaluated; may be empty. Texts of the spec in it are quoted.
	Detail string `json:"detail,omitempty"`
}

// Set is checks ready for evaluation. It is safe for concurrent use.
type Set struct{ checks []compiled }

type compiled struct {
	check      Check
	expression cel.Program
	evidence   cel.Program // nil if there is none
}

// Compile makes the checks ready, and reports all that do not compile. What it takes grows with
// the checks: give it only those that are asked for (BenchmarkCompile).
func Compile(checks []Check) (*Set, error) {
	env, err := newEnv()
	if err != nil {
		return nil, err
	}
	set := &Set{}
	var errs []error
	for _, check := range checks {
		c := compiled{check: check}
		var faults []fault
		c.expression, faults = program(env, check.Expression, cel.BoolType)
		if check.Evidence != "" {
			var more []fault
			c.evidence, more = program(env, check.Evidence, evidenceTypes()...)
			faults = append(faults, more...)
		}
		for _, f := range faults {
			errs = append(errs, fmt.Errorf("check %.64q: %s", check.ID, f.msg))
		}
		set.checks = append(set.checks, c)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return set, nil
}

func evidenceTypes() []*cel.Type { return []*cel.Type{cel.ListType(cel.StringType), cel.StringType} }

// Evaluate returns the checks that a config.json fails, in their order. A check that cannot be evaluated has failed. The error is
// of a config.json that is none.
func (s *Set) Evaluate(raw []byte) ([]Failure, error) {
	spec, err := parseSpec(raw)
	if err != nil {
		return nil, err
	}
	variables := map[string]any{"spec": spec}
	var failures []Failure
	for _, c := range s.checks {
		result, _, err := c.expression.Eval(variables)
		switch {
		case err != nil:
			failures = append(failures, Failure{Check: c.check, Detail: fmt.Sprintf("cannot be evaluated: %.*q", maxEvidenceText, err.Error())})
		case result.Value() != true:
			failures = append(failures, Failure{Check: c.check, Detail: c.detail(variables)})
		}
	}
	return failures, nil
}

// detail is the evidence of a failed check.
func (c compiled) detail(variables map[string]any) string {
	if c.evidence == nil {
		return ""
	}
	result, _, err := c.evidence.Eval(variables)
	if err != nil {
		return fmt.Sprintf("no evidence: %.*q", maxEvidenceText, err.Error())
	}
	return describe(result)
}

// describe quotes a text or the first of a list of texts.
func describe(result ref.Val) string {
	if one, ok := result.Value().(string); ok {
		return fmt.Sprintf("%.*q", maxEvidenceText, one)
	}
	list, err := result.ConvertToNative(stringsType())
	if err != nil {
		return fmt.Sprintf("no evidence: %.*q", maxEvidenceText, err.Error())
	}
	texts, _ := list.([]string) // that is what was asked for
	var quoted []string
	for i, one := range texts {
		if i == maxEvidence {
			quoted = append(quoted, fmt.Sprintf("and %d more", len(texts)-i))
			break
		}
		quoted = append(quoted, fmt.Sprintf("%.*q", maxEvidenceText, one))
	}
	return strings.Join(quoted, ", ")
}

func stringsType() reflect.Type { return reflect.TypeFor[[]string]() }
