package dnsname

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

func answer(cgroup uint64, at time.Duration, question string, ttl uint32, data ...string) *eventv1.Event {
	dns := &eventv1.Dns{Response: true, Questions: []*eventv1.DnsQuestion{{Name: question}}}
	for _, d := range data {
		dns.Answers = append(dns.Answers, &eventv1.DnsAnswer{Name: "alias.example", Data: d, Ttl: ttl})
	}
	return &eventv1.Event{WorkloadCgroupId: cgroup, BoottimeNs: uint64(at), Kind: &eventv1.Event_Dns{Dns: dns}}
}

func names(c *Cache, cgroup uint64, at time.Duration, ip string) []string {
	var got []string
	c.Any(&eventv1.Event{WorkloadCgroupId: cgroup, BoottimeNs: uint64(at)}, netip.MustParseAddr(ip), func(n string) bool {
		got = append(got, n)
		return false
	})
	return got
}

func TestNamesOfAnAddress(t *testing.T) {
	c := New()
	c.Learn(answer(7, 0, "A.Example", 5, "alias.example", "192.0.2.1", "2001:db8::1"))
	c.Learn(answer(7, time.Minute, "b.example", 3600, "192.0.2.1"))
	question := answer(7, 0, "c.example", 5, "192.0.2.1")
	question.GetDns().Response = false
	c.Learn(question)
	tests := []struct {
		name   string
		cgroup uint64
		at     time.Duration
		ip     string
		want   []string
	}{
		{"both", 7, time.Minute, "192.0.2.1", []string{"a.example", "b.example"}},
		{"within IPv6", 7, time.Minute, "::ffff:192.0.2.1", []string{"a.example", "b.example"}},
		{"of the other family", 7, 0, "2001:db8::1", []string{"a.example"}},
		{"longer than its time to live", 7, 9 * time.Minute, "192.0.2.1", []string{"a.example", "b.example"}},
		{"the first has passed", 7, 11 * time.Minute, "192.0.2.1", []string{"b.example"}},
		{"both have", 7, 2 * time.Hour, "192.0.2.1", nil},
		{"another workload's", 8, 0, "192.0.2.1", nil},
		{"another address", 7, 0, "192.0.2.2", nil},
	}
	for _, tt := range tests {
		if got := names(c, tt.cgroup, tt.at, tt.ip); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	c := New()
	for i := range 3 * maxAddresses {
		c.Learn(answer(uint64(i), 0, "a.example", 5, "192.0.2.1"))
	}
	for i := range 100 {
		c.Learn(answer(1<<40, 0, fmt.Sprintf("%d.example", i), 5, "192.0.2.1"))
	}
	if len(c.entries) != maxAddresses || c.recent.Len() != maxAddresses {
		t.Errorf("%d addresses in a list of %d, want %d", len(c.entries), c.recent.Len(), maxAddresses)
	}
	if got := names(c, 1<<40, 0, "192.0.2.1"); len(got) != maxNames || got[maxNames-1] != "99.example" {
		t.Errorf("names = %q, want the last %d", got, maxNames)
	}
}
