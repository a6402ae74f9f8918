package node

import (
	"net"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// fields is a piece of YAML.
type fields map[string]any

// configurations are the files the processes read, by process. Keys that keep their default are left out.
func (s Settings) configurations(table privilege.Table) map[string]fields {
	sockets := fields{"directory": s.Runtime, "group": table.SocketGroup}
	host, _, err := net.SplitHostPort(s.consoleAddress())
	if err != nil {
		host = ""
	}
	rules := s.Rules
	if rules == nil {
		rules = []string{}
	}
	correlator := fields{"sockets": sockets, "rules": rules, "state_directory": s.stateDirectory("correlator")}
	if s.Models {
		correlator["models"] = fields{"enabled": true, "learn": s.ModelsLearn.String(), "dry_run": s.ModelsDryRun.String()}
	}
	return map[string]fields{
		"collector":  {"sockets": sockets, "probes": fields{"pins": s.pins()}},
		"correlator": correlator,
		"gate": {
			"sockets": sockets, "containerd": fields{"socket": s.Containerd}, "crio": fields{"socket": s.CRIO},
			"docker": fields{"socket": s.Docker}, "podman": fields{"socket": s.Podman},
		},
		"enforcer": {
			"sockets": sockets, "audit": fields{"path": s.AuditLog()},
			"admission": fields{"policy": s.Admission, "kept": s.stateDirectory("enforcer/admission"), "standing": s.stateDirectory("enforcer")},
		},
		"scanner": {"sockets": sockets, "state_directory": s.stateDirectory("scanner"), "advisories": s.advisoryDirectory()},
		"uplink": {
			"sockets": sockets, "state_directory": s.stateDirectory("uplink"),
			"console": fields{
				"address": s.consoleAddress(), "server_name": host, "enroll_directory": s.enrollDirectory(),
			},
		},
		"console": {
			"sockets": sockets, "state_directory": s.stateDirectory("console"),
			"nodes":  fields{"listen": s.NodesListen},
			"people": fields{"listen": s.PeopleListen},
			"enroll": fields{"directory": s.enrollDirectory(), "nodes": []string{s.Name}},
		},
	}
}

// consoleAddress is where the uplink delivers.
func (s Settings) consoleAddress() string {
	if s.Console != "" {
		return s.Console
	}
	return s.NodesListen
}

// AuditLog is where the enforcer writes down what it does.
func (s Settings) AuditLog() string { return s.stateDirectory("enforcer") + "/audit.log" }
