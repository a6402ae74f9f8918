package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// runner runs ghz from a directory that every uid can read: the repository, and ghz in it, may lie below one that only
// root enters.
type runner struct {
	settings  settings
	table     privilege.Table
	directory string
}

func newRunner(s settings) (*runner, error) {
	table, err := privilege.Load()
	if err != nil {
		return nil, err
	}
	ghz, err := exec.LookPath(s.ghz)
	if err != nil {
		return nil, fmt.Errorf("-ghz: %w: build it in tools/ghz", err)
	}
	directory, err := os.MkdirTemp("", "palisade-loadtest-")
	if err != nil {
		return nil, err
	}
	r := &runner{settings: s, table: table, directory: directory}
	if err := errors.Join(
		os.Chmod(directory, 0o755), //nolint:gosec // see runner
		copyFile(ghz, filepath.Join(directory, "ghz"), 0o755),
		copyFile(s.protoset, filepath.Join(directory, "api.protoset"), 0o644),
	); err != nil {
		return nil, errors.Join(err, r.close())
	}
	protos, err := filepath.Glob(filepath.Join(s.cases, "*.proto"))
	for _, path := range protos {
		err = errors.Join(err, copyFile(path, filepath.Join(directory, filepath.Base(path)), 0o644))
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *runner) close() error { return os.RemoveAll(r.directory) }

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(mode), out.Close())
}

// run runs one case to its end, or to the time limit. What goes wrong is in the result.
func (r *runner) run(ctx context.Context, c testCase) result {
	res := result{Case: c.name, Process: c.process, Caller: c.caller}
	report, err := r.ghz(ctx, c)
	if err != nil {
		res.Problem = daemonLine(err)
		return res
	}
	res.fill(report, c.number("total"))
	return res
}

func (r *runner) ghz(ctx context.Context, c testCase) (report, error) {
	credential, err := r.credential(c.caller)
	if err != nil {
		return report{}, err
	}
	config, err := r.configure(c)
	if err != nil {
		return report{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.settings.longest)
	defer cancel()
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(r.directory, "ghz"), "--config", config)
	cmd.Dir = r.directory
	cmd.Env = []string{"HOME=" + r.directory, "PATH=/usr/bin:/bin"}
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return report{}, fmt.Errorf("not done within %v", r.settings.longest)
		}
		return report{}, fmt.Errorf("ghz: %w: %s%s", err, complaint.String(), out.String())
	}
	var answer report
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return report{}, fmt.Errorf("read ghz's report: %w", err)
	}
	return answer, nil
}

// credential is the caller's: its uid and group, and the sockets' group.
func (r *runner) credential(caller string) (*syscall.Credential, error) {
	uid, ok := r.table.UIDs()[caller]
	if !ok {
		return nil, fmt.Errorf("no uid for caller %q", caller)
	}
	return &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{r.table.SocketGroup}}, nil
}

// configure writes the case with what depends on the node filled in.
func (r *runner) configure(c testCase) (string, error) {
	config := maps.Clone(c.config)
	config["host"] = "unix://" + filepath.Join(r.settings.runDirectory, c.process+".sock")
	config["insecure"] = true // a unix socket; the kernel vouches for both ends
	config["format"] = "json"
	if proto, ok := config["proto"].(string); ok {
		config["proto"] = filepath.Join(r.directory, filepath.Base(proto))
	} else {
		config["protoset"] = filepath.Join(r.directory, "api.protoset")
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	path := filepath.Join(r.directory, c.name+".json")
	return path, os.WriteFile(path, raw, 0o644) //nolint:gosec // see runner
}

func daemonLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
