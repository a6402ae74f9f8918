package fences

import (
	"fmt"
	"go/ast"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Limits of STYLE, for code that people write; tests may be longer.
const (
	maxFileLines     = 400
	maxFunctionLines = 60
	maxMainLines     = 15
	maxParameters    = 5
	maxPackageFiles  = 10
)

// CheckShape reports files, functions and packages that are too large, init functions, and vague names.
func CheckShape(files []File) []string {
	var breaches []string
	perPackage := map[string]int{}
	for _, f := range files {
		if f.Generated {
			continue
		}
		if slices.Contains(vague, f.Syntax.Name.Name) {
			breaches = append(breaches, fmt.Sprintf("%s: package %s: the name does not say what it does", f.Path, f.Syntax.Name.Name))
		}
		breaches = append(breaches, f.checkFunctions()...)
		if f.Test {
			continue
		}
		perPackage[f.Directory()]++
		if f.Lines > maxFileLines {
			breaches = append(breaches, fmt.Sprintf("%s: %d lines, at most %d", f.Path, f.Lines, maxFileLines))
		}
	}
	for _, directory := range slices.Sorted(maps.Keys(perPackage)) {
		if n := perPackage[directory]; n > maxPackageFiles {
			breaches = append(breaches, fmt.Sprintf("%s: %d files, at most %d", directory, n, maxPackageFiles))
		}
	}
	return breaches
}

func (f File) checkFunctions() []string {
	var breaches []string
	for _, declaration := range f.Syntax.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := function.Name.Name
		if name == "init" && function.Recv == nil {
			breaches = append(breaches, fmt.Sprintf("%s:%d: init runs before main says so", f.Path, f.line(function)))
		}
		if f.Test {
			continue
		}
		limit := maxFunctionLines
		if name == "main" && f.Syntax.Name.Name == "main" {
			limit = maxMainLines
		}
		lines := f.set.Position(function.End()).Line - f.line(function) + 1
		if lines > limit {
			breaches = append(breaches, fmt.Sprintf("%s:%d: %s has %d lines, at most %d", f.Path, f.line(function), name, lines, limit))
		}
		if n := function.Type.Params.NumFields(); n > maxParameters {
			breaches = append(breaches, fmt.Sprintf("%s:%d: %s has %d parameters, at most %d", f.Path, f.line(function), name, n, maxParameters))
		}
	}
	return breaches
}

// CheckDocs reports packages without a comment, and services whose main does not say what they may do.
func CheckDocs(files []File) []string {
	documented, seen := map[string]bool{}, map[string]bool{}
	var breaches []string
	for _, f := range files {
		if !f.Test {
			seen[f.Directory()] = true
			documented[f.Directory()] = documented[f.Directory()] || f.Syntax.Doc != nil
		}
		service, _ := filepath.Match("services/*/main.go", f.Path)
		second, _ := filepath.Match("services/*/*/main.go", f.Path)
		if (service || second || f.Path == "cli/main.go") && !strings.Contains(f.Syntax.Doc.Text(), "# Privileges") {
			breaches = append(breaches, f.Path+": the command's comment has no section \"# Privileges\"")
		}
	}
	for _, f := range files {
		// A package of tests alone is documented by one of them.
		if f.Test && !seen[f.Directory()] && f.Syntax.Doc != nil {
			documented[f.Directory()] = true
		}
	}
	for _, directory := range slices.Sorted(maps.Keys(seen)) {
		if !documented[directory] && !strings.HasPrefix(directory, "api/") {
			breaches = append(breaches, directory+": the package has no comment")
		}
	}
	return breaches
}
