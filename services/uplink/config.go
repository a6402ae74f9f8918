package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/mtls"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/statedir"
	"github.com/palisade-sec/palisade/services/uplink/internal/channel"
	"github.com/palisade-sec/palisade/services/uplink/internal/queue"
)

type uplinkConfig struct {
	Sockets rpc.Sockets `yaml:"sockets"`
	// StateDirectory holds the queue.
	StateDirectory string         `yaml:"state_directory"`
	Queue          queue.Config   `yaml:"queue"`
	Console        channel.Config `yaml:"console"`
}

func defaultConfig() (uplinkConfig, error) {
	sockets, err := rpc.DefaultSockets()
	return uplinkConfig{
		Sockets:        sockets,
		StateDirectory: "/var/lib/palisade/uplink",
		Queue:          queue.DefaultConfig(),
		Console:        channel.DefaultConfig(),
	}, err
}

// Validate reports every fault, each starting with its key.
func (c uplinkConfig) Validate() error {
	errs := []error{c.Sockets.Validate()}
	if !filepath.IsAbs(c.StateDirectory) {
		errs = append(errs, fmt.Errorf("state_directory: %q is not an absolute path", c.StateDirectory))
	}
	errs = append(errs, prefix("queue.", c.Queue.Validate()), prefix("console.", c.Console.Validate()))
	return errors.Join(errs...)
}

// prefix puts the section's name before each of the joined errors.
func prefix(section string, err error) error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, one := range many.Unwrap() {
			errs = append(errs, prefix(section, one))
		}
		return errors.Join(errs...)
	}
	return fmt.Errorf("%s%w", section, err)
}

// check goes as far as it can without leaving anything behind.
func check(cfg uplinkConfig, env daemon.Env) error {
	var errs []error
	if err := statedir.Check(cfg.StateDirectory); err != nil {
		errs = append(errs, fmt.Errorf("state_directory: %w", err))
	}
	console := "no console"
	if cfg.Console.Address != "" {
		console = "console " + cfg.Console.Address
		identity, err := mtls.OpenNode(cfg.Console.EnrollDirectory, cfg.Console.ServerName)
		switch {
		case mtls.Missing(err): // the console may still be making it
			console += ", not enrolled yet"
		case err != nil:
			errs = append(errs, fmt.Errorf("console.enroll_directory: %w", err))
		default:
			console += " as node " + identity.Name
		}
	}
	if socket, err := cfg.Sockets.Listen(env.Name); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, socket.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := fmt.Fprintf(env.Stdout, "palisade-uplink: ready: state %s, %s\n", cfg.StateDirectory, console)
	return err
}
