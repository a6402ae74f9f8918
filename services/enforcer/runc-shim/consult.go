package main

import (
	"path/filepath"
	"time"

	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/ask"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/bundle"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/commandline"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/handover"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/realrunc"
)

// consult returns why a container is refused, "" if it is not. It does not return if it becomes the one who decides in the enforcer's place.
func consult(self realrunc.Self, invocation commandline.Invocation, argv []string, began time.Time) string {
	switch invocation.Command {
	case "create", "run":
	case "start":
		_, _ = ask.Ask(ask.Socket(self.Beside()), ask.Question{ // nobody who starts a container waits for who keeps the book
			Container: invocation.Container, Root: invocation.Root, Event: ask.Start,
			CgroupID: bundle.CgroupID(invocation.Root, invocation.Container),
		}, began.Add(ask.StartPatience))
		return ""
	default:
		return ""
	}
	directory, err := filepath.Abs(invocation.Bundle)
	if err != nil {
		return "" // the working directory is gone: runC will tell
	}
	spec := bundle.Spec(directory)
	answer, err := ask.Ask(ask.Socket(self.Beside()), ask.Question{
		Container: invocation.Container, Bundle: directory, Root: invocation.Root, Event: ask.Create, Spec: spec, Layers: bundle.Layers(directory, spec),
	}, began.Add(ask.CreatePatience))
	switch {
	case err != nil:
		_ = handover.Exec(ask.Alone(self.Beside()), argv) // if it is not there, there is only runC
		return ""
	case answer.Denied:
		return answer.Refusal()
	}
	return ""
}
