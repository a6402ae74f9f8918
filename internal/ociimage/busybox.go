package ociimage

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
)

// busyboxPaths are where distributions keep a statically linked busybox.
var busyboxPaths = []string{"/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static", "/usr/lib/busybox/busybox-static"}

// ErrNoBusybox says that the host has no statically linked busybox to make an image of.
var ErrNoBusybox = errors.New("no statically linked busybox on this host: apt-get install busybox-static")

// Busybox returns the files of a minimal system: a shell, the usual tools, and the account files an intruder looks
// for, with no real secrets in them.
func Busybox() ([]File, error) {
	binary, err := staticBusybox()
	if err != nil {
		return nil, err
	}
	files := []File{
		{Path: "bin/", Mode: 0o755}, {Path: "usr/", Mode: 0o755}, {Path: "usr/bin/", Mode: 0o755},
		{Path: "etc/", Mode: 0o755}, {Path: "root/", Mode: 0o700}, {Path: "tmp/", Mode: 0o1777},
		{Path: "proc/", Mode: 0o555}, {Path: "sys/", Mode: 0o555}, {Path: "dev/", Mode: 0o755},
		{Path: "bin/busybox", Mode: 0o755, Content: binary},
		{Path: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\n")},
		{Path: "etc/group", Mode: 0o644, Content: []byte("root:x:0:\n")},
		{Path: "etc/shadow", Mode: 0o640, Content: []byte("root:*:19000:0:99999:7:::\n")},
	}
	for _, tool := range []string{"cat", "chmod", "cp", "echo", "id", "ls", "nc", "ps", "sh", "sleep", "true", "wget"} {
		files = append(files, File{Path: "bin/" + tool, Mode: 0o777, Link: "busybox"})
	}
	return files, nil
}

func staticBusybox() ([]byte, error) {
	for _, path := range busyboxPaths {
		raw, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read busybox: %w", err)
		}
		if static(raw) {
			return raw, nil
		}
	}
	return nil, ErrNoBusybox
}

// static reports whether an ELF file needs no program interpreter.
func static(raw []byte) bool {
	file, err := elf.NewFile(bytes.NewReader(raw))
	if err != nil {
		return false
	}
	for _, program := range file.Progs {
		if program.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}
