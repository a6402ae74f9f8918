// Package config reads a process's configuration: one YAML file over working defaults. Unknown keys, wrong types and
// values that cannot work are errors that name the file, the line and the key.
package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Validator is a configuration that can say what is wrong with it: every fault, each starting with its key.
type Validator interface {
	Validate() error
}

// Options are what the command line adds to the file.
type Options struct {
	// Check asks the process to go as far as it can without serving, and to exit.
	Check bool
}

// maxFileBytes bounds a configuration file; a real one has under 4 KiB.
const maxFileBytes = 1 << 20

// Load parses `[-check] [-config FILE]`, reads the file over defaults and validates the result. Without -config the
// defaults are used. It returns flag.ErrHelp after it has printed the usage that -help asks for.
func Load[T Validator](args []string, defaults T) (T, Options, error) {
	var opts Options
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "usage: [-check] [-config FILE]\n\nKeys and their defaults:\n\n", Defaults(defaults))
	}
	path := flags.String("config", "", "YAML `file` to read")
	flags.BoolVar(&opts.Check, "check", false, "check configuration and privileges, then exit")
	if err := flags.Parse(args); err != nil {
		return defaults, opts, err
	}
	if flags.NArg() > 0 {
		return defaults, opts, fmt.Errorf("unexpected argument %q: see -help", flags.Arg(0))
	}
	cfg := defaults
	if *path != "" {
		raw, err := readFile(*path)
		if err != nil {
			return defaults, opts, err
		}
		if err := Decode(*path, raw, &cfg); err != nil {
			return defaults, opts, err
		}
	}
	if err := cfg.Validate(); err != nil {
		return defaults, opts, fmt.Errorf("configuration %s: %w", *path, err)
	}
	return cfg, opts, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	if len(raw) > maxFileBytes {
		return nil, fmt.Errorf("read configuration %s: larger than %d bytes", path, maxFileBytes)
	}
	return raw, nil
}

// Decode reads YAML into out, which keeps its values for keys that are absent. path is only for messages.
func Decode(path string, raw []byte, out any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	err := decoder.Decode(out)
	if errors.Is(err, io.EOF) {
		return nil // an empty file asks for the defaults
	}
	if typeErr := (*yaml.TypeError)(nil); errors.As(err, &typeErr) {
		var errs []error
		for _, text := range typeErr.Errors {
			errs = append(errs, locate(path, raw, text))
		}
		return errors.Join(errs...)
	}
	if err != nil {
		return locate(path, raw, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one YAML document", path)
	}
	return nil
}

var (
	yamlLine     = regexp.MustCompile(`^line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (.+) not found in type .*$`)
	wrongType    = regexp.MustCompile("^cannot unmarshal !!(\\w+) `?(.*?)`? into (.+)$")
)

// locate turns the YAML package's "line 3: field x not found in type y" into "file:3: unknown key "x"".
func locate(path string, raw []byte, text string) error {
	m := yamlLine.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("%s: %s", path, text)
	}
	line, rest := m[1], m[2]
	if u := unknownField.FindStringSubmatch(rest); u != nil {
		return fmt.Errorf("%s:%s: unknown key %q: -help lists the keys", path, line, u[1])
	}
	if w := wrongType.FindStringSubmatch(rest); w != nil {
		return fmt.Errorf("%s:%s: %s: %q is not a valid %s", path, line, keyAt(raw, line), w[2], w[3])
	}
	return fmt.Errorf("%s:%s: %s", path, line, rest)
}

// keyAt is the key written on a line, or the line itself if it has none.
func keyAt(raw []byte, line string) string {
	n, err := strconv.Atoi(line)
	lines := strings.Split(string(raw), "\n")
	if err != nil || n < 1 || n > len(lines) {
		return "value"
	}
	key, _, _ := strings.Cut(lines[n-1], ":")
	return strings.TrimLeft(key, " -\t")
}

// Defaults is cfg as YAML, for -help and documentation.
func Defaults(cfg any) string {
	out, err := yaml.Marshal(cfg)
	if err != nil {
		return err.Error()
	}
	return string(out)
}
