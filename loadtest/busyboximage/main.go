// Command busyboximage writes an OCI archive with the host's static busybox to standard output, for `ctr images import`.
//
// # Privileges
//
// None: it reads busybox.
package main

import (
	"context"
	"errors"

	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/ociimage"
)

func main() { daemon.Main("busyboximage", run) }

func run(_ context.Context, env daemon.Env) error {
	if len(env.Args) != 1 {
		return errors.New("name the image")
	}
	files, err := ociimage.Busybox()
	if err != nil {
		return err
	}
	return ociimage.Write(env.Stdout, ociimage.Config{Name: env.Args[0], Command: []string{"/bin/sh"}}, files)
}
