// Package deploy carries the files in this directory that programs read: the table of privileges.
package deploy

import _ "embed"

// Privileges is privileges.yaml. Package privilege of the internal module parses it.
//
//go:embed privileges.yaml
var Privileges []byte
