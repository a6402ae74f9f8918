// Package rules carries Palisade's own rule pack inside the correlator's binary, so that a node
// without any configuration still has rules. It is data: package rule reads it as it reads any file.
package rules

import (
	"embed"
	"fmt"

	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

//go:embed *.yaml
var files embed.FS

// Sources is the pack, one file a subject, sorted by name. In messages a file is called builtin/NAME.yaml.
func Sources() ([]rule.Source, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("built-in rules: %w", err)
	}
	sources := make([]rule.Source, 0, len(entries))
	for _, entry := range entries {
		raw, err := files.ReadFile(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("built-in rules: %w", err)
		}
		sources = append(sources, rule.Source{Name: "builtin/" + entry.Name(), Data: raw})
	}
	return sources, nil
}
