package channel

import "sync"

// Connection is how the channel is.
type Connection string

// The states of a channel.
const (
	// Off means that no console is configured.
	Off Connection = "off"
	// Waiting means that the certificates are not there, or cannot be used.
	Waiting Connection = "waiting for certificates"
	// Connecting means that nothing is known yet.
	Connecting Connection = "connecting"
	// Connected means that the console can be reached.
	Connected Connection = "connected"
	// Disconnected means that it cannot, or refuses what it gets.
	Disconnected Connection = "disconnected"
)

// State is the connection and, if it is not well, why.
type State struct {
	Connection Connection
	Err        error
}

// State returns how the channel is now.
func (c *Channel) State() State { return c.state.get() }

// stateBox is safe for concurrent use.
type stateBox struct {
	mu    sync.Mutex
	state State // guarded by mu
}

func (b *stateBox) get() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// set stores the state and says whether it is another connection than before.
func (b *stateBox) set(state State) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed = b.state.Connection != state.Connection
	b.state = state
	return changed
}

// disconnected notes a lost connection, but keeps an error that says more.
func (b *stateBox) disconnected(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.Connection != Disconnected || b.state.Err == nil {
		b.state = State{Connection: Disconnected, Err: err}
	}
}
