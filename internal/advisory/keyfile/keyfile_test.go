package keyfile_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/internal/advisory/keyfile"
)

func written(t *testing.T, metadata any, pairs ...[2]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := keyfile.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pairs {
		if err := w.Add(p[0], []byte(p[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(metadata); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestEachFindsAllOfAKey(t *testing.T) {
	var pairs [][2]string
	want := map[string][]string{}
	add := func(key, value string) {
		pairs = append(pairs, [2]string{key, value})
		want[key] = append(want[key], value)
	}
	for i := range 200 {
		key := fmt.Sprintf("k%04d", i*2)
		add(key, "first")
		if i == 100 { // over several blocks, and one larger than a block
			for n := range 300 {
				add(key, fmt.Sprintf("%d %s", n, strings.Repeat("x", 1000)))
			}
			add(key, strings.Repeat("y", 1<<20))
		}
	}
	raw := written(t, map[string]int{"answer": 42}, pairs...)
	var metadata map[string]int
	f, err := keyfile.Open(bytes.NewReader(raw), int64(len(raw)), &metadata)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if metadata["answer"] != 42 {
		t.Errorf("metadata = %v", metadata)
	}
	c := f.Cursor()
	for i := range 402 {
		key := fmt.Sprintf("k%04d", i)
		var got []string
		if err := c.Each(key, func(value []byte) error { got = append(got, string(value)); return nil }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[key], got); diff != "" {
			t.Errorf("Each(%s) (-want +got):\n%s", key, diff)
		}
	}
	for _, key := range []string{"", "a", "z"} {
		if err := c.Each(key, func([]byte) error { return fmt.Errorf("%q is there", key) }); err != nil {
			t.Error(err)
		}
	}
	var all [][2]string
	if err := f.Cursor().All(func(key, value []byte) error { all = append(all, [2]string{string(key), string(value)}); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pairs, all); diff != "" {
		t.Errorf("All() differs from what was added:\n%s", diff)
	}
}

func TestAFileWithoutEntries(t *testing.T) {
	raw := written(t, 1)
	var metadata int
	f, err := keyfile.Open(bytes.NewReader(raw), int64(len(raw)), &metadata)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Cursor().Each("a", func([]byte) error { return fmt.Errorf("there is one") }); err != nil {
		t.Error(err)
	}
}
