package kerneltest

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// towards is an interest in connections to networks, given as CIDR and port.
func towards(networks ...*collectorv1.Network) *collectorv1.Interest {
	return &collectorv1.Interest{Classes: []string{"connect", "send"}, Peers: &collectorv1.Peers{Networks: networks}}
}

// reach connects a datagram socket to an address, or sends one there.
func reach(t *testing.T, class, address string) {
	t.Helper()
	to := netip.MustParseAddrPort(address)
	family, peer := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		family, peer = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Skipf("no socket for %s: %v", address, err)
	}
	defer unix.Close(fd)
	if class == "connect" {
		err = unix.Connect(fd, peer)
	} else {
		err = unix.Sendto(fd, []byte("x"), 0, peer)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", class, address, err)
	}
}

// isTo matches an event of a class whose far end has the address.
func isTo(class, address string) func(*eventv1.Event) bool {
	to := netip.MustParseAddrPort(address)
	return func(e *eventv1.Event) bool {
		at := e.GetConnect().GetRemote()
		if class == "send" {
			at = e.GetSocket().GetAddress()
		}
		ip, _ := netip.AddrFromSlice(at.GetIp())
		return e.GetProcess().GetPid() == uint32(os.Getpid()) && classOf(e) == class && ip.Unmap() == to.Addr().Unmap() && at.GetPort() == uint32(to.Port())
	}
}

func TestInterestInPeers(t *testing.T) {
	w := watch(t)
	tests := []struct {
		address string
		want    bool
	}{
		{"127.77.1.1:80", true}, {"127.77.255.9:9", true}, {"127.78.0.1:80", false},
		{"127.79.0.1:443", true}, {"127.79.0.1:444", false},
		{"[::ffff:127.77.1.2]:80", true}, {"[::ffff:127.78.1.2]:80", false},
		{"[::1]:8443", true}, {"[::1]:8444", false},
		{"127.80.0.1:7070", true}, {"127.80.0.1:7071", false},
	}
	marks := 0
	for _, class := range []string{"connect", "send"} {
		w.wants(t, towards(
			&collectorv1.Network{Cidr: "127.77.0.0/16"}, &collectorv1.Network{Cidr: "127.79.0.1/32", Port: 443}, &collectorv1.Network{Cidr: "::1/128", Port: 8443},
			&collectorv1.Network{Cidr: "::/0", Port: 7070}, &collectorv1.Network{Cidr: "127.99.0.0/16"},
		))
		for _, tt := range tests {
			t.Run(class+" "+tt.address, func(t *testing.T) {
				reach(t, class, tt.address)
				marks++
				mark := fmt.Sprintf("127.99.0.1:%d", 1000+marks) // records come in order
				reach(t, class, mark)
				w.await(t, "mark", isTo(class, mark))
				if seen := w.count(isTo(class, tt.address)) > 0; seen != tt.want {
					t.Errorf("%s %s: seen = %v, want %v", class, tt.address, seen, tt.want)
				}
			})
		}
		w.wants(t, &collectorv1.Interest{Classes: []string{"connect", "send"}})
		const everywhere = "127.81.0.1:1"
		reach(t, class, everywhere)
		w.await(t, class+" with an interest in everybody", isTo(class, everywhere))
	}
}

// A peer that nobody asked for costs the workload nothing of its rate, and is not counted as missing.
func TestPeersOfNoInterestCostNoRate(t *testing.T) {
	w := bounded(t, probe.Rates{BulkPerSecond: 1, BurstSeconds: 3})
	w.start(t)
	w.wants(t, towards(&collectorv1.Network{Cidr: "127.77.0.0/16"}))
	mine := newWorkload(t)
	performIn(t, mine.directory, "connect-many", "200") // to 127.0.0.1
	pid, _ := performIn(t, mine.directory, "connect", "udp", "127.77.0.1:5")
	w.await(t, "connect", func(e *eventv1.Event) bool { return e.GetConnect() != nil && e.GetProcess().GetPid() == pid })
	if short := mine.shortfall(t, w.set, record.Connect); short != (probe.Shortfall{}) {
		t.Errorf("%+v connects missing, want none", short)
	}
}
