package ask

import (
	"os"
	"path/filepath"
	"time"
)

// How long a container may be held up, from the first instruction on. With the 100 ms that the one has who decides in the enforcer's place, a create and a
// start together take at most 300 ms more with an enforcer that does not answer.
const (
	CreatePatience = 150 * time.Millisecond
	StartPatience  = 50 * time.Millisecond
)

// HookName is the program's that runC calls as a hook: argv[0] of who decides in the enforcer's place tells by it who asks.
const HookName = "palisade-runc-hook"

const (
	// defaultSocket is the enforcer's, where no link says otherwise.
	defaultSocket = "/run/palisade/enforcer-admission.sock"
	// socketName and aloneName are of a link to the socket and of the program that decides in the enforcer's place, in the directory beside who asks.
	socketName = "socket"
	aloneName  = "alone"
)

// Socket is where the enforcer answers who has this directory beside it.
func Socket(beside string) string {
	link := filepath.Join(beside, socketName)
	if _, err := os.Lstat(link); err == nil {
		return link
	}
	return defaultSocket
}

// Alone is the program that decides when the enforcer does not answer, which may not be there.
func Alone(beside string) string { return filepath.Join(beside, aloneName) }
