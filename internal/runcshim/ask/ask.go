// Package ask runs runtimes to hear what they call themselves.
//
// In: the path of a program. Out: what it says to --version, through the shim where that stands at the path. It starts nothing else.
package ask

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const (
	patience = 5 * time.Second
	// longest is how much of an answer is of interest, in bytes.
	longest = 4096
)

// Version returns what the program answers to --version.
func Version(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out[:min(len(out), longest)]))
	if err != nil {
		return "", fmt.Errorf("%s --version: %w: %s", path, err, text)
	}
	return text, nil
}

// Short is the version in an answer of runC's: "1.1.5" of "runc version 1.1.5".
func Short(answer string) string {
	first, _, _ := strings.Cut(answer, "\n")
	return strings.TrimPrefix(strings.TrimSpace(first), "runc version ")
}
