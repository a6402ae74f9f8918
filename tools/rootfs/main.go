// Command rootfs makes the file systems of Palisade's images, one tar archive a process: the process's binary, with
// its file capabilities, and the directories it may write, with their owners. deploy/Dockerfile adds them.
//
// # Privileges
//
// None: an archive can say who owns a file and what it may do without the right to make such a file here. The same
// binaries give the same archives, byte for byte.
package main

import (
	"archive/tar"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/privilege"
)

func main() { daemon.Main("rootfs", run) }

func run(_ context.Context, env daemon.Env) error {
	flags := flag.NewFlagSet(env.Name, flag.ContinueOnError)
	binaries := flags.String("bin", "bin", "`directory` of the built binaries")
	out := flags.String("out", "bin/image", "`directory` to write <process>.tar to")
	if err := flags.Parse(env.Args); err != nil {
		return err
	}
	table, err := privilege.Load()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o755); err != nil { //nolint:gosec // images are no secret
		return fmt.Errorf("make images: %w", err)
	}
	for _, row := range table.Processes {
		entries, err := layout(table, row, *binaries)
		if err != nil {
			return fmt.Errorf("image of %s: %w", row.Name, err)
		}
		path := filepath.Join(*out, row.Name+".tar")
		if err := write(path, entries); err != nil {
			return fmt.Errorf("image of %s: %w", row.Name, err)
		}
		fmt.Fprintln(env.Stdout, path)
	}
	return nil
}

// write makes the archive whole or not at all.
func write(path string, entries []entry) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".rootfs-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	archive := tar.NewWriter(file)
	for _, e := range entries {
		if err := e.add(archive); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	if err := errors.Join(archive.Close(), file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func (e entry) add(archive *tar.Writer) error {
	header := &tar.Header{
		Format: tar.FormatPAX, Typeflag: tar.TypeDir, Name: e.name + "/", Mode: e.mode, Uid: e.uid, Gid: e.gid,
		ModTime: time.Unix(0, 0), PAXRecords: e.records,
	}
	if e.source == "" {
		return archive.WriteHeader(header)
	}
	file, err := os.Open(e.source)
	if err != nil {
		return fmt.Errorf("%w: run `make build` first", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header.Typeflag, header.Name, header.Size = tar.TypeReg, e.name, info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}
