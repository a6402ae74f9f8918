package certificate

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/palisade-sec/palisade/internal/mtls"
	"github.com/palisade-sec/palisade/internal/statedir"
)

// Validate reports every fault, each starting with its key.
func (c Config) Validate() error {
	var errs []error
	if len(c.Hosts) == 0 {
		errs = append(errs, errors.New("hosts: empty: want the names and addresses the console is called by"))
	}
	for _, node := range c.Enroll.Nodes {
		if err := mtls.CheckNodeName(node); err != nil {
			errs = append(errs, fmt.Errorf("enroll.nodes: %w", err))
		}
	}
	if len(c.Enroll.Nodes) > 0 && !filepath.IsAbs(c.Enroll.Directory) {
		errs = append(errs, fmt.Errorf("enroll.directory: %q is not an absolute path", c.Enroll.Directory))
	}
	return errors.Join(errs...)
}

// Check reports whether Open could work, and makes nothing.
func (c Config) Check() error {
	var errs []error
	if exists(c.Directory, "ca.crt") || exists(c.Directory, "ca.key") {
		if _, err := mtls.OpenAuthority(c.Directory); err != nil { // makes nothing: one of its files is there
			errs = append(errs, fmt.Errorf("certificates in %s: %w", c.Directory, err))
		}
	}
	if exists(c.Directory, serverName+".crt") {
		if _, err := mtls.LoadPair(c.Directory, serverName); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, c.CheckEnroll())...)
}

// CheckEnroll reports whether the directory for the nodes is there and can be written.
func (c Config) CheckEnroll() error {
	if len(c.Enroll.Nodes) == 0 {
		return nil
	}
	if _, err := os.Stat(c.Enroll.Directory); err != nil {
		return fmt.Errorf("enroll.directory: %w: make it, with the nodes' group and mode 2750", err)
	}
	if err := statedir.Check(c.Enroll.Directory); err != nil {
		return fmt.Errorf("enroll.directory: %w", err)
	}
	return nil
}

func exists(directory, name string) bool {
	_, err := os.Stat(filepath.Join(directory, name))
	return err == nil
}

// normal sorts hosts and writes addresses in their one form.
func normal(hosts []string) []string {
	out := make([]string, 0, len(hosts))
	for _, host := range hosts {
		if ip, err := netip.ParseAddr(host); err == nil {
			host = ip.String()
		}
		out = append(out, host)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
