package guard

import (
	"errors"
	"strings"
	"testing"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

func write(id uint32, prefix string) *collectorv1.Guard {
	return &collectorv1.Guard{Id: id, Subject: &collectorv1.Guard_WritePrefix{WritePrefix: prefix}}
}

func connect(cidr string, port uint32) *collectorv1.Guard {
	return &collectorv1.Guard{Id: 1, Subject: &collectorv1.Guard_Connect{Connect: &collectorv1.Network{Cidr: cidr, Port: port}}}
}

func lookup(name string) *collectorv1.Guard {
	return &collectorv1.Guard{Id: 1, Subject: &collectorv1.Guard_DnsName{DnsName: name}}
}

// faulty is a guard and what is said of it.
type faulty struct {
	name  string
	guard *collectorv1.Guard
	want  string
}

func TestCompileNamesWhatIsWrong(t *testing.T) {
	tests := []faulty{
		{name: "no subject", guard: &collectorv1.Guard{Id: 1}, want: "subject is missing"},
		{name: "no id", guard: write(0, "/etc/"), want: "id 0"},
		{name: "the id that is no guard's", guard: write(1<<32-1, "/etc/"), want: "id 4294967295"},
		{name: "relative path", guard: write(1, "etc/"), want: `write_prefix: "etc/"`},
		{name: "empty path", guard: write(1, ""), want: "write_prefix"},
		{name: "long path", guard: write(1, "/"+strings.Repeat("x", 240)), want: "at most 240"},
		{name: "no network", guard: connect("10.0.0.0", 1), want: "cidr"},
		{name: "no port", guard: connect("10.0.0.0/8", 65536), want: "port: 65536"},
		{name: "no property", guard: &collectorv1.Guard{Id: 1, Subject: &collectorv1.Guard_ExecProperty{}}, want: "exec_property"},
	}
	for fault, name := range map[string]string{
		"no name": "", "the root": ".", "a hole": "a..example", "a long label": strings.Repeat("l", 64) + ".example",
		"a wildcard": "*.example", "another alphabet": "bücher.example", "a long name": strings.Repeat("label.", 40) + "example",
	} {
		tests = append(tests, faulty{name: fault, guard: lookup(name), want: "dns_name: "})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := compile([]*collectorv1.Guard{write(7, "/fine/"), tt.guard})
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "guards[1]: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("compile error = %v, want ErrInvalid of guards[1] with %q", err, tt.want)
			}
		})
	}
}

func TestCompileScopesAndNetworks(t *testing.T) {
	everybody, one := connect("10.1.2.3/8", 443), connect("2001:db8::/32", 0)
	one.CgroupId, one.Id = 99, 2
	e, err := compile([]*collectorv1.Guard{everybody, one, write(3, "/usr/bin/")})
	if err != nil {
		t.Fatal(err)
	}
	if e.families != familyConnect|familyWrite {
		t.Errorf("families = %b, want connect and write", e.families)
	}
	if e.scopes[99] != 1 || len(e.scopes) != 1 {
		t.Errorf("scopes = %v, want 1 for cgroup 99", e.scopes)
	}
	for key, id := range e.networks {
		want := map[uint32]struct {
			bits, scope, port uint32
			first             byte
		}{1: {12*8 + 96 + 8, 0, 443, 0}, 2: {12*8 + 32, 1, 0, 0x20}}[id]
		if key.Bits != want.bits || key.Scope != want.scope || key.Port != want.port || key.Ip[0] != want.first {
			t.Errorf("guard %d is %+v, want %+v", id, key, want)
		}
		if id == 1 && (key.Ip[12] != 10 || key.Ip[13] != 0) {
			t.Errorf("10.1.2.3/8 is %v, want 10.0.0.0", key.Ip)
		}
	}
}

func TestNamesAreKeptBackwards(t *testing.T) {
	for name, want := range map[string]string{
		"Evil.example":   "elpmaxe\x00live\x00\x00",
		".evil.example.": "elpmaxe\x00live\x00",
		"_dmarc.a-b.1":   "1\x00b-a\x00cramd_\x00\x00",
	} {
		if got, err := backwards(name); string(got) != want || err != nil {
			t.Errorf("backwards(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(uint32(1), "/etc/", "10.0.0.0/8", uint32(443), "evil.example")
	f.Add(uint32(0), "", "::/0", uint32(70000), ".")
	f.Fuzz(func(t *testing.T, id uint32, prefix, cidr string, port uint32, name string) {
		c := connect(cidr, port)
		c.Id = id
		e, err := compile([]*collectorv1.Guard{write(id, prefix), c, lookup(name)})
		if err == nil && (len(e.paths) != 1 || len(e.networks) != 1 || len(e.names) != 2) {
			t.Errorf("compile kept %d paths, %d networks and %d names, want one each, and a name's scope", len(e.paths), len(e.networks), len(e.names))
		}
	})
}
