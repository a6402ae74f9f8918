package e2e

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if directory := os.Getenv(asStranger); directory != "" {
		os.Exit(callAsStranger(directory))
	}
	if directory := os.Getenv(asCorrelator); directory != "" {
		os.Exit(enterThroughGate(directory, os.Getenv(criVictim)))
	}
	os.Exit(m.Run())
}

func answers(network, address string) bool {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// eventually polls until ok or the time is over.
func eventually(within time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
