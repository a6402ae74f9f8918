package model

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// learned is a model as YAML, after a stream of events that the seed makes.
func learned(t testing.TB, seed uint64) []byte {
	t.Helper()
	w := newWorld(t, testConfig())
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test's choice
	c := w.start("one")
	for range 300 {
		n := random.Uint32N(50)
		switch random.IntN(6) {
		case 0:
			w.exec(c, fmt.Sprintf("/bin/p%d", n), "/bin/web")
		case 1:
			w.write(c, fmt.Sprintf("/data/%c/%x", 'a'+rune(n%20), random.Uint64()))
		case 2:
			w.listen(c, 1000+n*1000)
		case 3:
			w.ask(c, fmt.Sprintf("h%d.example", n))
		case 4:
			w.calls(c, n, n+1)
		default:
			w.pass(time.Second)
		}
	}
	_, yaml, _, err := w.l.Export(testDigest)
	if err != nil {
		t.Fatal(err)
	}
	return yaml
}

// TestLearningTwiceIsTheSame: the model is a function of what was seen.
func TestLearningTwiceIsTheSame(t *testing.T) {
	for seed := range uint64(20) {
		if a, b := learned(t, seed), learned(t, seed); !bytes.Equal(a, b) {
			t.Fatalf("seed %d: learned twice, exported\n%s\nand\n%s", seed, a, b)
		}
	}
}

func TestImportOfAnExportIsTheSame(t *testing.T) {
	raw := learned(t, 7)
	w := newWorld(t, testConfig())
	if _, err := w.l.Import(raw); err != nil {
		t.Fatalf("Import() error = %v", err)
	}
	if _, again, _, err := w.l.Export(testDigest); err != nil || !bytes.Equal(raw, again) {
		t.Errorf("Export() after Import() = %s, %v, want %s", again, err, raw)
	}
}

const head = "version: 1\nimage_digest: " + testDigest + "\nstate: active\nfrozen: false\nobserved: 0s\nstarts: 1\n"

func TestMalformedModels(t *testing.T) {
	const times = ", count: 1, first: 2026-01-01T00:00:00Z, last: 2026-01-01T00:00:00Z}\n"
	tests := []struct{ name, raw, want string }{
		{"empty", "", "model:1: version: 0 is not 1"},
		{"not YAML", head + "programs: [", "model:"},
		{"unknown key", head + "colour: red\n", `model:7: unknown key "colour"`},
		{"unknown key in a fact", head + "domains:\n- {name: a, colour: red" + times, `model:8: unknown key "colour"`},
		{"other version", strings.Replace(head, "version: 1", "version: 2", 1), "model:1: version: 2 is not 1"},
		{"a name for a digest", strings.Replace(head, testDigest, "web:latest", 1), `model:2: image_digest: "web:latest"`},
		{"a path for a digest", strings.Replace(head, testDigest, "../../../etc/x:"+strings.Repeat("0", 32), 1), "model:2: image_digest"},
		{"state", strings.Replace(head, "active", "asleep", 1), `model:3: state: "asleep"`},
		{"frozen while it learns", strings.NewReplacer("active", "learning", "false", "true").Replace(head), "model:4: frozen"},
		{"negative time", strings.Replace(head, "observed: 0s", "observed: -1s", 1), "model:5: observed"},
		{"family", head + "overflowed: [colours]\n", `model:7: overflowed: "colours"`},
		{"origin", head + "programs:\n- {path: /a, from: hell, parent: /b" + times, `model:8: programs: from: "hell"`},
		{"no path", head + "programs:\n- {path: '', from: image, parent: /b" + times, "model:8: programs: what it is about is missing"},
		{"port of a program", head + "programs:\n- {path: /a, from: image, parent: /b, port: '1'" + times, "model:8: programs: has keys"},
		{"twice", head + "domains:\n- {name: a" + times + "- {name: a" + times, "model:9: domains: a is there twice"},
		{"port", head + "outbound_ports:\n- {protocol: tcp, port: '70000'" + times, `model:8: outbound_ports: port: "70000"`},
		{"protocol", head + "outbound_ports:\n- {protocol: ipx, port: '7'" + times, `model:8: outbound_ports: protocol: "ipx"`},
		{"capability", head + "capabilities:\n- {name: CAP_FLY" + times, `model:8: capabilities: name: "CAP_FLY"`},
		{"system call", head + "syscalls:\n- {abi: native, number: -1" + times, "model:8: syscalls: abi must be"},
		{"time", head + "domains:\n- {name: a, count: 1, first: today, last: 2026-01-01T00:00:00Z}\n", "model:8: domains: first and last"},
		{"two documents", head + "---\n" + head, "more than one YAML document"},
		{"too many", head + "listening_ports:\n" + strings.Repeat("- {protocol: tcp, port: '1'"+times, 129), "model:136: listening_ports: more than 128"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, testConfig())
			_, err := w.l.Import([]byte(tt.raw))
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Import() error = %v, want ErrMalformed with %q", err, tt.want)
			}
			if n := len(w.l.List()); n != 0 {
				t.Errorf("%d models after a refused import, want 0", n)
			}
		})
	}
}

