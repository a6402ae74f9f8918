package admit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Config says where the policy is, and what is kept.
type Config struct {
	// Policy is the directory with policy.yaml, and with policy.sig and policy.pub if it has to be signed (package kept). It may be empty
	// or missing: then no container is refused.
	Policy string `yaml:"policy"`
	// Kept is the directory with what another decides by when the enforcer does not answer.
	Kept string `yaml:"kept"`
	// Standing is the directory of the file that says where the shim stands (package standing).
	Standing string `yaml:"standing"`
	// Host is the node's name in selectors; "" is the kernel's name for it.
	Host string `yaml:"host"`
	// Every is how often the policy is looked at.
	Every time.Duration `yaml:"every"`
}

// DefaultConfig takes a change in after two seconds.
func DefaultConfig() Config {
	return Config{
		Policy: "/etc/palisade/admission", Kept: "/var/lib/palisade/enforcer/admission", Standing: "/var/lib/palisade/enforcer",
		Every: 2 * time.Second,
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	for _, path := range []struct{ key, value string }{{"policy", c.Policy}, {"kept", c.Kept}, {"standing", c.Standing}} {
		if !filepath.IsAbs(path.value) {
			errs = append(errs, fmt.Errorf("admission.%s: %q is not an absolute path", path.key, path.value))
		}
	}
	if c.Every < 10*time.Millisecond || c.Every > time.Hour {
		errs = append(errs, fmt.Errorf("admission.every: %v is not from 10ms to 1h", c.Every))
	}
	return errors.Join(errs...)
}

// host is the node's name, "" if it has none.
func (c Config) host() string {
	if c.Host != "" {
		return c.Host
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
