package probe

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

func TestOpens(t *testing.T) {
	long := "/" + strings.Repeat("n", 300)
	tests := []struct {
		name          string
		reads, writes *collectorv1.Opens
		word          uint64
		keys          map[uint32][]string // by list
	}{
		{name: "nothing said is everything", word: opensReadsAll | opensWritesAll},
		{name: "no file", reads: &collectorv1.Opens{}, writes: &collectorv1.Opens{}},
		{
			name: "all needs no prefixes", reads: &collectorv1.Opens{All: true, Prefixes: []string{"/etc/"}}, writes: &collectorv1.Opens{},
			word: opensReadsAll,
		},
		{
			name: "a list each", reads: &collectorv1.Opens{Prefixes: []string{"/etc/shadow", "/root/"}}, writes: &collectorv1.Opens{Prefixes: []string{"/usr/"}},
			word: opensReads | opensWrites | beginning("/etc/shadow") | beginning("/root/") | beginning("/usr/"),
			keys: map[uint32][]string{6: {"/etc/shadow", "/root/"}, 7: {"/usr/"}},
		},
		{
			name: "only writes", reads: &collectorv1.Opens{}, writes: &collectorv1.Opens{Prefixes: []string{"/usr/"}},
			word: opensWrites | beginning("/usr/"), keys: map[uint32][]string{7: {"/usr/"}},
		},
		{name: "the empty prefix is of all", reads: &collectorv1.Opens{Prefixes: []string{"/etc/", ""}}, writes: &collectorv1.Opens{}, word: opensReadsAll},
		{
			name: "a prefix that is too long is cut", reads: &collectorv1.Opens{}, writes: &collectorv1.Opens{Prefixes: []string{long}},
			word: opensWrites | beginning(long), keys: map[uint32][]string{7: {long[:240]}},
		},
		{
			name: "more prefixes than there is room for", reads: &collectorv1.Opens{Prefixes: make([]string, maxPrefixes+1)}, writes: &collectorv1.Opens{},
			word: opensReadsAll,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			word, keys := opens(6, &collectorv1.Interest{Reads: tt.reads, Writes: tt.writes})
			if word != tt.word|6 {
				t.Errorf("word = %#x, want %#x", word, tt.word|6)
			}
			var got map[uint32][]string
			for _, key := range keys {
				if got == nil {
					got = map[uint32][]string{}
				}
				got[key.List] = append(got[key.List], string(key.Path[:(key.Bits-32)/8]))
			}
			if diff := cmp.Diff(tt.keys, got); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBeginning(t *testing.T) {
	all := beginning("/")
	for _, prefix := range []string{"/etc/shadow", "/et", "/\xff\xff", "/\x00\x00", "/zz"} {
		bit := beginning(prefix)
		if bit == 0 || bit&(bit-1) != 0 || bit&all != bit {
			t.Errorf("beginning(%q) = %#x, want one of %#x", prefix, bit, all)
		}
	}
	if all&(opensReads|opensWrites|opensReadsAll|opensWritesAll) != 0 || all|(1<<36-1) != 1<<64-1 {
		t.Errorf("beginning(/) = %#x, want all bits above the flags", all)
	}
}
