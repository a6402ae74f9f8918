package main

import (
	"slices"
	"testing"
)

func TestTheCertificateIsForWhatIsListenedOn(t *testing.T) {
	tests := []struct {
		name          string
		hosts         []string
		nodes, people string
		want          []string
	}{
		{name: "loopback", hosts: []string{"localhost", "127.0.0.1"}, nodes: "127.0.0.1:8084", people: "127.0.0.1:8083",
			want: []string{"localhost", "127.0.0.1"}},
		{name: "an address each", hosts: []string{"localhost"}, nodes: "127.1.2.3:8084", people: "console.example:8083",
			want: []string{"localhost", "127.1.2.3", "console.example"}},
		{name: "every address", hosts: []string{"console.example"}, nodes: ":8084", people: "[::]:8083",
			want: []string{"console.example"}},
		{name: "every IPv4 address", hosts: []string{"console.example"}, nodes: "0.0.0.0:8084", people: "[::1]:8083",
			want: []string{"console.example", "::1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := consoleConfig{Hosts: tt.hosts, Nodes: endpoint{tt.nodes}, People: endpoint{tt.people}}
			if got := cfg.certificateHosts(); !slices.Equal(got, tt.want) {
				t.Errorf("certificateHosts() = %q, want %q", got, tt.want)
			}
		})
	}
}
