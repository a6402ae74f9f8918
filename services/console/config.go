package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/statedir"
	"github.com/palisade-sec/palisade/services/console/internal/account"
	"github.com/palisade-sec/palisade/services/console/internal/certificate"
	"github.com/palisade-sec/palisade/services/console/internal/journal"
)

type consoleConfig struct {
	Sockets rpc.Sockets `yaml:"sockets"`
	// StateDirectory holds certificates, the password's hash, journal and index.
	StateDirectory string   `yaml:"state_directory"`
	Nodes          endpoint `yaml:"nodes"`
	People         endpoint `yaml:"people"`
	// Hosts are the names and addresses the server certificate is for, beside those it listens on.
	Hosts     []string           `yaml:"hosts"`
	Enroll    certificate.Enroll `yaml:"enroll"`
	Retention journal.Retention  `yaml:"retention"`
}

type endpoint struct {
	// Listen is host:port.
	Listen string `yaml:"listen"`
}

func defaultConfig() (consoleConfig, error) {
	sockets, err := rpc.DefaultSockets()
	return consoleConfig{
		Sockets:        sockets,
		StateDirectory: "/var/lib/palisade/console",
		Nodes:          endpoint{"127.0.0.1:8084"},
		People:         endpoint{"127.0.0.1:8083"},
		Hosts:          []string{"localhost", "127.0.0.1", "::1"},
		Enroll:         certificate.Enroll{Directory: "/var/lib/palisade/enroll", Nodes: []string{}},
		Retention:      journal.DefaultRetention(),
	}, err
}

func (c consoleConfig) certificates() certificate.Config {
	return certificate.Config{
		Directory: filepath.Join(c.StateDirectory, "certificates"), Hosts: c.certificateHosts(), Enroll: c.Enroll,
	}
}

// certificateHosts are the configured hosts and those it listens on, unless that is every address of the machine.
func (c consoleConfig) certificateHosts() []string {
	hosts := slices.Clone(c.Hosts)
	for _, at := range []endpoint{c.Nodes, c.People} {
		host, _, err := net.SplitHostPort(at.Listen)
		if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
			continue
		}
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// Validate reports every fault, each starting with its key.
func (c consoleConfig) Validate() error {
	errs := []error{c.Sockets.Validate()}
	if !filepath.IsAbs(c.StateDirectory) {
		errs = append(errs, fmt.Errorf("state_directory: %q is not an absolute path", c.StateDirectory))
	}
	for key, at := range map[string]endpoint{"nodes": c.Nodes, "people": c.People} {
		if _, _, err := net.SplitHostPort(at.Listen); err != nil {
			errs = append(errs, fmt.Errorf("%s.listen: %w", key, err))
		}
	}
	return errors.Join(append(errs, c.Retention.Validate(), c.certificates().Validate())...)
}

// doors are where the console will be called, open but not yet served.
type doors struct {
	nodes  net.Listener
	people net.Listener
	socket net.Listener
}

// listen opens all doors or none, before anything else is made: a start that cannot succeed leaves nothing behind.
func listen(cfg consoleConfig, process string) (d *doors, err error) {
	open := &doors{}
	defer func() {
		if err != nil {
			open.Close()
		}
	}()
	if open.nodes, err = net.Listen("tcp", cfg.Nodes.Listen); err != nil {
		return nil, fmt.Errorf("nodes.listen: %w: stop what holds the port, or choose another", err)
	}
	if open.people, err = net.Listen("tcp", cfg.People.Listen); err != nil {
		return nil, fmt.Errorf("people.listen: %w: stop what holds the port, or choose another", err)
	}
	socket, err := cfg.Sockets.Listen(process)
	if err != nil {
		return nil, err
	}
	open.socket = socket
	return open, nil
}

// Close closes what is open. What was served is closed already.
func (d *doors) Close() {
	for _, door := range []net.Listener{d.nodes, d.people, d.socket} {
		if door != nil {
			_ = door.Close()
		}
	}
}

// check goes as far as it can without leaving anything behind.
func check(cfg consoleConfig, env daemon.Env) error {
	var errs []error
	if err := statedir.Check(cfg.StateDirectory); err != nil {
		errs = append(errs, fmt.Errorf("state_directory: %w", err))
	}
	errs = append(errs, cfg.certificates().Check(), account.Check(cfg.StateDirectory))
	if open, err := listen(cfg, env.Name); err != nil {
		errs = append(errs, err)
	} else {
		open.Close()
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := fmt.Fprintf(env.Stdout, "palisade-console: ready: state %s, nodes %s, people %s\n",
		cfg.StateDirectory, cfg.Nodes.Listen, cfg.People.Listen)
	return err
}
