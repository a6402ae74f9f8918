package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// Config says whether and how long images are learned from, and what becomes of what was not learned.
type Config struct {
	// Enabled is off by default: models make the kernel record every file opened for writing and every connection of the node,
	// the host's own included.
	Enabled bool `yaml:"enabled"`
	// Learn and DryRun are how long containers of an image are watched in each state, in time in which at least one of them ran.
	Learn  time.Duration `yaml:"learn"`
	DryRun time.Duration `yaml:"dry_run"`
	// Images is how many models are kept. Beyond, the one whose image ran longest ago gives way.
	Images int `yaml:"images"`
	// SaveEvery is how often what changed is written down.
	SaveEvery time.Duration `yaml:"save_every"`
	// Anomalies says what is made of them, by family (programs, written_directories, ...). What is not set keeps its default:
	// priority warning, effect alert, the tags model and anomaly.
	Anomalies map[string]Reaction `yaml:"anomalies"`
}

// Reaction is what a finding of an anomaly looks like.
type Reaction struct {
	Priority string   `yaml:"priority"`
	Effect   string   `yaml:"effect"`
	Tags     []string `yaml:"tags"`
}

// DefaultConfig learns for a day, and is quiet for another.
func DefaultConfig() Config {
	return Config{Learn: 24 * time.Hour, DryRun: 24 * time.Hour, Images: 256, SaveEvery: 10 * time.Second, Anomalies: map[string]Reaction{}}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	for _, d := range []struct {
		key   string
		value time.Duration
		least time.Duration
	}{{"learn", c.Learn, time.Second}, {"dry_run", c.DryRun, 0}, {"save_every", c.SaveEvery, 100 * time.Millisecond}} {
		if d.value < d.least || d.value > 365*24*time.Hour {
			errs = append(errs, fmt.Errorf("models.%s: %v is not %v to 8760h", d.key, d.value, d.least))
		}
	}
	if c.Images < 1 || c.Images > 4096 {
		errs = append(errs, fmt.Errorf("models.images: %d is not 1 to 4096", c.Images))
	}
	for name, reaction := range c.Anomalies {
		if _, ok := familyNamed(name); !ok {
			errs = append(errs, fmt.Errorf("models.anomalies: %q is not one of %s", name, strings.Join(familyNames(), ", ")))
		}
		if _, _, err := reaction.read(); err != nil {
			errs = append(errs, fmt.Errorf("models.anomalies.%s.%w", name, err))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// read is the reaction's priority and effect, defaults where it says nothing.
func (r Reaction) read() (findingv1.Priority, findingv1.Effect, error) {
	priority, effect := findingv1.Priority_PRIORITY_WARNING, findingv1.Effect_EFFECT_ALERT
	if r.Priority != "" {
		number, ok := findingv1.Priority_value["PRIORITY_"+strings.ToUpper(r.Priority)]
		if !ok || number == 0 {
			return 0, 0, fmt.Errorf("priority: %q is not one of Falco's", r.Priority)
		}
		priority = findingv1.Priority(number)
	}
	if r.Effect != "" {
		number, ok := findingv1.Effect_value["EFFECT_"+strings.ToUpper(r.Effect)]
		if !ok || number == 0 {
			return 0, 0, fmt.Errorf("effect: %q is not disable, alert, prevent or block", r.Effect)
		}
		effect = findingv1.Effect(number)
	}
	return priority, effect, nil
}

// reaction is what is made of one family's anomalies.
type reaction struct {
	priority findingv1.Priority
	effect   findingv1.Effect
	tags     []string
}

// reactions are those of a valid configuration.
func (c Config) reactions() [numFamilies]reaction {
	var all [numFamilies]reaction
	for f := range all {
		set := c.Anomalies[families[f].name]
		priority, effect, err := set.read()
		if err != nil { // not validated
			priority, effect = findingv1.Priority_PRIORITY_WARNING, findingv1.Effect_EFFECT_ALERT
		}
		if set.Tags == nil {
			set.Tags = []string{"model", "anomaly"}
		}
		all[f] = reaction{priority: priority, effect: effect, tags: set.Tags}
	}
	return all
}
