package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/services/enforcer/internal/admit"
	"github.com/palisade-sec/palisade/services/enforcer/internal/audit"
	"github.com/palisade-sec/palisade/services/enforcer/internal/kill"
)

// configuration is the enforcer's file.
type configuration struct {
	Sockets rpc.Sockets  `yaml:"sockets"`
	Audit   audit.Config `yaml:"audit"`
	Kill    kill.Config  `yaml:"kill"`
	// Admission is which containers may be created.
	Admission admit.Config `yaml:"admission"`
	// Grace is how long running calls may take once the process is told to stop.
	Grace time.Duration `yaml:"grace"`
}

func defaults() (configuration, error) {
	sockets, err := rpc.DefaultSockets()
	if err != nil {
		return configuration{}, err
	}
	return configuration{
		Sockets: sockets, Audit: audit.DefaultConfig(), Kill: kill.DefaultConfig(), Admission: admit.DefaultConfig(), Grace: 5 * time.Second,
	}, nil
}

// Validate reports every fault.
func (c configuration) Validate() error {
	errs := []error{c.Sockets.Validate(), c.Audit.Validate(), c.Kill.Validate(), c.Admission.Validate()}
	if c.Grace <= 0 {
		errs = append(errs, fmt.Errorf("grace: %v is not positive", c.Grace))
	}
	return errors.Join(errs...)
}
