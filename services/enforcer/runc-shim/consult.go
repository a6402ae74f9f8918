package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/ask"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/bundle"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/commandline"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/handover"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/realrunc"
)

// How long a container may be held up, from the first instruction on. With the 100 ms that the one has who decides in the enforcer's place, a create and a
// start together take at most 300 ms more with an enforcer that does not answer.
const (
	createPatience = 150 * time.Millisecond
	startPatience  = 50 * time.Millisecond
)

const (
	// defaultSocket is the enforcer's, where no link beside the shim says otherwise.
	defaultSocket = "/run/palisade/enforcer-admission.sock"
	// socketName and aloneName are of a link to the socket and of the program that decides in the enforcer's place, in the directory beside the shim.
	socketName = "socket"
	aloneName  = "alone"
)

// consult returns why a container is refused, "" if it is not. It does not return if it becomes the one who decides in the enforcer's place.
func consult(self realrunc.Self, invocation commandline.Invocation, argv []string, began time.Time) string {
	switch invocation.Command {
	case "create", "run":
	case "start":
		_, _ = ask.Ask(socket(self), ask.Question{ // nobody who starts a container waits for who keeps the book
			Container: invocation.Container, Root: invocation.Root, Event: ask.Start,
			CgroupID: bundle.CgroupID(invocation.Root, invocation.Container),
		}, began.Add(startPatience))
		return ""
	default:
		return ""
	}
	directory, err := filepath.Abs(invocation.Bundle)
	if err != nil {
		return "" // the working directory is gone: runC will tell
	}
	spec := bundle.Spec(directory)
	answer, err := ask.Ask(socket(self), ask.Question{
		Container: invocation.Container, Bundle: directory, Root: invocation.Root, Event: ask.Create, Spec: spec, Layers: bundle.Layers(directory, spec),
	}, began.Add(createPatience))
	switch {
	case err != nil:
		_ = handover.Exec(filepath.Join(self.Beside(), aloneName), argv) // if it is not there, there is only runC
		return ""
	case answer.Denied && answer.Message == "":
		return "Palisade refuses this container"
	case answer.Denied:
		return answer.Message
	}
	return ""
}

// socket is where the enforcer answers.
func socket(self realrunc.Self) string {
	link := filepath.Join(self.Beside(), socketName)
	if _, err := os.Lstat(link); err == nil {
		return link
	}
	return defaultSocket
}
