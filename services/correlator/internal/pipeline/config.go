package pipeline

import (
	"errors"
	"fmt"
	"time"
)

// Config bounds what an engine remembers.
type Config struct {
	Hold      HoldConfig
	Processes ProcessesConfig
	Workloads WorkloadsConfig
}

// HoldConfig bounds how events wait for their container's description.
type HoldConfig struct {
	// For is how long one waits at most.
	For time.Duration `yaml:"for"`
	// Events is how many may wait at once.
	Events int `yaml:"events"`
}

// ProcessesConfig bounds the process tree.
type ProcessesConfig struct {
	// KeepExited is how many exited processes are remembered.
	KeepExited int `yaml:"keep_exited"`
}

// WorkloadsConfig bounds the workload index.
type WorkloadsConfig struct {
	// Grace is how long a container is remembered after its end.
	Grace time.Duration `yaml:"grace"`
}

// DefaultConfig is fit for a node with some hundred containers.
func DefaultConfig() Config {
	return Config{
		Hold:      HoldConfig{For: time.Second, Events: 4096},
		Processes: ProcessesConfig{KeepExited: 16384},
		Workloads: WorkloadsConfig{Grace: 30 * time.Second},
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if c.Hold.For <= 0 || c.Hold.For > time.Minute {
		errs = append(errs, fmt.Errorf("hold.for: %v is not above 0 and at most 1m", c.Hold.For))
	}
	if c.Hold.Events < 1 {
		errs = append(errs, fmt.Errorf("hold.events: %d is not positive", c.Hold.Events))
	}
	if c.Processes.KeepExited < 1 {
		errs = append(errs, fmt.Errorf("processes.keep_exited: %d is not positive", c.Processes.KeepExited))
	}
	if c.Workloads.Grace < 0 {
		errs = append(errs, fmt.Errorf("workloads.grace: %v is negative", c.Workloads.Grace))
	}
	return errors.Join(errs...)
}
