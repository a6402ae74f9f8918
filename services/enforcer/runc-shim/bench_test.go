package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkCreateAndStart makes and starts containers with runC and with the shim in its place, turn by turn, and reports
// medians in ms: of each, and of what the shim adds to a create and a start together, with an enforcer that answers at once.
func BenchmarkCreateAndStart(b *testing.B) {
	requireContainers(b)
	real := runcs(b)[0]
	directory := b.TempDir()
	ways := []string{program(b, filepath.Join(directory, "plain", "runc"), real), installed(b, filepath.Join(directory, "shim"), enforce(b, allows).socket)}
	w := &world{t: b, bundle: filepath.Join(directory, "bundle"), root: filepath.Join(directory, "root"), id: "palisade-shim-bench"}
	writeRootfs(b, filepath.Join(w.bundle, "rootfs"))
	w.shell("exit 0")
	var creates, starts, both [2][]float64
	for n := 0; b.Loop(); n++ {
		for i := range ways {
			way := (i + n) % 2 // neither is always the first
			create := timed(b, ways[way], "--root", w.root, "create", "--bundle", w.bundle, w.id)
			start := timed(b, ways[way], "--root", w.root, "start", w.id)
			w.await("stopped")
			timed(b, real, "--root", w.root, "delete", w.id)
			creates[way], starts[way], both[way] = append(creates[way], create), append(starts[way], start), append(both[way], create+start)
		}
	}
	b.ReportMetric(0, "ns/op") // it is of both, and of what is around them
	for i, way := range []string{"runc", "shim"} {
		b.ReportMetric(median(creates[i]), way+"-create-ms")
		b.ReportMetric(median(starts[i]), way+"-start-ms")
		b.ReportMetric(median(both[i]), way+"-both-ms")
	}
	b.ReportMetric(median(both[1])-median(both[0]), "added-ms")
	b.ReportMetric(median(both[1])/median(both[0]), "shim/runc")
}

// timed runs a program and returns its time in ms.
func timed(b *testing.B, path string, args ...string) float64 {
	b.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	command := exec.Cmd{Path: path, Args: append([]string{"runc"}, args...), Stdin: null, Stdout: null, Stderr: null, Env: []string{"PATH=/usr/sbin:/usr/bin"}}
	begin := time.Now()
	if err := command.Run(); err != nil {
		b.Fatalf("%q: %v", args, err)
	}
	return float64(time.Since(begin).Microseconds()) / 1000
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
