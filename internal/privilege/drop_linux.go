package privilege

import (
	"errors"
	"fmt"
	"strings"

	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// DropAllBut gives up every other capability of every thread of the process, for good. File descriptors of maps, links and
// rings stay valid (checked on Linux 5.10 to 6.18).
func DropAllBut(keep ...string) error {
	left := cap.NewSet()
	for _, name := range keep {
		value, err := Parse(name)
		if err != nil {
			return err
		}
		if err := errors.Join(left.SetFlag(cap.Permitted, true, value), left.SetFlag(cap.Effective, true, value)); err != nil {
			return fmt.Errorf("keep CAP_%s: %w", name, err)
		}
	}
	if err := left.SetProc(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// Require returns an error that names the capabilities the process lacks and what to do about it.
func Require(process string, names ...string) error {
	held := cap.GetProc()
	var missing []string
	for _, name := range names {
		value, err := Parse(name)
		if err != nil {
			return err
		}
		if on, err := held.GetFlag(cap.Effective, value); err != nil || !on {
			missing = append(missing, "CAP_"+name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing %s: start with `palisade up`, or give the %s its row of deploy/privileges.yaml",
			strings.Join(missing, ", "), process)
	}
	return nil
}

// Parse is the capability called name in the table: "KILL" is CAP_KILL.
func Parse(name string) (cap.Value, error) {
	value, err := cap.FromName("cap_" + strings.ToLower(name))
	if err != nil {
		return 0, fmt.Errorf("capability %q: %w", name, err)
	}
	return value, nil
}
