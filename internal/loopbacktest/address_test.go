package loopbacktest

import (
	"net"
	"testing"
)

func TestAddressesDifferAndCanBeListenedOn(t *testing.T) {
	first, second := Address(t), Address(t)
	if first == second {
		t.Fatalf("Address = %s twice, want two", first)
	}
	for _, address := range []string{first, second} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("Address = %s: %v", address, err)
		}
		defer l.Close()
	}
}

func TestAddressPassesOverOneThatIsTaken(t *testing.T) {
	first := Address(t)
	taken, err := net.Listen("tcp", first)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for range hosts {
		if got := Address(t); got == first {
			t.Fatalf("Address = %s, which is taken", got)
		}
	}
}
