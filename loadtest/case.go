package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// bootIDMark stands for the node's boot id in a case: ghz's templates cannot read files.
const bootIDMark = "@boot_id@"

// testCase is one configuration of ghz.
type testCase struct {
	name            string
	process, caller string
	config          map[string]any
}

// loadCases reads the directory's cases in the order of their names.
func loadCases(s settings) ([]testCase, error) {
	paths, err := filepath.Glob(filepath.Join(s.cases, s.only+"*.json"))
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	var cases []testCase
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read case: %w", err)
		}
		text := strings.ReplaceAll(string(raw), bootIDMark, strings.TrimSpace(string(boot)))
		c, err := parseCase(strings.TrimSuffix(filepath.Base(path), ".json"), []byte(text))
		if err != nil {
			return nil, fmt.Errorf("case %s: %w", path, err)
		}
		if c.number("total") > s.most && s.most > 0 {
			c.config["total"] = s.most
			c.config["concurrency"] = min(c.number("concurrency"), s.most)
			c.config["connections"] = min(c.number("connections"), s.most)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// parseCase wants a bound on the number of calls and on the time of each, and the two tags. The time of them all is the
// runner's to bound: with its own limit of time ghz ignores the number.
func parseCase(name string, raw []byte) (testCase, error) {
	c := testCase{name: name}
	if err := json.Unmarshal(raw, &c.config); err != nil {
		return testCase{}, err
	}
	tags, _ := c.config["tags"].(map[string]any)
	c.process, _ = tags["process"].(string)
	c.caller, _ = tags["caller"].(string)
	var errs []error
	if c.process == "" || c.caller == "" {
		errs = append(errs, errors.New("tags.process and tags.caller must say who is called, and by whom"))
	}
	for _, key := range []string{"total", "concurrency", "connections"} {
		if c.number(key) < 1 {
			errs = append(errs, fmt.Errorf("%s: must be a positive number", key))
		}
	}
	for _, key := range []string{"call", "timeout"} {
		if s, _ := c.config[key].(string); s == "" {
			errs = append(errs, fmt.Errorf("%s: is missing", key))
		}
	}
	for _, key := range []string{"duration", "max-duration"} {
		if _, ok := c.config[key]; ok {
			errs = append(errs, fmt.Errorf("%s: makes ghz ignore total", key))
		}
	}
	return c, errors.Join(errs...)
}

func (c testCase) number(key string) int {
	switch n := c.config[key].(type) {
	case float64:
		return int(n)
	case int:
		return n
	}
	return 0
}
