package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/privilege"
)

func testSettings(t *testing.T) Settings {
	t.Helper()
	dir := t.TempDir()
	return Settings{
		Binaries: dir, Runtime: filepath.Join(dir, "run"), State: filepath.Join(dir, "state"), Name: "n",
		Containerd: "/run/containerd/containerd.sock", CRIO: "/run/crio/crio.sock", Docker: "/run/docker.sock", Podman: "/run/podman/podman.sock",
		Admission:   "/etc/palisade/admission",
		NodesListen: "127.0.0.1:8084", PeopleListen: "127.0.0.1:8083",
	}
}

func TestValidateNamesTheFlag(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Settings)
		want   string
	}{
		{"relative path", func(s *Settings) { s.State = "x" }, `--state: "x" is not an absolute path`},
		{"address without port", func(s *Settings) { s.NodesListen = "x" }, `--nodes-listen: "x" is not HOST:PORT`},
		{"port zero", func(s *Settings) { s.PeopleListen = "x:0" }, `--people-listen: "x:0": port must be 1 to 65535`},
		{"port too large", func(s *Settings) { s.Console = "x:65536" }, `--console: "x:65536": port must be 1 to 65535`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			settings := testSettings(t)
			tt.change(&settings)
			if err := settings.Validate(); err == nil || err.Error() != tt.want {
				t.Errorf("Validate() = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPrepareRefusesForeignDirectories(t *testing.T) {
	settings := testSettings(t)
	precious := filepath.Join(settings.Runtime, "precious")
	if err := os.MkdirAll(precious, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(settings); err == nil || !strings.Contains(err.Error(), `holds "precious"`) {
		t.Errorf("Prepare over somebody else's directory = %v, want a refusal that names what is there", err)
	}
	if info, err := os.Stat(settings.Runtime); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory after the refusal: %v, %v, want it unchanged", info, err)
	}
}

func TestFilesFollowTheSettings(t *testing.T) {
	table, err := privilege.Load()
	if err != nil {
		t.Fatal(err)
	}
	settings := testSettings(t)
	settings.Containerd = "/run/other/containerd.sock"
	n := &Node{settings: settings, table: table}
	for _, row := range table.Processes {
		files, err := n.files(row)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range slices.Concat(files.Reads, files.Writes) {
			if strings.HasPrefix(path, "/var/lib/palisade") {
				t.Errorf("%s may touch %s, which is not this node's state", row.Name, path)
			}
		}
		switch row.Network {
		case privilege.NetworkNone:
			if len(files.ConnectPorts)+len(files.BindPorts) > 0 {
				t.Errorf("%s has ports %v, %v and no network", row.Name, files.ConnectPorts, files.BindPorts)
			}
		case privilege.NetworkEgress:
			if want := []uint16{8084}; !slices.Equal(files.ConnectPorts, want) {
				t.Errorf("%s may connect to %v, want %v", row.Name, files.ConnectPorts, want)
			}
		case privilege.NetworkServe:
			if want := []uint16{8084, 8083}; !slices.Equal(files.BindPorts, want) {
				t.Errorf("%s may listen on %v, want %v", row.Name, files.BindPorts, want)
			}
		}
	}
}

func TestEveryProcessHasAConfiguration(t *testing.T) {
	table, err := privilege.Load()
	if err != nil {
		t.Fatal(err)
	}
	files := testSettings(t).configurations(table)
	for _, row := range table.Processes {
		if _, ok := files[row.Name]; !ok {
			t.Errorf("no configuration for %s", row.Name)
		}
	}
	if len(files) != len(table.Processes) {
		t.Errorf("%d configurations for %d processes", len(files), len(table.Processes))
	}
}
