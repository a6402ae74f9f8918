package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

type testConfig struct {
	Socket string    `yaml:"socket"`
	Ring   testRing  `yaml:"ring"`
	Hosts  []string  `yaml:"hosts"`
	Float  float64   `yaml:"float"`
	Nested *testRing `yaml:"nested,omitempty"`
}

type testRing struct {
	Bytes int `yaml:"bytes"`
}

func (c testConfig) Validate() error {
	if c.Ring.Bytes <= 0 {
		return fmt.Errorf("ring.bytes: %d is not positive", c.Ring.Bytes)
	}
	return nil
}

func TestLoad(t *testing.T) {
	tests := []struct {
		name string
		yaml string
		want string // error, with FILE for the path; empty if it must load
	}{
		{name: "an empty file asks for the defaults"},
		{name: "known keys", yaml: "socket: /run/x.sock\nring: {bytes: 4096}\n"},
		{name: "an unknown key is named with its line", yaml: "socket: /x\nsokcet: /y\n",
			want: `FILE:2: unknown key "sokcet": -help lists the keys`},
		{name: "an unknown nested key", yaml: "ring:\n  bytes: 1\n  size: 2\n",
			want: `FILE:3: unknown key "size": -help lists the keys`},
		{name: "a wrong type names key and line", yaml: "socket: /x\nring:\n  bytes: many\n",
			want: `FILE:3: bytes: "many" is not a valid int`},
		{name: "a syntax error has a line", yaml: "socket: [\n", want: "FILE:1: did not find expected node content"},
		{name: "validation names the key", yaml: "ring: {bytes: -1}\n",
			want: "configuration FILE: ring.bytes: -1 is not positive"},
		{name: "two documents", yaml: "socket: /x\n---\nsocket: /y\n", want: "FILE: more than one YAML document"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("FILE", []byte(tt.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := Load([]string{"-config", "FILE"}, testConfig{Ring: testRing{Bytes: 1}})
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("Load(%q) error = %q, want %q", tt.yaml, got, tt.want)
			}
		})
	}
}

func TestLoadCommandLine(t *testing.T) {
	defaults := testConfig{Ring: testRing{Bytes: 1}}
	if _, opts, err := Load([]string{"-check"}, defaults); err != nil || !opts.Check {
		t.Errorf("Load(-check) = %+v, %v, want Check", opts, err)
	}
	if _, _, err := Load([]string{"stray"}, defaults); err == nil {
		t.Error("Load(stray argument) = nil, want an error")
	}
	missing := filepath.Join(t.TempDir(), "absent.yaml")
	if _, _, err := Load([]string{"-config", missing}, defaults); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load(absent file) = %v, want %v", err, os.ErrNotExist)
	}
	if _, _, err := Load([]string{"-nonsense"}, defaults); err == nil || errors.Is(err, flag.ErrHelp) {
		t.Errorf("Load(-nonsense) = %v, want a usage error", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("socket: /x\nring: {bytes: 1}\n"))
	f.Add([]byte("ring: [1\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		var cfg testConfig
		_ = Decode("fuzz.yaml", raw, &cfg) // must not panic
	})
}
