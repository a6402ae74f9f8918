// Package rules carries Palisade's own rule pack inside the correlator's binary, so that a node
// without any configuration still has rules. It is data: package rule reads it as it reads a file.
package rules

import _ "embed"

// FileName is how the pack is called in messages.
const FileName = "palisade.yaml"

// Palisade is the pack, as text of package rule's language. Callers must not change it.
//
//go:embed palisade.yaml
var Palisade []byte
