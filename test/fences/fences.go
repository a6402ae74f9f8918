// Package fences reads the source tree and says where it breaks docs/STYLE's rules that a compiler does not know: who
// may import what, where dangerous calls may stand, and how large a thing may grow.
//
// In: a directory with a go.work. Out: one line for every breach, with its place and the rule.
package fences

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is the root of every module's path.
const Module = "github.com/palisade-sec/palisade"

// File is a parsed Go file.
type File struct {
	// Path is relative to the root, with slashes.
	Path      string
	Test      bool
	Generated bool
	Lines     int
	Syntax    *ast.File
	set       *token.FileSet
}

// Directory is where the file is, relative to the root.
func (f File) Directory() string { return filepath.ToSlash(filepath.Dir(f.Path)) }

// Load parses every Go file below root, but not what Go itself ignores (testdata, directories that begin with "." or
// "_"), nor built programs.
func Load(root string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		ignored := strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "bin"
		if entry.IsDir() && path != root && ignored {
			return filepath.SkipDir
		}
		if ignored || entry.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		file, err := parse(root, path)
		if err != nil {
			return err
		}
		files = append(files, file)
		return nil
	})
	return files, err
}

func parse(root, path string) (File, error) {
	set := token.NewFileSet()
	syntax, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return File{}, fmt.Errorf("parse: %w", err)
	}
	relative, err := filepath.Rel(root, path)
	if err != nil {
		return File{}, err
	}
	return File{
		Path: filepath.ToSlash(relative), Test: strings.HasSuffix(path, "_test.go"), Generated: ast.IsGenerated(syntax),
		Lines: set.File(syntax.FileStart).LineCount(), Syntax: syntax, set: set,
	}, nil
}

func (f File) imports() []string {
	var paths []string
	for _, spec := range f.Syntax.Imports {
		if path, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

func (f File) line(node ast.Node) int { return f.set.Position(node.Pos()).Line }

// within says whether a path is one of the places or below one.
func within(path string, places []string) bool {
	return slices.ContainsFunc(places, func(place string) bool {
		return path == place || strings.HasPrefix(path, strings.TrimSuffix(place, "/")+"/")
	})
}

// CheckImports reports packages outside their fences.
func CheckImports(files []File) []string {
	var breaches []string
	for _, f := range files {
		for _, path := range f.imports() {
			for _, fence := range importFences {
				if within(path, fence.packages) && !fence.open(f) {
					breaches = append(breaches, fmt.Sprintf("%s: imports %s: %s", f.Path, path, fence.rule))
				}
			}
			if foreign := foreignService(f, path); foreign != "" {
				breaches = append(breaches, fmt.Sprintf("%s: imports %s: a process is only called, never linked", f.Path, foreign))
			}
		}
	}
	return breaches
}

// foreignService is the path if it is another service's package: in workspace mode Go lets that through.
func foreignService(f File, path string) string {
	rest, ok := strings.CutPrefix(path, Module+"/services/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	if within(f.Path, []string{"services/" + name}) {
		return ""
	}
	return path
}

// CheckCalls reports dangerous functions outside their places. It goes by the name a package is imported under.
func CheckCalls(files []File) []string {
	var breaches []string
	for _, f := range files {
		if f.Test {
			continue
		}
		names := map[string]string{}
		for _, spec := range f.Syntax.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue
			}
			name := path[strings.LastIndexByte(path, '/')+1:]
			if spec.Name != nil {
				name = spec.Name.Name
			}
			names[name] = path
		}
		ast.Inspect(f.Syntax, func(node ast.Node) bool {
			selector, ok := node.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := selector.X.(*ast.Ident)
			if !ok {
				return true
			}
			call := names[pkg.Name] + "." + selector.Sel.Name
			for _, fence := range callFences {
				if slices.Contains(fence.calls, call) && !within(f.Path, fence.places) {
					breaches = append(breaches, fmt.Sprintf("%s:%d: %s: %s", f.Path, f.line(selector), call, fence.rule))
				}
			}
			return true
		})
	}
	return breaches
}
