package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestCompareTakesMedians(t *testing.T) {
	operations := []operation{{name: "x"}}
	got := compare(operations, samples{"x": {900, 100, 110, 90, 1}}, samples{"x": {150, 1, 999}})
	if want := (result{Operation: "x", Without: 100, With: 150, Ratio: 1.5}); got[0] != want {
		t.Errorf("compare() = %+v, want %+v", got[0], want)
	}
}

func TestOperationsWork(t *testing.T) {
	for _, op := range operations(t.TempDir()) {
		if err := op.run(); err != nil {
			t.Errorf("%s: %v", op.name, err)
		}
	}
}

func TestPrint(t *testing.T) {
	results := []result{{Operation: "open", Without: 1000, With: 1250, Ratio: 1.25}}
	for format, want := range map[string]string{"text": "1.25", "json": `"ratio": 1.25`} {
		var out bytes.Buffer
		if err := print(&out, format, results); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("print(%s) = %q, %v, want %q in it", format, out.String(), err, want)
		}
	}
}
