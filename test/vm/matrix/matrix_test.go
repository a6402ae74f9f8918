package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestChooseRows(t *testing.T) {
	names := func(chosen []row) string {
		var all []string
		for _, r := range chosen {
			all = append(all, r.name)
		}
		return strings.Join(all, " ")
	}
	tests := []struct {
		name, want, wantErr string
		given               []string
	}{
		{name: "none given", want: rowNames()},
		{name: "in the matrix's order", given: []string{"6.12", "5.10"}, want: "5.10 6.12"},
		{name: "only the whole name", given: []string{"6.1"}, want: "6.1"},
		{name: "unknown", given: []string{"6.1", "4.19"}, wantErr: `no kernel "4.19"; there are 5.10`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := chooseRows(tt.given)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error = %v, want %q in it", err, tt.wantErr)
				}
				return
			}
			if err != nil || names(got) != tt.want {
				t.Errorf("chooseRows(%q) = %q, %v, want %q", tt.given, names(got), err, tt.want)
			}
		})
	}
}

// bzImage puts a payload where a boot loader looks for it.
func bzImage(payload []byte) []byte {
	const sectors, offset = 3, 100
	image := make([]byte, (sectors+1)*sectorBytes+offset, (sectors+1)*sectorBytes+offset+len(payload)+50)
	image[setupSectorsAt] = sectors
	copy(image[headerMagicAt:], "HdrS")
	binary.LittleEndian.PutUint32(image[payloadOffsetAt:], offset)
	binary.LittleEndian.PutUint32(image[payloadLengthAt:], uint32(len(payload)))
	image = append(image, payload...)
	return append(image, "\xfd7zXZ\x00 is not where the kernel is"...)
}

func TestExtractVmlinux(t *testing.T) {
	elf := append([]byte("\x7fELF"), bytes.Repeat([]byte("kernel "), 5000)...)
	length := binary.LittleEndian.AppendUint32(nil, uint32(len(elf)))
	for _, command := range [][]string{{"xz", "-c"}, {"zstd", "-c"}, {"lz4", "-lc"}, {"gzip", "-c"}} {
		t.Run(command[0], func(t *testing.T) {
			if _, err := exec.LookPath(command[0]); err != nil {
				t.Skip(err)
			}
			cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
			cmd.Stdin = bytes.NewReader(elf)
			packed, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if command[0] != "gzip" { // whose format has the length already
				packed = append(packed, length...)
			}
			got, err := extractVmlinux(t.Context(), bzImage(packed))
			if err != nil || !bytes.Equal(got, elf) {
				t.Errorf("extractVmlinux = %d bytes, %v, want the %d given", len(got), err, len(elf))
			}
		})
	}
}

func TestExtractVmlinuxRefuses(t *testing.T) {
	gzipped := func(text string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		return b.Bytes()
	}
	short := bzImage(gzipped("\x7fELF"))
	tests := []struct {
		name    string
		image   []byte
		wantErr error
	}{
		{name: "nothing", wantErr: errNotBzImage},
		{name: "no header", image: make([]byte, 4096), wantErr: errNotBzImage},
		{name: "cut in the payload", image: short[:(3+1)*sectorBytes+105], wantErr: errNotBzImage},
		{name: "no payload", image: bzImage(nil), wantErr: errNotBzImage},
		{name: "unknown compression", image: bzImage([]byte("LZO")), wantErr: errCompression},
		{name: "no ELF file inside", image: bzImage(gzipped("MZ")), wantErr: errNotELF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := extractVmlinux(t.Context(), tt.image); !errors.Is(err, tt.wantErr) {
				t.Errorf("error = %v, want %v", err, tt.wantErr)
			}
		})
	}
}

func TestDecompressRefusesHalfAFile(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "xz", "-c")
	cmd.Stdin = strings.NewReader(strings.Repeat("module ", 5000))
	packed, err := cmd.Output()
	if err != nil {
		t.Skip(err)
	}
	if out, err := decompress(t.Context(), packed[:len(packed)/2]); err == nil {
		t.Errorf("decompress = %d bytes, want an error", len(out))
	}
}

