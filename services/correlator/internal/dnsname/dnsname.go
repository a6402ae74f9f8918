// Package dnsname remembers by which names workloads asked for addresses. Data in: DNS answers as the kernel saw them; data out: for
// an address the names. What one workload is told says nothing about another's connections: whoever watches us may answer itself
// what it likes, but only to itself. Memory is bounded. One goroutine owns a Cache.
package dnsname

import (
	"container/list"
	"net/netip"
	"slices"
	"strings"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

const (
	// maxAddresses bounds the cache; beyond it the address that was answered longest ago is forgotten.
	maxAddresses = 8192
	// maxNames is how many names of one address are kept, the latest.
	maxNames = 8
	// atLeast is how long a name is remembered, whatever its time to live: programs keep addresses longer than that.
	atLeast = 10 * time.Minute
)

// owner tells workloads apart: the registered cgroup, zero for the host and all that nobody has registered.
type owner uint64

type key struct {
	owner owner
	ip    netip.Addr
}

type entry struct {
	key   key
	names []name
}

type name struct {
	text string
	// until is in nanoseconds since boot.
	until uint64
}

// Cache is the names of a node.
type Cache struct {
	entries map[key]*list.Element
	recent  *list.List // of *entry, the one answered last first
}

// New returns a cache that knows no name.
func New() *Cache { return &Cache{entries: map[key]*list.Element{}, recent: list.New()} }

// Learn takes the addresses out of an answer. Every name that was asked for is a name of all of them: aliases in between are what
// the servers make of it.
func (c *Cache) Learn(e *eventv1.Event) {
	dns := e.GetDns()
	if !dns.GetResponse() {
		return
	}
	for _, answer := range dns.GetAnswers() {
		ip, err := netip.ParseAddr(answer.GetData())
		if err != nil {
			continue
		}
		until := e.GetBoottimeNs() + uint64(max(atLeast, time.Duration(answer.GetTtl())*time.Second)) //nolint:gosec // not negative
		for _, question := range dns.GetQuestions() {
			c.add(key{owner(e.GetWorkloadCgroupId()), ip.Unmap()}, name{strings.ToLower(question.GetName()), until})
		}
	}
}

func (c *Cache) add(k key, n name) {
	element, ok := c.entries[k]
	if !ok {
		if c.recent.Len() >= maxAddresses {
			if old, ok := c.recent.Remove(c.recent.Back()).(*entry); ok {
				delete(c.entries, old.key)
			}
		}
		element = c.recent.PushFront(&entry{key: k})
		c.entries[k] = element
	}
	c.recent.MoveToFront(element)
	at, _ := element.Value.(*entry)
	at.names = slices.DeleteFunc(at.names, func(old name) bool { return old.text == n.text })
	if len(at.names) == maxNames {
		at.names = slices.Delete(at.names, 0, 1)
	}
	at.names = append(at.names, n)
}

// Any says whether one of the names by which the event's workload asked for the address satisfies match. It does not allocate.
func (c *Cache) Any(e *eventv1.Event, ip netip.Addr, match func(name string) bool) bool {
	element, ok := c.entries[key{owner(e.GetWorkloadCgroupId()), ip.Unmap()}]
	if !ok {
		return false
	}
	at, _ := element.Value.(*entry)
	for _, n := range at.names {
		if n.until >= e.GetBoottimeNs() && match(n.text) {
			return true
		}
	}
	return false
}
