package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// metapackage depends on a suite's newest kernel for VMs.
const metapackage = "linux-image-cloud-amd64"

// keyring is where every release's keys are, whichever of them the machine itself trusts.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// kernelPackage matches those that hold files of a kernel: sid's image package holds none, it depends on two that do.
var kernelPackage = regexp.MustCompile(`^linux-(image|binary|modules)-\S+-cloud-amd64$`)

// apt runs apt's commands with one suite as the only source and a state of their own.
type apt struct {
	directory string
}

// download fetches the packages of a suite's kernel below work and returns their paths.
func download(ctx context.Context, work, suite string) ([]string, error) {
	a, err := newApt(ctx, filepath.Join(work, "apt"), suite)
	if err != nil {
		return nil, err
	}
	if _, err := a.run(ctx, "apt-get", "update", "-qq"); err != nil {
		return nil, err
	}
	names := []string{metapackage}
	for i := 0; i < len(names); i++ {
		out, err := a.run(ctx, "apt-cache", "depends", "--important", names[i])
		if err != nil {
			return nil, err
		}
		for _, name := range kernelDependencies(out) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 1 {
		return nil, fmt.Errorf("%s depends on no kernel", metapackage)
	}
	if _, err := a.run(ctx, "apt-get", append([]string{"download", "-qq"}, names[1:]...)...); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(a.directory, "*.deb"))
}

// kernelDependencies reads `apt-cache depends`.
func kernelDependencies(out string) []string {
	var names []string
	for line := range strings.Lines(out) {
		kind, name, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if kind == "Depends" && kernelPackage.MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// newApt writes a configuration that replaces the machine's, but for how things are acquired (a proxy, for example).
func newApt(ctx context.Context, directory, suite string) (apt, error) {
	directory, err := filepath.Abs(directory)
	if err != nil {
		return apt{}, err
	}
	a := apt{directory: directory}
	// apt-get makes no directory by itself, and wants a list of installed packages: an empty one will do.
	for _, name := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(directory, name), 0o750); err != nil {
			return apt{}, err
		}
	}
	site, err := debianSite(ctx)
	if err != nil {
		return apt{}, err
	}
	acquire, err := output(exec.CommandContext(ctx, "apt-config", "dump", "Acquire"))
	if err != nil {
		return apt{}, err
	}
	files := map[string]string{
		"status":       "",
		"sources.list": fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, site, suite),
		"apt.conf":     aptConfig(directory, acquire),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			return apt{}, err
		}
	}
	return a, nil
}

// aptConfig keeps the machine's settings for acquiring, but for the indexes that it wants besides Packages.
func aptConfig(directory, acquire string) string {
	var text strings.Builder
	for line := range strings.Lines(acquire) {
		if !strings.HasPrefix(line, "Acquire::IndexTargets") {
			text.WriteString(line)
		}
	}
	for _, setting := range [][2]string{
		{"Dir::Etc::main", "/dev/null"},
		{"Dir::Etc::parts", directory + "/cache"}, // a directory without configuration; it must exist
		{"Dir::Etc::preferences", "/dev/null"},
		{"Dir::Etc::preferencesparts", "/dev/null"},
		{"Dir::Etc::sourcelist", directory + "/sources.list"},
		{"Dir::Etc::sourceparts", "/dev/null"},
		{"Dir::State", directory},
		{"Dir::State::status", directory + "/status"},
		{"Dir::Cache", directory + "/cache"},
		{"APT::Architecture", "amd64"},
		{"APT::Sandbox::User", "root"}, // _apt cannot enter our directory; the signature is checked all the same
	} {
		fmt.Fprintf(&text, "%s %q;\n", setting[0], setting[1])
	}
	return text.String()
}

// debianSite is the mirror this machine uses.
func debianSite(ctx context.Context) (string, error) {
	out, err := output(exec.CommandContext(ctx, "apt-get", "indextargets", "--no-release-info",
		"--format", "$(SITE) $(RELEASE) $(COMPONENT)"))
	if err != nil {
		return "", err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	return chooseSite(out, string(release))
}

// chooseSite picks the first site that has the running release itself, or one of the names that mean a release: other
// archives have other names (and security updates a suffix).
func chooseSite(targets, osRelease string) (string, error) {
	releases := []string{"stable", "testing", "unstable", "sid"}
	for line := range strings.Lines(osRelease) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			releases = append(releases, strings.Trim(name, `"`))
		}
	}
	for line := range strings.Lines(targets) {
		fields := strings.Fields(line)
		if len(fields) == 3 && slices.Contains(releases, fields[1]) && fields[2] == "main" {
			return fields[0], nil
		}
	}
	return "", errors.New("apt has no source of Debian itself")
}

func (a apt) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = a.directory
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(a.directory, "apt.conf"), "LC_ALL=C")
	return output(cmd)
}

// output is a command's standard output; the error has what it said besides.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return "", fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
}