func TestChooseSite(t *testing.T) {
	const bookworm = "NAME=x\nVERSION_CODENAME=bookworm\n"
	tests := []struct{ name, targets, osRelease, want string }{
		{name: "the release itself", osRelease: bookworm, want: "m:/debian",
			targets: "m:/other nodistro main\nm:/security bookworm-security main\nm:/debian bookworm main\n"},
		{name: "not another archive's component", osRelease: bookworm, want: "m:/debian",
			targets: "m:/docker bookworm stable\nm:/debian bookworm main\n"},
		{name: "by its role, quoted name", osRelease: "VERSION_CODENAME=\"trixie\"\n", want: "m:/debian", targets: "m:/debian stable main\n"},
		{name: "none", osRelease: bookworm, targets: "m:/docker bookworm stable\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := chooseSite(tt.targets, tt.osRelease)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("chooseSite = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestKernelDependencies(t *testing.T) {
	got := kernelDependencies(`linux-image-7.2.13+deb14-cloud-amd64
  PreDepends: linux-base
 |Depends: dracut
  Depends: <linux-initramfs-tool>
  Depends: linux-base-7.2.13+deb14-cloud-amd64
  Depends: linux-binary-7.2.13+deb14-cloud-amd64
  Depends: linux-modules-7.2.13+deb14-cloud-amd64
`)
	if want := []string{"linux-binary-7.2.13+deb14-cloud-amd64", "linux-modules-7.2.13+deb14-cloud-amd64"}; !slices.Equal(got, want) {
		t.Errorf("kernelDependencies = %q, want %q", got, want)
	}
}

func TestAptConfigKeepsTheProxyAlone(t *testing.T) {
	got := aptConfig("/d", "Acquire::http::Proxy \"x\";\nAcquire::IndexTargets::deb::DEP-11 \"\";\n")
	if !strings.HasPrefix(got, "Acquire::http::Proxy \"x\";\nDir::Etc::main \"/dev/null\";\n") {
		t.Errorf("configuration begins %.100q", got)
	}
	if strings.Contains(got, "DEP-11") || !strings.Contains(got, `Dir::State "/d";`) {
		t.Errorf("configuration = %q", got)
	}
}

func TestReleaseOf(t *testing.T) {
	for _, path := range []string{"root/lib/modules/6.1.0-50/kernel/overlay.ko", "root/usr/lib/modules/6.1.0-50/kernel/fs/overlay.ko.xz"} {
		if got := releaseOf(path); got != "6.1.0-50" {
			t.Errorf("releaseOf(%s) = %q, want 6.1.0-50", path, got)
		}
	}
}

func TestArchiveIsReadByCpio(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip(err)
	}
	var archive bytes.Buffer
	err := writeArchive(&archive, []guestFile{{name: "init", text: "#!/bin/sh\n"}, {name: "opt/a/odd", text: "1"}, {name: "opt/a/b", text: ""}})
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "cpio", "-i", "-v", "--quiet")
	cmd.Dir, cmd.Stdin = directory, &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := tail(filepath.Join(directory, "opt/a/odd"), 1); got != "1" {
		t.Errorf("opt/a/odd = %q, want 1", got)
	}
	if got := tail(filepath.Join(directory, "init"), 1); got != "#!/bin/sh" {
		t.Errorf("init = %q", got)
	}
}

func TestGuestSettingsSurviveTheShell(t *testing.T) {
	s := settings{tests: `A'b$(c) "d"|E`}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", s.guestSettings(row{tier: "lsm"})+`echo "$TESTS $PALISADE_TEST_WANT_TIER"`)
	out, err := cmd.CombinedOutput()
	if want := s.tests + " lsm\n"; err != nil || string(out) != want {
		t.Errorf("shell says %q, %v, want %q", out, err, want)
	}
}

// names are the tests' names.
func names(tests []*test) []string {
	var all []string
	for _, t := range tests {
		all = append(all, t.name)
	}
	return all
}

func read(t *testing.T, text string) *testRun {
	t.Helper()
	var run testRun
	if err := readLines(strings.NewReader(text), run.line); err != nil {
		t.Fatal(err)
	}
	return &run
}

const twoTests = "palisade-vm lsm yama,bpf\r\n" + `=== RUN   TestA
=== RUN   TestA/one
=== RUN   TestA/two
    a_test.go:2: got 1
        want 2
=== NAME  TestA
    a_test.go:9: on the way out
--- FAIL: TestA (0.10s)
    --- PASS: TestA/one (0.00s)
    --- FAIL: TestA/two (0.00s)
=== RUN   TestB
    b_test.go:3: no overlayfs
--- SKIP: TestB (0.00s)
FAIL
palisade-vm exit 1`

func TestOutputIsRead(t *testing.T) {
	run := read(t, twoTests)
	if got, want := names(run.with(failed)), []string{"TestA", "TestA/two"}; !slices.Equal(got, want) {
		t.Errorf("failed = %q, want %q", got, want)
	}
	if got, want := names(run.with(passed)), []string{"TestA/one"}; !slices.Equal(got, want) {
		t.Errorf("passed = %q, want %q", got, want)
	}
	if got, want := run.find("TestA/two").output, []string{"    a_test.go:2: got 1", "        want 2"}; !slices.Equal(got, want) {
		t.Errorf("output = %q, want %q", got, want)
	}
	if got := run.with(skipped); len(got) != 1 || got[0].output[0] != "    b_test.go:3: no overlayfs" {
		t.Errorf("skipped = %v, want TestB with its reason", names(got))
	}
	if !run.ended || run.exit != 1 || run.lsm != "yama,bpf" {
		t.Errorf("ended, exit, lsm = %v, %d, %q, want true, 1, yama,bpf", run.ended, run.exit, run.lsm)
	}
}

func TestProgressIsShown(t *testing.T) {
	var shown strings.Builder
	run := testRun{finished: func(ended *test) { writeProgress(&shown, row{name: "6.1"}, ended) }}
	if err := readLines(strings.NewReader(twoTests), run.line); err != nil {
		t.Fatal(err)
	}
	if want := "kernels: 6.1: FAIL TestA (0.10 s)\nkernels: 6.1: SKIP TestB (0.00 s)\n"; shown.String() != want {
		t.Errorf("shown = %q, want %q", shown.String(), want)
	}
}

func TestSkipsAreCountedByReason(t *testing.T) {
	const skips = `=== RUN   TestA
    a_test.go:1: tier lsm denies
--- SKIP: TestA (0.00s)
=== RUN   TestB
    b_test.go:3: no overlayfs
--- SKIP: TestB (0.00s)
=== RUN   TestC
    c_test.go:5: no overlayfs
--- SKIP: TestC (0.00s)
=== RUN   TestD
--- PASS: TestD (0.00s)
palisade-vm exit 0`
	var shown strings.Builder
	if err := writeTable(&shown, []result{{row: row{name: "6.1"}, tests: *read(t, skips)}}); err != nil {
		t.Fatal(err)
	}
	if want := "\n6.1: skipped\n    2: no overlayfs\n    1: tier lsm denies\n\n1 passed, 0 failed, 3 skipped\n"; !strings.HasSuffix(shown.String(), want) {
		t.Errorf("shown = %q, want %q at its end", shown.String(), want)
	}
}

func TestResultsAreBadUnlessAllIsWell(t *testing.T) {
	const good = "=== RUN   TestA\n--- PASS: TestA (0.00s)\nPASS\n"
	tests := []struct {
		name, output, want string
		fault              error
	}{
		{name: "all is well", output: good + "palisade-vm exit 0\n"},
		{name: "a failure", output: twoTests, want: "failed"},
		{name: "a panic in a test", output: "=== RUN   TestA\npanic: x\npalisade-vm exit 2\n", want: "failed"},
		{name: "an exit code alone", output: good + "palisade-vm exit 66\n", want: "tests ended with 66"},
		{name: "no test", output: "testing: warning: no tests to run\nPASS\npalisade-vm exit 0\n", want: "no test passed"},
		{name: "nothing but skips", output: "=== RUN   TestB\n--- SKIP: TestB (0.00s)\npalisade-vm exit 0\n", want: "no test passed"},
		{name: "the VM died", output: good, fault: errors.New("went off"), want: "went off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := result{row: row{name: "6.1"}, tests: *read(t, tt.output), fault: tt.fault, logs: t.TempDir()}
			if got := r.bad(); got != tt.want {
				t.Errorf("bad = %q, want %q", got, tt.want)
			}
			var shown bytes.Buffer
			writeResult(&shown, r)
			if err := writeTable(&shown, []result{r}); (err == nil) != (tt.want == "") {
				t.Errorf("error = %v, want one: %v", err, tt.want != "")
			}
			if !strings.Contains(shown.String(), tt.want) {
				t.Errorf("shown = %q, want %q in it", shown.String(), tt.want)
			}
			if none := strings.Contains(shown.String(), ", 0 failed, 0 skipped\n"); none != (tt.want == "") {
				t.Errorf("sums say that all is well: %v; shown:\n%s", none, shown.String())
			}
		})
	}
}
