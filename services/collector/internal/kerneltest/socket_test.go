package kerneltest

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

func isConnect(pid uint32) func(*eventv1.Event) bool {
	return func(e *eventv1.Event) bool { return e.GetConnect() != nil && e.GetProcess().GetPid() == pid }
}

// endpoint is a socket address as text.
func endpoint(a *eventv1.SocketAddress) string {
	ip, _ := netip.AddrFromSlice(a.GetIp())
	return netip.AddrPortFrom(ip, uint16(a.GetPort())).String()
}

// A decision of the kernel is told before its outcome, with the peer from the kernel's own copy of the address.
func TestConnect(t *testing.T) {
	w := watch(t)
	decided := w.set.Tier() != probe.TierTracepoint
	listen := func(address string) string {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.Addr().String()
	}
	const kernel, argument = eventv1.PathSource_PATH_SOURCE_KERNEL, eventv1.PathSource_PATH_SOURCE_ARGUMENT
	tests := []struct {
		name, kind, to string
		family, proto  uint32
		fails          bool
		source         eventv1.PathSource
	}{
		{name: "accepted", kind: "tcp", to: listen("127.0.0.1:0"), family: unix.AF_INET, proto: unix.IPPROTO_TCP, source: kernel},
		{name: "refused", kind: "tcp", to: "127.0.0.1:9", family: unix.AF_INET, proto: unix.IPPROTO_TCP, fails: true, source: argument},
		{name: "no route", kind: "tcp", to: "[2001:db8::1]:80", family: unix.AF_INET6, proto: unix.IPPROTO_TCP, fails: true, source: argument},
		{name: "IPv6", kind: "tcp", to: listen("[::1]:0"), family: unix.AF_INET6, proto: unix.IPPROTO_TCP, source: kernel},
		{name: "UDP", kind: "udp", to: "127.0.0.1:53", family: unix.AF_INET, proto: unix.IPPROTO_UDP, source: kernel},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pid, errno := perform(t, "connect", tt.kind, tt.to)
			if errno == strconv.Itoa(int(unix.EAFNOSUPPORT)) || errno == strconv.Itoa(int(unix.EADDRNOTAVAIL)) {
				t.Skipf("connect to %s: errno %s on this machine", tt.to, errno)
			}
			got := w.await(t, "connect", isConnect(pid)).GetConnect()
			if got.GetFamily() != tt.family || got.GetProtocol() != tt.proto {
				t.Errorf("family, protocol = %d, %d, want %d, %d", got.GetFamily(), got.GetProtocol(), tt.family, tt.proto)
			}
			source := tt.source
			if decided {
				source = kernel
			}
			if endpoint(got.GetRemote()) != tt.to || got.GetRemoteSource() != source {
				t.Errorf("remote = %s (%v), want %s (%v)", endpoint(got.GetRemote()), got.GetRemoteSource(), tt.to, source)
			}
			if decided {
				return
			}
			if want := "-" + errno; tt.fails && strconv.Itoa(int(got.GetResult())) != want {
				t.Errorf("result = %d, want %s", got.GetResult(), want)
			}
			if tt.fails != (got.GetResult() != 0) {
				t.Errorf("result = %d, want a failure: %v", got.GetResult(), tt.fails)
			}
			if !tt.fails && got.GetLocal().GetPort() == 0 {
				t.Error("local port = 0, want the one the kernel chose")
			}
		})
	}
}

func TestAccept(t *testing.T) {
	w := watch(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			event := w.await(t, "accept", func(e *eventv1.Event) bool {
				return endpoint(e.GetAccept().GetRemote()) == client.LocalAddr().String()
			})
			if got := endpoint(event.GetAccept().GetLocal()); got != l.Addr().String() {
				t.Errorf("local = %s, want %s", got, l.Addr())
			}
			if got := event.GetAccept().GetProtocol(); got != unix.IPPROTO_TCP {
				t.Errorf("protocol = %d, want TCP", got)
			}
		})
	}
}
