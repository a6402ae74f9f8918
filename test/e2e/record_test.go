package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ids are those of findings in lines of JSON, with their rules. Lines of a report are passed over.
func ids(t *testing.T, out string) map[string]string {
	t.Helper()
	byID := map[string]string{}
	for line := range strings.Lines(out) {
		var f struct{ ID, Rule string }
		if !strings.HasPrefix(line, `{"`) {
			continue
		}
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		byID[f.ID] = f.Rule
	}
	return byID
}

func TestARecordingIsReplayed(t *testing.T) {
	n := startNode(t)
	file := filepath.Join(t.TempDir(), "node.rec")
	recorder := exec.Command(filepath.Join(n.bin, "palisade"), "record", file, "--run", n.run)
	said := &output{}
	recorder.Stderr = said
	if err := recorder.Start(); err != nil {
		t.Fatal(err)
	}
	if !eventually(10*time.Second, func() bool { info, err := os.Stat(file); return err == nil && info.Size() > 16 }) {
		// The first block comes with the first batch after a second.
		t.Logf("nothing is in the file yet: %s", said)
	}
	// A second recorder is refused, and leaves no file.
	if _, code := n.palisade("record", file+"2"); code == 0 {
		t.Error("a second palisade record ran beside the first")
	}
	if _, err := os.Stat(file + "2"); err == nil {
		t.Error("the recorder that was refused left a file")
	}
	report := n.demo()
	_ = recorder.Process.Signal(syscall.SIGINT)
	if err := recorder.Wait(); err != nil || !strings.Contains(said.String(), "Recorded ") {
		t.Fatalf("palisade record: %v: %s", err, said)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the recording has mode %v, want 0600 (%v)", info.Mode(), err)
	}
	n.stop() // a replay needs no node
	out, code := n.palisade("replay", file, "--findings")
	if code != 0 || !strings.Contains(out, "events/s") {
		t.Fatalf("palisade replay: exit code %d: %s", code, out)
	}
	found := ids(t, out)
	for _, attack := range report.Attacks {
		if found[attack.FindingID] != attack.Rule {
			t.Errorf("finding %s of %q is not in the replay, which has %v", attack.FindingID, attack.Rule, found)
		}
	}
	// A file that is cut off says where, and what there is of it is replayed.
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw[:len(raw)-25], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := n.palisade("replay", file); code != 1 || !strings.Contains(out, "events/s") {
		t.Errorf("palisade replay of a file that is cut off: exit code %d, want 1 and a report: %s", code, out)
	}
}
