// Command palisade-runc-hook asks the enforcer whether a container may be created, where no runC shim stands in runC's place.
//
// It is an OCI hook (runtime-spec, config.md, "createRuntime"), which Palisade's NRI plugin gives to the containers of containerd's and CRI-O's
// CRI: runC calls it when the container's namespaces and cgroup are made, before the first instruction of the container. It asks what the shim asks,
// and if the enforcer does not answer it becomes the program that decides in its place. If it fails, runC creates no container, and says why.
//
// # Privileges
//
// runC's, in the host's namespaces. It starts no process, changes no file and opens no network socket. It reads the container's state, which runC
// writes to its standard input, its configuration and its cgroup. It trusts runC, and root at the other end of the socket.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/ask"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/bundle"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/handover"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/realrunc"
)

// maxState bounds what runC writes; annotations are all that is long in it.
const maxState = 4 << 20

// state is what is read of a container's (runtime-spec, runtime.md, "State").
type state struct {
	ID     string `json:"id"`
	PID    int    `json:"pid"`
	Bundle string `json:"bundle"`
}

func main() { os.Exit(run(time.Now())) }

// run returns 0 if the container may be created. What cannot be asked about is created: runC will say what is wrong with it, and the correlator
// that it has not passed.
func run(began time.Time) int {
	raw, err := io.ReadAll(io.LimitReader(os.Stdin, maxState))
	var s state
	if err != nil || json.Unmarshal(raw, &s) != nil || s.ID == "" || s.Bundle == "" {
		fmt.Fprintln(os.Stderr, ask.HookName+": standard input is no container's state: only runC calls this, as a hook")
		return 0
	}
	self, circle := realrunc.FindSelf()
	if circle != nil {
		return 0
	}
	spec := bundle.Spec(s.Bundle)
	answer, err := ask.Ask(ask.Socket(self.Beside()), ask.Question{
		Container: s.ID, Bundle: s.Bundle, Event: ask.Create, Spec: spec, Layers: bundle.Layers(s.Bundle, spec),
	}, began.Add(ask.CreatePatience))
	switch {
	case err != nil:
		// If it is not there, nobody decides. It takes runC's command line, of which it needs this much.
		_ = handover.Exec(ask.Alone(self.Beside()), []string{ask.HookName, "create", "--bundle", s.Bundle, s.ID})
		return 0
	case answer.Denied:
		fmt.Fprintln(os.Stderr, strings.TrimSpace(answer.Refusal()))
		return 1
	}
	_, _ = ask.Ask(ask.Socket(self.Beside()), ask.Question{ // nobody who starts a container waits for who keeps the book
		Container: s.ID, Event: ask.Start, CgroupID: bundle.CgroupOf(s.PID),
	}, time.Now().Add(ask.StartPatience))
	return 0
}
