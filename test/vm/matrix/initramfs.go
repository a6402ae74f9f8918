package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Where the VM has what the tests need. test/vm/kerneltest knows these paths.
const (
	guestTests    = "opt/kernel.test"
	guestCompat32 = "opt/compat32"
	guestSettings = "opt/settings"
)

// writeInitrd makes the VM's root: busybox, the scripts, the modules, the tests and how to run them.
func (s settings) writeInitrd(to string, k kernel, r row) error {
	files := []guestFile{
		{name: "init", from: filepath.Join(s.scripts, "init")},
		{name: "node", from: filepath.Join(s.scripts, "kerneltest")},
		{name: "opt/mounts", from: filepath.Join(s.scripts, "mounts")},
		{name: "bin/busybox", from: "/bin/busybox"},
		{name: guestTests, from: filepath.Join(s.work, "kernel.test")},
		{name: guestCompat32, from: filepath.Join(s.work, "compat32")},
		{name: guestSettings, text: s.guestSettings(r)},
		{name: "etc/passwd", text: "root:x:0:0::/root:/bin/sh\n"},
	}
	for _, name := range modules {
		files = append(files, guestFile{name: "opt/" + name + ".ko", from: k.module(name)})
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	buffered := bufio.NewWriter(out)
	if err := writeArchive(buffered, files); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	return out.Close()
}

// guestSettings is read by the VM's shell. The tests' own limit is shorter than the VM's, so that they say where they are.
func (s settings) guestSettings(r row) string {
	limit := (s.timeout - s.timeout/10).Truncate(time.Second)
	full := ""
	if s.full {
		full = "1"
	}
	var text strings.Builder
	for _, setting := range [][2]string{
		{"PALISADE_TEST_WANT_TIER", r.tier},
		{"PALISADE_TEST_FULL", full},
		{"PALISADE_TEST_COMPAT32", "/" + guestCompat32},
		{"TESTS", s.tests},
		{"LIMIT", limit.String()},
		{"MODULES", strings.Join(modules, " ")},
	} {
		fmt.Fprintf(&text, "export %s=%s\n", setting[0], quote(setting[1]))
	}
	return text.String()
}

// quote makes text one word for a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// guestFile is a file of the VM: its text, or what is in the file from. All are executable; it is root's machine.
type guestFile struct {
	name, from, text string
}

const (
	modeDirectory = 0o40755
	modeFile      = 0o100755
)

// writeArchive writes a cpio archive ("newc", the kernel's format) of the files and the directories they are in.
func writeArchive(w io.Writer, files []guestFile) error {
	made := map[string]bool{".": true}
	inode := 0
	entry := func(mode int, name string, data []byte) error {
		inode++
		return writeEntry(w, cpioEntry{inode: inode, mode: mode, name: name, data: data})
	}
	for _, file := range files {
		for _, directory := range parents(file.name) {
			if made[directory] {
				continue
			}
			made[directory] = true
			if err := entry(modeDirectory, directory, nil); err != nil {
				return err
			}
		}
		data := []byte(file.text)
		if file.from != "" {
			var err error
			if data, err = os.ReadFile(file.from); err != nil {
				return err
			}
		}
		if err := entry(modeFile, file.name, data); err != nil {
			return err
		}
	}
	return writeEntry(w, cpioEntry{name: "TRAILER!!!"})
}

// parents are the directories above name, the highest first.
func parents(name string) []string {
	directory := path.Dir(name)
	if directory == "." || directory == "/" {
		return nil
	}
	return append(parents(directory), directory)
}

type cpioEntry struct {
	inode, mode int
	name        string
	data        []byte
}

func writeEntry(w io.Writer, e cpioEntry) error {
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, device and rdevice (major, minor), namesize, check
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		e.inode, e.mode, 0, 0, 1, 0, len(e.data), 0, 0, 0, 0, len(e.name)+1, 0)
	head := header + e.name + "\x00"
	for _, part := range [][]byte{[]byte(head), padding(len(head)), e.data, padding(len(e.data))} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// padding fills up to a multiple of four bytes.
func padding(n int) []byte { return make([]byte, -n&3) }
