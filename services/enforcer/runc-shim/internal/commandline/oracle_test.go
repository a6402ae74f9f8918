package commandline

import (
	"context"
	"io"
	"slices"
	"strings"

	v1 "github.com/urfave/cli"
	v3 "github.com/urfave/cli/v3"
)

// The oracles are the libraries that runC parses its command line with, told of runC's flags as runC tells them. An
// oracle returns what runC's action would be called with, and false where runC would call none.

// runcFlag is a flag as runC 1.1.5, 1.5.2 or 1.6.0-rc.1 declares it, with its short name behind a comma.
type runcFlag struct {
	name string
	kind string // bool, string, int, strings
}

var runcGlobal = []runcFlag{
	{"debug", "bool"}, {"log", "string"}, {"log-format", "string"}, {"root", "string"}, {"criu", "string"},
	{"systemd-cgroup", "bool"}, {"rootless", "string"},
}

var runcCommands = map[string][]runcFlag{
	"create": {
		{"bundle, b", "string"}, {"console-socket", "string"}, {"pidfd-socket", "string"}, {"pid-file", "string"}, {"no-pivot", "bool"},
		{"no-new-keyring", "bool"}, {"preserve-fds", "int"},
	},
	"run": {
		{"bundle, b", "string"}, {"console-socket", "string"}, {"pidfd-socket", "string"}, {"detach, d", "bool"}, {"keep", "bool"},
		{"pid-file", "string"}, {"no-subreaper", "bool"}, {"no-pivot", "bool"}, {"no-new-keyring", "bool"}, {"preserve-fds", "int"},
	},
	"start": nil,
	"exec": {
		{"console-socket", "string"}, {"pidfd-socket", "string"}, {"cwd", "string"}, {"env, e", "strings"}, {"tty, t", "bool"},
		{"user, u", "string"}, {"process, p", "string"}, {"detach,d", "bool"}, {"pid-file", "string"}, {"process-label", "string"},
		{"apparmor", "string"}, {"no-new-privs", "bool"}, {"cap, c", "strings"}, {"preserve-fds", "int"}, {"cgroup", "strings"},
		{"ignore-paused", "bool"},
	},
	"kill":  {{"all, a", "bool"}},
	"state": nil,
}

// version1 is urfave/cli 1.22.17, of runC 1.5; 1.1.5 has 1.22.1.
func version1(args []string) (Invocation, bool) {
	var got Invocation
	var called bool
	app := v1.NewApp()
	app.Name, app.Version, app.Writer, app.ErrWriter = "runc", "1", io.Discard, io.Discard
	app.Flags = flags1(runcGlobal)
	app.ExitErrHandler = func(*v1.Context, error) {}
	for name, flags := range runcCommands {
		app.Commands = append(app.Commands, v1.Command{
			Name: name, Flags: flags1(flags), SkipArgReorder: name == "exec" || name == "kill",
			Action: func(c *v1.Context) error {
				got, called = Invocation{
					Command: name, Bundle: c.String("bundle"), Root: c.GlobalString("root"), Log: c.GlobalString("log"),
					LogFormat: c.GlobalString("log-format"),
				}, accepted(name, c.Args())
				got.Container = container(name, c.Args())
				return nil
			},
		})
	}
	if err := app.Run(append([]string{"runc"}, args...)); err != nil {
		return Invocation{}, false
	}
	return got, called
}

func flags1(declared []runcFlag) []v1.Flag {
	var out []v1.Flag
	for _, f := range declared {
		switch f.kind {
		case "bool":
			out = append(out, v1.BoolFlag{Name: f.name})
		case "int":
			out = append(out, v1.IntFlag{Name: f.name})
		case "strings":
			out = append(out, v1.StringSliceFlag{Name: f.name})
		default:
			out = append(out, v1.StringFlag{Name: f.name})
		}
	}
	return out
}

// version3 is urfave/cli 3.14.0, of runC 1.6.0-rc.1.
func version3(args []string) (Invocation, bool) {
	var got Invocation
	var called bool
	app := &v3.Command{
		Name: "runc", Version: "1", Writer: io.Discard, ErrWriter: io.Discard, DisableSliceFlagSeparator: true,
		Flags: flags3(runcGlobal), ExitErrHandler: func(context.Context, *v3.Command, error) {},
	}
	for name, flags := range runcCommands {
		command := &v3.Command{
			Name: name, Flags: flags3(flags),
			Action: func(_ context.Context, c *v3.Command) error {
				got, called = Invocation{
					Command: name, Bundle: c.String("bundle"), Root: c.String("root"), Log: c.String("log"), LogFormat: c.String("log-format"),
				}, accepted(name, c.Args().Slice())
				got.Container = container(name, c.Args().Slice())
				return nil
			},
		}
		if name == "exec" || name == "kill" {
			command.StopOnNthArg = new(1)
		}
		app.Commands = append(app.Commands, command)
	}
	if err := app.Run(context.Background(), append([]string{"runc"}, args...)); err != nil {
		return Invocation{}, false
	}
	return got, called
}

func flags3(declared []runcFlag) []v3.Flag {
	var out []v3.Flag
	for _, f := range declared {
		name, short, _ := strings.Cut(f.name, ",")
		var alias []string
		if short != "" {
			alias = []string{strings.TrimSpace(short)}
		}
		switch f.kind {
		case "bool":
			out = append(out, &v3.BoolFlag{Name: name, Aliases: alias})
		case "int":
			out = append(out, &v3.IntFlag{Name: name, Aliases: alias})
		case "strings":
			out = append(out, &v3.StringSliceFlag{Name: name, Aliases: alias})
		default:
			out = append(out, &v3.StringFlag{Name: name, Aliases: alias})
		}
	}
	return out
}

// accepted is runC's checkArgs, and what it says of ids.
func accepted(command string, arguments []string) bool {
	switch command {
	case "create", "run", "start":
		return len(arguments) == 1 && valid(arguments[0])
	case "exec":
		return len(arguments) >= 1 && valid(arguments[0])
	}
	return true
}

// valid says whether runC takes an id: letters, digits, and "_+,-.".
func valid(id string) bool {
	return id != "" && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+,-.") == ""
}

func container(command string, arguments []string) string {
	if len(arguments) > 0 && slices.Contains([]string{"create", "run", "start", "exec"}, command) {
		return arguments[0]
	}
	return ""
}
