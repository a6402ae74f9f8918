package compliance

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// Limits on expressions.
const (
	maxExpression = 16 << 10
	// maxCost bounds one evaluation, in CEL's measure of work: see BenchmarkEvaluateHostile, which must stay well below the 100 ms that
	// the enforcer has.
	maxCost = 100_000
)

// newEnv is the language of the checks: CEL's standard one, its functions on strings, spec, and the four functions of docs/compliance.md.
func newEnv() (*cel.Env, error) {
	spec := cel.ObjectType("compliance.Spec")
	env, err := cel.NewEnv(
		ext.NativeTypes(reflect.TypeFor[*Spec](), ext.ParseStructTag("json")),
		ext.Strings(),
		cel.Variable("spec", spec),
		cel.Function("hasNamespace", cel.MemberOverload("spec_has_namespace", []*cel.Type{spec, cel.StringType}, cel.BoolType,
			cel.BinaryBinding(func(s, kind ref.Val) ref.Val {
				value, ok := s.Value().(*Spec)
				name, isName := kind.Value().(string)
				if !ok || !isName {
					return types.MaybeNoSuchOverloadErr(s)
				}
				if !slices.Contains(namespaceTypes(), name) {
					return types.NewErr("hasNamespace: %q is not one of %s", name, strings.Join(namespaceTypes(), ", "))
				}
				return types.Bool(value.hasNamespace(name))
			}))),
		cel.Function("capabilities", cel.MemberOverload("spec_capabilities", []*cel.Type{spec}, cel.ListType(cel.StringType),
			cel.UnaryBinding(func(s ref.Val) ref.Val {
				value, ok := s.Value().(*Spec)
				if !ok {
					return types.MaybeNoSuchOverloadErr(s)
				}
				return types.NewStringList(types.DefaultTypeAdapter, value.capabilities())
			}))),
		cel.Function("isWithin", cel.MemberOverload("string_is_within", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
			cel.BinaryBinding(func(file, directory ref.Val) ref.Val {
				inner, isInner := file.Value().(string)
				outer, isOuter := directory.Value().(string)
				if !isInner || !isOuter {
					return types.MaybeNoSuchOverloadErr(file)
				}
				return types.Bool(isWithin(inner, outer))
			}))),
		cel.Function("cleanPath", cel.MemberOverload("string_clean_path", []*cel.Type{cel.StringType}, cel.StringType,
			cel.UnaryBinding(func(file ref.Val) ref.Val {
				name, ok := file.Value().(string)
				if !ok {
					return types.MaybeNoSuchOverloadErr(file)
				}
				return types.String(clean(name))
			}))),
	)
	if err != nil {
		return nil, fmt.Errorf("make the environment of CEL: %w", err)
	}
	return env, nil
}

func namespaceTypes() []string {
	return []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
}

// clean is a path without . and .. and double slashes.
func clean(name string) string {
	if name == "" {
		return ""
	}
	return path.Clean(name)
}

// isWithin says whether a path is the directory or below it.
func isWithin(file, directory string) bool {
	file, directory = clean(file), clean(directory)
	return file == directory || strings.HasPrefix(file, strings.TrimSuffix(directory, "/")+"/")
}

// fault is what is wrong with an expression, and the byte where.
type fault struct {
	offset int
	msg    string
}

// program compiles an expression whose result must be of one of the types. The faults say where it is wrong.
func program(env *cel.Env, expression string, results ...*cel.Type) (cel.Program, []fault) {
	if len(expression) > maxExpression {
		return nil, []fault{{msg: fmt.Sprintf("expression is longer than %d bytes", maxExpression)}}
	}
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		var faults []fault
		for _, e := range issues.Errors() {
			faults = append(faults, fault{offset: offsetOf(expression, e.Location.Line(), e.Location.Column()), msg: e.Message})
		}
		return nil, faults
	}
	if !slices.ContainsFunc(results, ast.OutputType().IsExactType) {
		return nil, []fault{{msg: fmt.Sprintf("expression gives %s, not %s", ast.OutputType(), results[0])}}
	}
	compiled, err := env.Program(ast, cel.CostLimit(maxCost))
	if err != nil {
		return nil, []fault{{msg: err.Error()}}
	}
	return compiled, nil
}

// offsetOf is the byte of a place that CEL tells: lines from 1, columns from 0 in characters.
func offsetOf(s string, line, column int) int {
	offset := 0
	for ; line > 1; line-- {
		end := strings.IndexByte(s[offset:], '\n')
		if end < 0 {
			break
		}
		offset += end + 1
	}
	for i := range s[offset:] {
		if column <= 0 {
			return offset + i
		}
		column--
	}
	return max(0, len(s)-1)
}
