package flight

import (
	"errors"
	"fmt"
	"strings"
	"time"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// Config bounds what is kept.
type Config struct {
	Enabled bool `yaml:"enabled"`
	// WorkloadBytes and TotalBytes bound the ring on disk, of one workload and of all; blocks of the file system count whole.
	WorkloadBytes int64 `yaml:"workload_bytes"`
	TotalBytes    int64 `yaml:"total_bytes"`
	// Age is how long an event is kept at most, and a workload that is gone.
	Age time.Duration `yaml:"age"`
	// WorkloadRate and TotalRate are how many events a second are taken, of one workload and of all; twice as many at once. A
	// twentieth of a workload's is its own whatever others do.
	WorkloadRate int `yaml:"workload_events_per_second"`
	TotalRate    int `yaml:"total_events_per_second"`
	// WriteEvery is how long an event waits in memory at most. A crash loses as much.
	WriteEvery time.Duration   `yaml:"write_every"`
	Incidents  IncidentsConfig `yaml:"incidents"`
}

// IncidentsConfig says what is set aside around grave findings, out of the ring's way.
type IncidentsConfig struct {
	// Priority is from which on a finding is grave.
	Priority string `yaml:"priority"`
	// Before and After are how long before the first and after the last such finding of an incident.
	Before time.Duration `yaml:"before"`
	After  time.Duration `yaml:"after"`
	// Bytes bound one incident's slice, TotalBytes all of them; one workload may have a quarter.
	Bytes      int64 `yaml:"bytes"`
	TotalBytes int64 `yaml:"total_bytes"`
	// Age is how long a slice is kept.
	Age time.Duration `yaml:"age"`
}

// DefaultConfig is fit for a node with some hundred containers.
func DefaultConfig() Config {
	return Config{
		Enabled: true, WorkloadBytes: 16 << 20, TotalBytes: 192 << 20, Age: time.Hour, WorkloadRate: 5000, TotalRate: 10_000, WriteEvery: time.Second,
		Incidents: IncidentsConfig{Priority: "error", Before: 30 * time.Second, After: 10 * time.Second, Bytes: 4 << 20, TotalBytes: 64 << 20, Age: 7 * 24 * time.Hour},
	}
}

const (
	// perSegment is how many segments a ring has when it is full: deleting one takes away so small a part.
	perSegment = 8
	// minBytes is room for segments of a few blocks.
	minBytes = 256 << 10
	maxBytes = 1 << 40
	maxRate  = 10_000_000
)

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	for _, b := range []struct {
		key         string
		value, from int64
	}{
		{"workload_bytes", c.WorkloadBytes, minBytes},
		{"total_bytes", c.TotalBytes, c.WorkloadBytes},
		{"incidents.bytes", c.Incidents.Bytes, minBytes},
		{"incidents.total_bytes", c.Incidents.TotalBytes, 4 * c.Incidents.Bytes},
	} {
		if b.value < b.from || b.value > maxBytes {
			errs = append(errs, fmt.Errorf("recorder.%s: %d is not from %d to %d", b.key, b.value, b.from, int64(maxBytes)))
		}
	}
	for _, d := range []struct {
		key         string
		value, from time.Duration
		to          time.Duration
	}{
		{"age", c.Age, time.Minute, 365 * 24 * time.Hour},
		{"write_every", c.WriteEvery, 10 * time.Millisecond, time.Minute},
		{"incidents.before", c.Incidents.Before, 0, c.Age},
		{"incidents.after", c.Incidents.After, 0, c.Age},
		{"incidents.age", c.Incidents.Age, time.Minute, 365 * 24 * time.Hour},
	} {
		if d.value < d.from || d.value > d.to {
			errs = append(errs, fmt.Errorf("recorder.%s: %v is not from %v to %v", d.key, d.value, d.from, d.to))
		}
	}
	if c.WorkloadRate < 20 || c.WorkloadRate > maxRate {
		errs = append(errs, fmt.Errorf("recorder.workload_events_per_second: %d is not from 20 to %d", c.WorkloadRate, maxRate))
	}
	if c.TotalRate < c.WorkloadRate || c.TotalRate > maxRate {
		errs = append(errs, fmt.Errorf("recorder.total_events_per_second: %d is not from %d to %d", c.TotalRate, c.WorkloadRate, maxRate))
	}
	if c.Incidents.grave() == findingv1.Priority_PRIORITY_UNSPECIFIED {
		errs = append(errs, fmt.Errorf("recorder.incidents.priority: %q is not one of Falco's", c.Incidents.Priority))
	}
	return errors.Join(errs...)
}

// grave is the priority from which on a finding is, 0 if the configuration names none.
func (c IncidentsConfig) grave() findingv1.Priority {
	return findingv1.Priority(findingv1.Priority_value["PRIORITY_"+strings.ToUpper(c.Priority)])
}
