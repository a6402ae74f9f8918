package record

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// maxAnswers bounds what one message makes us keep; 1024 bytes hold 85 of the shortest.
const maxAnswers = 64

// decodeDNS parses a DNS message, which anybody on the network may have written. What cannot be parsed is marked, and what
// came before it is kept.
func decodeDNS(raw []byte) (*eventv1.Event_Dns, error) {
	if len(raw) < dnsSize {
		return nil, fmt.Errorf("DNS message of %d bytes: %w", len(raw), ErrShort)
	}
	message, _, err := take(raw[dnsSize:], uint32(u16(raw, dnsMessageLen)), "DNS message")
	if err != nil {
		return nil, err
	}
	d := &eventv1.Dns{
		Truncated: u32(raw, dnsWholeLen) > uint32(u16(raw, dnsMessageLen)),
		Protocol:  u32(raw, dnsProtocol),
	}
	if err := parseDNS(message, d); err != nil {
		d.Malformed = true
	}
	local := address(raw, dnsLocal, u16(raw, dnsLocalPort))
	remote := address(raw, dnsRemote, u16(raw, dnsRemotePort))
	d.Client, d.Server = local, remote
	if u16(raw, dnsLocalPort) == dnsPort && u16(raw, dnsRemotePort) != dnsPort {
		d.Client, d.Server = remote, local
	}
	return &eventv1.Event_Dns{Dns: d}, nil
}

const dnsPort = 53

func parseDNS(message []byte, d *eventv1.Dns) error {
	var parser dnsmessage.Parser
	header, err := parser.Start(message)
	if err != nil {
		return err
	}
	d.Id, d.Response, d.ResponseCode = uint32(header.ID), header.Response, uint32(header.RCode)
	for {
		question, err := parser.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return err
		}
		d.Questions = append(d.Questions, &eventv1.DnsQuestion{Name: dnsName(question.Name), Type: uint32(question.Type)})
	}
	for len(d.Answers) < maxAnswers {
		resource, err := parser.Answer()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		d.Answers = append(d.Answers, &eventv1.DnsAnswer{
			Name: dnsName(resource.Header.Name), Type: uint32(resource.Header.Type), Ttl: resource.Header.TTL, Data: dnsData(resource.Body),
		})
	}
	d.Truncated = true
	return nil
}

// dnsName is a name without its final dot, and in lower case, in which names are the same (RFC 4343).
func dnsName(name dnsmessage.Name) string {
	return strings.ToLower(text([]byte(strings.TrimSuffix(name.String(), "."))))
}

func dnsData(body dnsmessage.ResourceBody) string {
	switch r := body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(r.A).String()
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(r.AAAA).String()
	case *dnsmessage.CNAMEResource:
		return dnsName(r.CNAME)
	case *dnsmessage.TXTResource:
		return text([]byte(strings.Join(r.TXT, "")))
	}
	return ""
}
