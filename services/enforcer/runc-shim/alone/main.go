// Command palisade-runc-alone decides whether a container may be created when the enforcer does not answer the runC shim, and then becomes runC.
//
// The shim becomes this program, with runC's command line. So does the hook (services/enforcer/runc-shim/hook), which runC calls: then it only ends. What the enforcer kept on disk is all that it knows: the policy in force, and images by their
// layers. It asks nobody. It leaves a line for the enforcer, so that what was decided is told of. After 100 ms it decides no more:
// with a policy that refuses what cannot be judged the container is refused, otherwise it is created.
//
// # Privileges
//
// The shim's: those of a container engine. It starts no process and opens no network socket. It reads the bundle and the enforcer's directory, and
// appends to one file there. It trusts what root has written.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/internal/admission/kept"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/ask"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/bundle"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/commandline"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/handover"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/realrunc"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/runclog"
)

// patience is how long a container may be held up here, from the first instruction on.
const patience = 100 * time.Millisecond

// directoryName is of a link to the enforcer's directory, beside the shim.
const directoryName = "admission"

func main() { os.Exit(run(time.Now())) }

// run returns only if the container is refused or there is no runC to become.
func run(began time.Time) int {
	argv := os.Args
	if len(argv) == 0 {
		argv = []string{realrunc.Name}
	}
	invocation, parseErr := commandline.Parse(argv[1:])
	self, err := shim()
	refusal := ""
	if err == nil && parseErr == nil {
		refusal = decide(self, invocation, began.Add(patience))
	}
	if refusal == "" && filepath.Base(argv[0]) == ask.HookName {
		return 0 // runC goes on
	}
	if err == nil && refusal == "" {
		err = become(self, argv)
	}
	if err != nil {
		refusal = err.Error()
	}
	log := runclog.Log{Path: invocation.Log, JSON: invocation.LogFormat == "json"}
	_ = log.Error(os.Stderr, time.Now(), refusal) // there is nowhere else to tell it
	return 1
}

// shim is the one that this program is beside: /usr/sbin/runc of /usr/sbin/runc.palisade/alone.
func shim() (realrunc.Self, error) {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return realrunc.Self{}, err
	}
	directory := filepath.Dir(strings.TrimSuffix(path, " (deleted)"))
	of, beside := strings.CutSuffix(directory, realrunc.KeptSuffix)
	if !beside {
		return realrunc.Self{}, fmt.Errorf("%s: it is not beside a shim: only the runC shim calls this", path)
	}
	return realrunc.Of(of)
}

// become turns this process into runC.
func become(self realrunc.Self, argv []string) error {
	errs := []error{fmt.Errorf("%s finds no runC to run", self.Path)}
	for path := range self.Candidates(os.Getenv("PATH")) {
		errs = append(errs, handover.Exec(path, argv))
	}
	return errors.Join(errs...)
}

// decide returns why the container is refused, "" if it is not.
func decide(self realrunc.Self, invocation commandline.Invocation, deadline time.Time) string {
	store, err := kept.Look(directory(self))
	if err != nil {
		return "" // the enforcer has never run here, or its directory is gone
	}
	d := &decision{store: store, container: invocation.Container}
	d.bundle, err = filepath.Abs(invocation.Bundle)
	if err != nil {
		return "" // the working directory is gone: runC will tell
	}
	done := make(chan struct{})
	// In a goroutine of its own, for only this one, on the process's first thread, may become runC. What is not done in time is left behind.
	go func() { defer close(done); d.find(time.Now()) }()
	select {
	case <-done:
	case <-time.After(time.Until(deadline)):
	}
	return d.conclude()
}

func directory(self realrunc.Self) string {
	link := filepath.Join(self.Beside(), directoryName)
	if _, err := os.Lstat(link); err == nil {
		return link
	}
	return kept.DefaultDirectory
}

// read is what the bundle says.
func read(directory string) (spec []byte, layers []string) {
	spec = bundle.Spec(directory)
	return spec, bundle.Layers(directory, spec)
}
