package fences

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// CheckModules reports modules that go.work does not list or that are not there, and modules of ours that are required
// without a replace line, without which nothing builds with GOWORK=off. Modules of tools are kept out of the workspace:
// their versions are their own.
func CheckModules(root string) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(root, "go.work"))
	if err != nil {
		return nil, err
	}
	work, err := modfile.ParseWork("go.work", raw, nil)
	if err != nil {
		return nil, err
	}
	var listed []string
	for _, use := range work.Use {
		listed = append(listed, filepath.ToSlash(filepath.Clean(use.Path)))
	}
	found, err := findModules(root)
	if err != nil {
		return nil, err
	}
	var breaches []string
	for _, directory := range found {
		tool := within(directory, []string{"tools"})
		if tool == slices.Contains(listed, directory) {
			breaches = append(breaches, fmt.Sprintf("go.work: %s: listed = %v, want %v", directory, tool, !tool))
		}
		more, err := checkReplaces(root, directory)
		if err != nil {
			return nil, err
		}
		breaches = append(breaches, more...)
	}
	for _, directory := range listed {
		if !slices.Contains(found, directory) {
			breaches = append(breaches, fmt.Sprintf("go.work: %s: there is no go.mod", directory))
		}
	}
	return breaches, nil
}

func findModules(root string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "bin" || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if entry.Name() != "go.mod" {
			return nil
		}
		relative, err := filepath.Rel(root, filepath.Dir(path))
		found = append(found, filepath.ToSlash(relative))
		return err
	})
	return found, err
}

func checkReplaces(root, directory string) ([]string, error) {
	path := filepath.Join(root, directory, "go.mod")
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	mod, err := modfile.Parse(path, raw, nil)
	if err != nil {
		return nil, err
	}
	var breaches []string
	if want := Module + "/" + directory; mod.Module.Mod.Path != want {
		breaches = append(breaches, fmt.Sprintf("%s/go.mod: module %s, want %s", directory, mod.Module.Mod.Path, want))
	}
	for _, require := range mod.Require {
		rest, ours := strings.CutPrefix(require.Mod.Path, Module+"/")
		if !ours {
			continue
		}
		i := slices.IndexFunc(mod.Replace, func(r *modfile.Replace) bool { return r.Old.Path == require.Mod.Path })
		if i < 0 || filepath.Join(directory, mod.Replace[i].New.Path) != rest {
			breaches = append(breaches, fmt.Sprintf("%s/go.mod: no replace line to the directory of %s", directory, require.Mod.Path))
		}
	}
	return breaches, nil
}