// FuzzImport: what is refused is refused with an error, and what is taken comes out as it went in.
func FuzzImport(f *testing.F) {
	f.Add([]byte(head))
	f.Add(learned(f, 3))
	f.Add([]byte(head + "programs:\n- &a {path: /a, from: image, parent: b, count: 1, first: 2026-01-01T00:00:00Z, last: 2026-01-01T00:00:00Z}\n- *a\n"))
	f.Add([]byte("version: {}\nprograms: 7\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parse("model", raw)
		if err != nil {
			return
		}
		out, err := m.document().marshal()
		if err != nil {
			t.Fatalf("marshal() error = %v", err)
		}
		again, err := parse("model", out)
		if err != nil {
			t.Fatalf("parse() of its own output error = %v:\n%s", err, out)
		}
		if twice, err := again.document().marshal(); err != nil || !bytes.Equal(out, twice) {
			t.Fatalf("written twice: %v\n%s\nand\n%s", err, out, twice)
		}
	})
}

func TestStore(t *testing.T) {
	directory := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	open := func() *Store {
		t.Helper()
		s, err := Open(testConfig(), directory, quiet)
		if err != nil {
			t.Fatalf("Open() error = %v", err)
		}
		return s
	}
	s := open()
	w := &world{t: t, l: s.Learner, clock: time.Unix(1_800_000_000, 0)}
	w.l.Tick(w.clock, nil)
	w.load(w.start("one"))
	w.pass(4 * time.Second)
	_, before, _, _ := s.Export(testDigest)
	s.Save()
	path := filepath.Join(directory, "models", fileName(testDigest))
	if _, after, _, err := open().Export(testDigest); err != nil || !bytes.Equal(before, after) {
		t.Errorf("Export() after a restart = %s, %v, want %s", after, err, before)
	}
	if err := os.WriteFile(path, before[:len(before)/2], 0o600); err != nil { // a disk that lies
		t.Fatal(err)
	}
	s = open()
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "corrupt") || len(s.List()) != 0 {
		t.Errorf("Err() = %v with %d models, want that one was set aside, and none", err, len(s.List()))
	}
	if kept, err := os.ReadFile(strings.TrimSuffix(path, ".yaml") + ".corrupt"); err != nil || !bytes.Equal(kept, before[:len(before)/2]) {
		t.Errorf("what was set aside = %d bytes, %v, want what was there", len(kept), err)
	}
	t.Run("a directory that is gone is told, and tried again", func(t *testing.T) {
		w := &world{t: t, l: s.Learner, clock: time.Unix(1_800_000_000, 0)}
		w.load(w.start("two"))
		models := filepath.Join(directory, "models")
		if err := os.Rename(models, models+".away"); err != nil {
			t.Fatal(err)
		}
		if s.Save(); s.Err() == nil {
			t.Error("Save() without a directory left no error")
		}
		if err := os.Rename(models+".away", models); err != nil {
			t.Fatal(err)
		}
		s.Save()
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the model was not written in the end: %v", err)
		}
	})
}
