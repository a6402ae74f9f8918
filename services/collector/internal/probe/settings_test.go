package probe

import (
	"math"
	"math/bits"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

func TestTranslate(t *testing.T) {
	long := "/" + strings.Repeat("n", 300)
	tests := []struct {
		name          string
		reads, writes *collectorv1.Opens
		want          opens               // but for the number
		keys          map[uint32][]string // by list
	}{
		{name: "nothing said is everything", want: opens{word: opensEverything}},
		{name: "no file", reads: &collectorv1.Opens{}, writes: &collectorv1.Opens{}},
		{
			name: "all needs no prefixes", reads: &collectorv1.Opens{All: true, Prefixes: []string{"/etc/"}}, writes: &collectorv1.Opens{},
			want: opens{word: opensReadsAll},
		},
		{
			name: "a list each", reads: &collectorv1.Opens{Prefixes: []string{"/etc/shadow", "/root/"}}, writes: &collectorv1.Opens{Prefixes: []string{"/usr/"}},
			want: opens{word: opensReads | opensWrites, reads: beginning("/etc/") | beginning("/root"), writes: beginning("/us")},
			keys: map[uint32][]string{6: {"/etc/shadow", "/root/"}, 7: {"/usr/"}},
		},
		{
			name: "only writes", reads: &collectorv1.Opens{}, writes: &collectorv1.Opens{Prefixes: []string{"/usr/"}},
			want: opens{word: opensWrites, writes: beginning("/usr/")}, keys: map[uint32][]string{7: {"/usr/"}},
		},
		{
			name: "the empty prefix is of all", reads: &collectorv1.Opens{Prefixes: []string{"/etc/", ""}}, writes: &collectorv1.Opens{},
			want: opens{word: opensReadsAll},
		},
		{
			name: "a prefix that is too long is cut", reads: &collectorv1.Opens{}, writes: &collectorv1.Opens{Prefixes: []string{long}},
			want: opens{word: opensWrites, writes: beginning(long)}, keys: map[uint32][]string{7: {long[:240]}},
		},
		{
			name: "more prefixes than there is room for", reads: &collectorv1.Opens{Prefixes: make([]string, maxPrefixes+1)}, writes: &collectorv1.Opens{},
			want: opens{word: opensReadsAll},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, keys := translate(6, &collectorv1.Interest{Reads: tt.reads, Writes: tt.writes})
			tt.want.word |= 6
			if got != tt.want {
				t.Errorf("opens = %#x, want %#x", got, tt.want)
			}
			var lists map[uint32][]string
			for _, key := range keys {
				if lists == nil {
					lists = map[uint32][]string{}
				}
				lists[key.List] = append(lists[key.List], string(key.Path[:(key.Bits-32)/8]))
			}
			if diff := cmp.Diff(tt.keys, lists); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTranslateGivenPaths(t *testing.T) {
	got, _ := translate(6, &collectorv1.Interest{Reads: &collectorv1.Opens{}, Writes: &collectorv1.Opens{}, GivenPaths: true})
	if want := opensGiven | 6; got.word != want {
		t.Errorf("opens = %#x, want %#x", got.word, want)
	}
}

func TestBeginning(t *testing.T) {
	for _, prefix := range []string{"/etc/shadow", "/et", "/\xff\xff", "/\x00\x00", "/zz"} {
		if bit := beginning(prefix); bits.OnesCount64(bit) != 1 {
			t.Errorf("beginning(%q) = %#x, want one bit", prefix, bit)
		}
	}
	for _, prefix := range []string{"/", "/e"} {
		if beginning(prefix) != math.MaxUint64 {
			t.Errorf("beginning(%q) = %#x, want all bits: it may go on in any way", prefix, beginning(prefix))
		}
	}
}
