// Command palisade-runc is the runC shim: an OCI runtime that stands where runC stood, and becomes the real one.
//
// It has nothing to do with containerd's shims. A container engine calls it with runC's command line. It reads that, asks the enforcer
// whether a container may be created, finds the real runC, and is replaced by it (execve), with the same arguments, environment,
// descriptors, limits, signals and working directory. From then on there is only runC: exit code, output, signals and log are its own. If
// the enforcer does not answer in time it becomes the program that decides in its place, if that is there. If nothing of Palisade
// is left on the host but this file, it becomes runC.
//
// # Privileges
//
// Those of its caller, a container engine: nearly always root with everything. It starts no process, changes no file
// (but runC's log, if a container is refused or there is no runC to write it) and opens no network socket. It reads the configuration of a
// container that is to be created, runC's state of one that starts, and the files of candidates for the real runC that are small
// enough to be shims themselves. It trusts its caller, the owners of the directories of PATH and of its own, and root at the other end of the socket.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/commandline"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/handover"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/realrunc"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/runclog"
)

func main() { os.Exit(run(time.Now())) }

// run returns only if the container is refused or there is no runC to become, with runC's exit code for whatever goes wrong.
func run(began time.Time) int {
	argv := os.Args
	if len(argv) == 0 {
		argv = []string{realrunc.Name}
	}
	self, circle := realrunc.FindSelf()
	// An error in the command line is runC's to tell; what is known of the log is good enough for what there is to tell here.
	invocation, err := commandline.Parse(argv[1:])
	refusal := ""
	if err == nil && circle == nil {
		refusal = consult(self, invocation, argv, began)
	}
	if refusal == "" {
		refusal = become(self, circle, argv).Error()
	}
	log := runclog.Log{Path: invocation.Log, JSON: invocation.LogFormat == "json"}
	_ = log.Error(os.Stderr, time.Now(), refusal) // there is nowhere else to tell it
	return 1
}

// become turns this process into the real runC, and returns why it could not.
func become(self realrunc.Self, circle error, argv []string) error {
	if circle != nil {
		return fmt.Errorf("%s finds no runC to run: %w: put runC itself at %s", realrunc.Name, circle, self.Kept())
	}
	var tried []string
	for path := range self.Candidates(os.Getenv("PATH")) {
		err := handover.Exec(path, named(argv, path))
		if errors.Is(err, syscall.E2BIG) {
			return err // of the arguments, not of the program
		}
		tried = append(tried, err.Error())
	}
	why := "there is none beside it or in PATH"
	if len(tried) > 0 {
		why = strings.Join(tried, ", ")
	}
	return fmt.Errorf("%s finds no runC to run (%s): install runC (Debian's package runc), or put it at %s", realrunc.Name, why, self.Kept())
}

// named gives the arguments that name to runC by which it was called, or would have been: it tells it in messages and
// gives it to the process that it starts in the container.
func named(argv []string, path string) []string {
	if filepath.Base(argv[0]) == filepath.Base(path) {
		return argv
	}
	return append([]string{filepath.Base(path)}, argv[1:]...)
}
