// Package commandline reads the command line that a container engine calls runC with, as runC itself reads it.
//
// In: the arguments. Out: the command and what it is about, or that this is no command line that runC would carry out.
// It never changes anything: whoever calls it hands the arguments on as they came.
//
// runC up to 1.5 uses version 1 of urfave/cli (which is the standard library's flag package, after the flags of a command
// were moved before its arguments), 1.6 uses version 3, which takes more: global flags behind the command, flags with
// blanks around them. This package takes whatever one of them takes, because a create that the installed runC carries out
// must not be missed; where one of them takes a line the meaning is the same in the other, or the other refuses the
// line. FuzzParse holds it against both.
package commandline

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrNotCarriedOut says that runC would refuse this command line, or show help or its version and do nothing else; or
// that it is from a runC whose flags are not known here. The error around it says what the reason is.
var ErrNotCarriedOut = errors.New("no command line that is known to be carried out")

// Invocation is what a command line asks runC for. Paths are as they were given, so they may be relative to the working
// directory; one that was not given is "".
type Invocation struct {
	// Command is the first word that is no flag, "create" for example.
	Command string
	// Container is the id, for create, exec, run and start; "" for other commands.
	Container string
	// Bundle is the directory of config.json, for create and run; "" is the working directory.
	Bundle string
	// Root is the directory of runC's state; "" is runC's default.
	Root string
	// Log is where runC writes its errors; "" is standard error.
	Log string
	// LogFormat is "json", "text" or "", which is text; or a value that runC refuses. These three are of the whole line for
	// the commands with a Container, and for others of what is before the command.
	LogFormat string
}

// Parse reads a command line, without the program's name. If it returns an error (which is ErrNotCarriedOut), the
// invocation holds what was read before it: where to log, for example.
func Parse(args []string) (Invocation, error) {
	var p parser
	rest, err := p.global(args)
	if err != nil || p.help || p.version {
		return p.found, notCarriedOut(err, "it asks for help or the version")
	}
	if len(rest) == 0 {
		return p.found, notCarriedOut(nil, "there is no command")
	}
	p.found.Command = rest[0]
	known, ok := commandFlags[rest[0]]
	if !ok {
		return p.found, nil
	}
	q := p
	arguments, err := p.command(known, rest[1:])
	if rest[0] != "exec" && (err != nil || len(arguments) != 1) {
		p = q
		arguments, err = p.command(known, moved(known, rest[1:]))
	}
	if err != nil || p.help {
		return p.found, notCarriedOut(err, "it asks for help")
	}
	// exec has its program's arguments behind the id; the others are refused with anything but one.
	if len(arguments) == 0 || (len(arguments) > 1 && rest[0] != "exec") {
		return p.found, notCarriedOut(nil, fmt.Sprintf("%s has %d arguments", rest[0], len(arguments)))
	}
	p.found.Container = arguments[0]
	return p.found, nil
}

// moved puts a command's own flags, and the word behind each, before all other words, and "--" between them, as version
// 1.22.17 does it. So it takes a few odd lines that version 3 refuses: "create --new --" makes a container that is called
// "--new", and "create x y --bundle" one that is called "y", with the bundle "x".
func moved(known flags, args []string) []string {
	var front, rest []string
	value := false
	for i, word := range args {
		name, _, given := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(word, "-"), "-"), "=")
		_, own := known[name]
		own = own && strings.HasPrefix(word, "-")
		switch {
		case value && !own:
			front, value = append(front, word), false
		case word == "--":
			return slices.Concat(front, args[i:i+1], rest, args[i+1:])
		case own:
			front, value = append(front, word), !given
		default:
			rest = append(rest, word)
		}
	}
	return append(front, rest...)
}

func notCarriedOut(err error, reason string) error {
	if err != nil {
		reason = err.Error()
	}
	return fmt.Errorf("%w: %s", ErrNotCarriedOut, reason)
}

// parser goes through a command line once.
type parser struct {
	found         Invocation
	help, version bool
}

// global reads flags up to the first argument, and returns that and what is behind it.
func (p *parser) global(args []string) ([]string, error) {
	for len(args) > 0 {
		word := strings.TrimSpace(args[0])
		if word == "--" {
			return args[1:], nil
		}
		if !isFlag(word) {
			return args, nil
		}
		var err error
		if args, err = p.flag(args, rootFlags); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// command reads what is behind the command's name: flags anywhere, but for exec, where they end at the first argument.
func (p *parser) command(known flags, args []string) (arguments []string, err error) {
	for len(args) > 0 {
		word := strings.TrimSpace(args[0])
		switch {
		case word == "--":
			return append(arguments, args[1:]...), nil
		case p.found.Command == "exec" && len(arguments) > 0:
			return append(arguments, args...), nil
		case isFlag(word):
			if args, err = p.flag(args, known); err != nil {
				return nil, err
			}
		case strings.HasPrefix(word, "-") && word != "-":
			// "-5" is no flag for version 3, and ends the flags; version 1 refuses it.
			return append(arguments, args...), nil
		default:
			arguments, args = append(arguments, args[0]), args[1:]
		}
	}
	return arguments, nil
}

// isFlag says whether a word that has no blanks around it is to be looked up.
func isFlag(word string) bool {
	rest, dashed := strings.CutPrefix(word, "-")
	if !dashed || rest == "" {
		return false
	}
	first, _ := utf8.DecodeRuneInString(rest)
	return first == '-' || unicode.IsLetter(first)
}

// flag reads the flag that args begin with, and its value, and returns what is behind them.
func (p *parser) flag(args []string, known flags) ([]string, error) {
	word, args := strings.TrimSpace(args[0]), args
	name := strings.TrimPrefix(strings.TrimPrefix(word, "-"), "-")
	name, _, given := strings.Cut(name, "=")
	_, value, _ := strings.Cut(args[0], "=") // not the word's: blanks behind it belong to the value
	takes, ok := known[name]
	if !ok {
		if takes, ok = globalFlags[name]; !ok {
			return nil, fmt.Errorf("flag %.100q is not known", name)
		}
	}
	args = args[1:]
	if takes == boolean {
		if value == "" {
			value = "true"
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return nil, fmt.Errorf("flag %s is neither true nor false", name)
		}
		p.setBoolean(name, on)
		return args, nil
	}
	if !given {
		if len(args) == 0 {
			return nil, fmt.Errorf("flag %s has no value", name)
		}
		value, args = args[0], args[1:]
	}
	if _, err := strconv.ParseInt(value, 0, strconv.IntSize); takes == number && err != nil {
		return nil, fmt.Errorf("flag %s is no number", name)
	}
	p.setText(name, value)
	return args, nil
}

func (p *parser) setBoolean(name string, on bool) {
	switch long(name) {
	case "help":
		p.help = on
	case "version":
		p.version = on
	}
}

func (p *parser) setText(name, value string) {
	switch long(name) {
	case "bundle":
		p.found.Bundle = value
	case "log":
		p.found.Log = value
	case "log-format":
		p.found.LogFormat = value
	case "root":
		p.found.Root = value
	}
}

func long(name string) string {
	if full, ok := aliases[name]; ok {
		return full
	}
	return name
}
