package commandline

// kind is what a flag takes.
type kind int

const (
	boolean kind = iota
	text
	number
)

// flags are those of a part of the command line, by name without dashes. One that has two names stands there twice;
// aliases leads from the short name to the long one.
type flags map[string]kind

// globalFlags are runC's own, those of 1.1 (which has criu) and of later ones. 1.6 takes them behind the command, too.
var globalFlags = map[string]kind{
	"criu": text, "debug": boolean, "log": text, "log-format": text, "root": text, "rootless": text, "systemd-cgroup": boolean,
}

// rootFlags are taken before the command alone.
var rootFlags = map[string]kind{"help": boolean, "h": boolean, "version": boolean, "v": boolean}

// commandFlags are those of the commands that this package reads to the end; of all others it knows the name only.
var commandFlags = map[string]flags{
	"create": {
		"bundle": text, "b": text, "console-socket": text, "pid-file": text, "pidfd-socket": text, "preserve-fds": number,
		"no-pivot": boolean, "no-new-keyring": boolean, "help": boolean, "h": boolean,
	},
	"exec": {
		"additional-gids": text, "g": text, "apparmor": text, "cap": text, "c": text, "cgroup": text, "console-socket": text,
		"cwd": text, "detach": boolean, "d": boolean, "env": text, "e": text, "ignore-paused": boolean, "no-new-privs": boolean,
		"pid-file": text, "pidfd-socket": text, "preserve-fds": number, "process": text, "p": text, "process-label": text,
		"tty": boolean, "t": boolean, "user": text, "u": text, "help": boolean, "h": boolean,
	},
	"run": {
		"bundle": text, "b": text, "console-socket": text, "pid-file": text, "pidfd-socket": text, "preserve-fds": number,
		"detach": boolean, "d": boolean, "keep": boolean, "no-subreaper": boolean, "no-pivot": boolean, "no-new-keyring": boolean,
		"help": boolean, "h": boolean,
	},
	"start": {"help": boolean, "h": boolean},
}

// aliases are the short names of flags whose value is asked for.
var aliases = map[string]string{"b": "bundle", "h": "help", "v": "version"}
