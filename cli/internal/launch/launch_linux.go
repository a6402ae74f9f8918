// Package launch turns the process it runs in into a Palisade process: it gives up everything but the process's row of
// the table of privileges, for good, and executes the process's binary.
//
// Order matters, and each step needs what a later one takes away: cgroups, files that may be touched, bounding set,
// groups and uid, capabilities, no_new_privs, death signal, execve.
package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// Spec says what to execute and as what.
type Spec struct {
	Binary string   `json:"binary"`
	Args   []string `json:"args"`
	Env    []string `json:"env"`

	UID    uint32 `json:"uid"`
	Groups []int  `json:"groups"` // the first is the primary one
	// Capabilities, without CAP_: permitted, effective, inheritable, ambient and the bounding set.
	Capabilities []string `json:"capabilities"`
	// CgroupProcs are cgroup.procs files to enter, one a hierarchy.
	CgroupProcs []string `json:"cgroup_procs"`
	// Files may be touched, and nothing else. See Landlock.
	Files Files `json:"files"`
}

// Encode is the spec as one command-line word.
func (s Spec) Encode() (string, error) {
	raw, err := json.Marshal(s)
	return string(raw), err
}

// Decode reads what Encode wrote.
func Decode(word string) (Spec, error) {
	var spec Spec
	if err := json.Unmarshal([]byte(word), &spec); err != nil {
		return Spec{}, fmt.Errorf("read launch spec: %w", err)
	}
	if spec.Binary == "" || len(spec.Groups) == 0 {
		return Spec{}, errors.New("read launch spec: binary and groups are needed")
	}
	return spec, nil
}

// Become does not return but with an error. The process that calls it must be the one that palisade up started for
// this purpose: most steps cannot be taken back.
func Become(spec Spec) error {
	runtime.LockOSThread() // no_new_privs, death signal and execve are this thread's
	steps := []struct {
		name string
		run  func(Spec) error
	}{
		{"enter cgroup", enterCgroups},
		{"restrict files", restrictFiles},
		{"give up capabilities", boundCapabilities},
		{"change user", changeUser},
		{"set capabilities", setCapabilities},
		{"forbid new privileges", forbidNewPrivileges},
		{"follow the supervisor's death", followParent},
	}
	for _, step := range steps {
		if err := step.run(spec); err != nil {
			return fmt.Errorf("launch %s: %s: %w", spec.Binary, step.name, err)
		}
	}
	args := append([]string{spec.Binary}, spec.Args...)
	if err := syscall.Exec(spec.Binary, args, spec.Env); err != nil {
		return fmt.Errorf("launch %s: execute: %w", spec.Binary, err)
	}
	return nil
}

func enterCgroups(spec Spec) error {
	for _, procs := range spec.CgroupProcs {
		// 0 means the writer itself, whatever its pid is in whichever namespace (cgroups(7)).
		if err := os.WriteFile(procs, []byte(strconv.Itoa(0)), 0); err != nil {
			return err
		}
	}
	return nil
}

// boundCapabilities empties the bounding set but for the row, while CAP_SETPCAP is still held.
func boundCapabilities(spec Spec) error {
	keep, err := parse(spec.Capabilities)
	if err != nil {
		return err
	}
	for value := range cap.MaxBits() {
		if held, err := cap.GetBound(value); err != nil || !held || keep[value] {
			continue
		}
		if err := cap.DropBound(value); err != nil {
			return fmt.Errorf("%v: %w", value, err)
		}
	}
	return nil
}

func changeUser(spec Spec) error {
	if err := cap.SetGroups(spec.Groups[0], spec.Groups[1:]...); err != nil {
		return err
	}
	return cap.SetUID(int(spec.UID))
}

// setCapabilities leaves the row and nothing else. Ambient capabilities are what a binary without file capabilities
// keeps across execve when it is not root's.
func setCapabilities(spec Spec) error {
	keep, err := parse(spec.Capabilities)
	if err != nil {
		return err
	}
	set := cap.NewSet()
	for value := range keep {
		err = errors.Join(err,
			set.SetFlag(cap.Permitted, true, value),
			set.SetFlag(cap.Effective, true, value),
			set.SetFlag(cap.Inheritable, true, value))
	}
	if err != nil {
		return err
	}
	if err := set.SetProc(); err != nil {
		return err
	}
	for value := range keep {
		if err := cap.SetAmbient(true, value); err != nil {
			return fmt.Errorf("ambient %v: %w", value, err)
		}
	}
	return nil
}

func forbidNewPrivileges(Spec) error {
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// followParent makes the kernel end this process when the supervisor dies, however it dies. It comes after the change
// of user, which clears the setting (prctl(2)).
func followParent(Spec) error {
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0)
}

func parse(names []string) (map[cap.Value]bool, error) {
	values := map[cap.Value]bool{}
	for _, name := range names {
		value, err := privilege.Parse(name)
		if err != nil {
			return nil, err
		}
		values[value] = true
	}
	return values, nil
}
