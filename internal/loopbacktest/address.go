// Package loopbacktest gives a test addresses to listen on that nothing else takes meanwhile. It is for tests only; no
// process links it.
package loopbacktest

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// port is below every range that ephemeral ports are taken from (ip_local_port_range), so no outgoing connection holds it.
const port = 18083

// hosts is how many addresses a process hands out before they come again.
const hosts = 250

var given atomic.Uint32 //nolint:gochecknoglobals // tests of one process share the addresses

// Address returns a free host:port of 127.0.0.0/8, all of which is this machine (RFC 1122, 3.2.1.3). A port that was free
// when it was asked for can be taken before it is used; an address that belongs to this process and to one call cannot.
func Address(t testing.TB) string {
	t.Helper()
	pid := os.Getpid()
	var err error
	for range hosts {
		n := given.Add(1)
		address := fmt.Sprintf("127.%d.%d.%d:%d", 1+pid>>8&0x7f, pid&0xff, 1+n%hosts, port)
		var probe net.Listener
		if probe, err = net.Listen("tcp", address); err == nil {
			if err := probe.Close(); err != nil {
				t.Fatal(err)
			}
			return address
		}
	}
	t.Fatalf("no free address on the loopback network: %v", err)
	return ""
}
