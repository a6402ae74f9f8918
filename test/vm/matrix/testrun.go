package main

import (
	"regexp"
	"strconv"
	"strings"
)

// outcome of a test, in the words of `go test -v`. A test that did not come to its end has none.
type outcome string

const (
	passed  outcome = "PASS"
	failed  outcome = "FAIL"
	skipped outcome = "SKIP"
)

// Lines of test/vm/kerneltest itself begin with a word that no test prints.
const (
	markExit = "palisade-vm exit "
	markLSM  = "palisade-vm lsm "
)

// test is one test or subtest, with what it printed.
type test struct {
	name    string
	outcome outcome
	seconds string // as the test binary writes them
	output  []string
}

// whole says that it is no subtest.
func (t *test) whole() bool { return !strings.Contains(t.name, "/") }

// reason is what a skipped test said, without the place where it said it.
func (t *test) reason() string {
	return placeOfLine.ReplaceAllString(strings.TrimSpace(strings.Join(t.output, " ")), "")
}

// testRun is what a VM's tests said so far.
type testRun struct {
	tests []*test
	// ended is whether the last marked line came, exit what it said.
	ended bool
	exit  int
	// lsm is the running kernel's list.
	lsm string
	// finished is told of each test that came to its end, if it is not nil.
	finished func(*test)
	// loose lines belong to no test: a panic's, for example.
	loose   []string
	current *test
}

var (
	startLine = regexp.MustCompile(`^=== (RUN|NAME|CONT|PAUSE)\s+(\S+)$`)
	endLine   = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+)s\)`)
	// placeOfLine is what t.Log and the like put before a message.
	placeOfLine = regexp.MustCompile(`^\S+_test\.go:\d+: `)
)

// line takes the next line of `-test.v` output.
func (r *testRun) line(text string) {
	if start := startLine.FindStringSubmatch(text); start != nil {
		r.current = r.find(start[2])
		return
	}
	if end := endLine.FindStringSubmatch(text); end != nil {
		t := r.find(end[2])
		t.outcome, t.seconds = outcome(end[1]), end[3]
		r.current = nil
		if r.finished != nil {
			r.finished(t)
		}
		return
	}
	if code, ok := strings.CutPrefix(text, markExit); ok {
		exit, err := strconv.Atoi(code)
		r.ended, r.exit = err == nil, exit
		return
	}
	if list, ok := strings.CutPrefix(text, markLSM); ok {
		r.lsm = list
		return
	}
	if r.current != nil {
		r.current.output = append(r.current.output, text)
	} else if text != "PASS" && text != "FAIL" && text != "" {
		r.loose = append(r.loose, text)
	}
}

func (r *testRun) find(name string) *test {
	for _, t := range r.tests {
		if t.name == name {
			return t
		}
	}
	t := &test{name: name}
	r.tests = append(r.tests, t)
	return t
}

// with are the tests of an outcome; those without any count as failed.
func (r *testRun) with(o outcome) []*test {
	var found []*test
	for _, t := range r.tests {
		if t.outcome == o || (t.outcome == "" && o == failed) {
			found = append(found, t)
		}
	}
	return found
}
