package commandline

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// words splits a line at its spaces; "·" stands for a space within a word, "∅" for an empty word.
func words(line string) []string {
	out := strings.Fields(line)
	for i := range out {
		out[i] = strings.ReplaceAll(strings.ReplaceAll(out[i], "·", " "), "∅", "")
	}
	return out
}

func TestParse(t *testing.T) {
	tests := []struct {
		name, line string
		want       Invocation
		refused    bool
	}{
		{
			name: "containerd's create",
			line: "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json create --bundle /b --pid-file /b/init.pid --console-socket /s abc",
			want: Invocation{Command: "create", Container: "abc", Bundle: "/b", Root: "/run/containerd/runc/k8s.io", Log: "/b/log.json", LogFormat: "json"},
		},
		{
			name: "conmon's create", line: "--log-format=json --log /l create --bundle /b --pid-file /p --no-pivot abc",
			want: Invocation{Command: "create", Container: "abc", Bundle: "/b", Log: "/l", LogFormat: "json"},
		},
		{name: "a value that is called create", line: "--root create --log start state x", want: Invocation{Command: "state", Root: "create", Log: "start"}},
		{name: "one dash", line: "-root /r -systemd-cgroup create -b /b x", want: Invocation{Command: "create", Container: "x", Bundle: "/b", Root: "/r"}},
		{name: "a boolean with a value", line: "--debug=false --systemd-cgroup=1 start x", want: Invocation{Command: "start", Container: "x"}},
		{name: "a boolean takes no second word", line: "--debug create x", want: Invocation{Command: "create", Container: "x"}},
		{name: "flags behind the id", line: "create x --bundle /b --no-pivot", want: Invocation{Command: "create", Container: "x", Bundle: "/b"}},
		{name: "an id behind two dashes", line: "create --bundle /b -- --bundle", want: Invocation{Command: "create", Container: "--bundle", Bundle: "/b"}},
		{name: "two dashes before the command", line: "--root /r -- create x", want: Invocation{Command: "create", Container: "x", Root: "/r"}},
		{name: "two dashes as a value", line: "--root -- create x", want: Invocation{Command: "create", Container: "x", Root: "--"}},
		{name: "a flag as a value", line: "create --bundle --no-pivot x", want: Invocation{Command: "create", Container: "x", Bundle: "--no-pivot"}},
		{name: "an equals sign in a value", line: "--root=/a=b create --bundle=/c=d x", want: Invocation{Command: "create", Container: "x", Bundle: "/c=d", Root: "/a=b"}},
		{name: "the last value counts", line: "--log /a --log /b run --bundle /a --bundle /b x", want: Invocation{Command: "run", Container: "x", Bundle: "/b", Log: "/b"}},
		{name: "an empty value", line: "--log ∅ create --bundle= x", want: Invocation{Command: "create", Container: "x"}},
		{name: "an empty id", line: "create ∅", want: Invocation{Command: "create"}},
		{name: "criu, which 1.5 does not know", line: "--criu /c create x", want: Invocation{Command: "create", Container: "x"}},
		{name: "a global flag behind the command, as 1.6 takes it", line: "create --root /r x", want: Invocation{Command: "create", Container: "x", Root: "/r"}},
		{name: "blanks around a flag, as 1.6 takes them", line: "create ·--bundle /b x", want: Invocation{Command: "create", Container: "x", Bundle: "/b"}},
		{name: "containerd's exec", line: "exec --process /p --detach --pid-file /f x", want: Invocation{Command: "exec", Container: "x"}},
		{name: "an exec of create", line: "exec x runc create --bundle /b y", want: Invocation{Command: "exec", Container: "x"}},
		{name: "an exec of flags that exec does not know", line: "exec -t x ls --color", want: Invocation{Command: "exec", Container: "x"}},
		{name: "another command", line: "--root /r kill --all x KILL", want: Invocation{Command: "kill", Root: "/r"}},
		{name: "runC's own init", line: "init", want: Invocation{Command: "init"}},
		{name: "nothing", refused: true},
		{name: "help", line: "--help create x", refused: true},
		{name: "a command's help", line: "create x -h", want: Invocation{Command: "create"}, refused: true},
		{name: "the version", line: "-v", refused: true},
		{name: "a flag nobody knows", line: "--log /l --new-in-2.0 create x", want: Invocation{Log: "/l"}, refused: true},
		{name: "a command's flag that nobody knows", line: "--log /l create --new x", want: Invocation{Command: "create", Log: "/l"}, refused: true},
		{name: "no value", line: "--root", refused: true},
		{name: "three dashes", line: "---root /r create x", refused: true},
		{name: "neither true nor false", line: "--debug=perhaps create x", refused: true},
		{name: "no number", line: "create --preserve-fds many x", want: Invocation{Command: "create"}, refused: true},
		{name: "no id", line: "create --bundle /b", want: Invocation{Command: "create", Bundle: "/b"}, refused: true},
		{name: "two ids", line: "start x y", want: Invocation{Command: "start"}, refused: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(words(tt.line))
			if got != tt.want {
				t.Errorf("Parse(%s) = %+v, want %+v", tt.line, got, tt.want)
			}
			if errors.Is(err, ErrNotCarriedOut) != tt.refused || (err == nil) == tt.refused {
				t.Errorf("Parse(%s) error = %v, want refused = %v", tt.line, err, tt.refused)
			}
			known := tt.want.Command != "init" // runC sees to that before it reads a command line
			if carriedOut := compare(t, words(tt.line)); known && tt.line != "create ∅" && carriedOut == tt.refused {
				t.Errorf("carried out = %v by urfave/cli, want %v", carriedOut, !tt.refused)
			}
		})
	}
}

// compare holds Parse against what runC's own libraries make of a line, and says whether one of them carries it out. A
// line that mixes what only one takes with what only the other takes is refused by both, and may be read here.
func compare(t *testing.T, args []string) (carriedOut bool) {
	t.Helper()
	before := slices.Clone(args)
	got, err := Parse(args)
	if !slices.Equal(args, before) {
		t.Fatalf("Parse changed %q to %q", before, args)
	}
	for name, oracle := range map[string]func([]string) (Invocation, bool){"version 1": version1, "version 3": version3} {
		want, ok := oracle(slices.Clone(args))
		if !ok {
			continue
		}
		carriedOut = true
		if _, whole := commandFlags[want.Command]; !whole {
			// What 1.6 takes behind other commands is not read.
			want.Root, want.Log, want.LogFormat = got.Root, got.Log, got.LogFormat
		}
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v; urfave/cli %s has %+v", args, got, err, name, want)
		}
	}
	return carriedOut
}

// vocabulary is what lines are put together of at random; words as in TestParse.
var vocabulary = strings.Fields(`create create run start exec state id id /b /l --bundle --bundle=/b -b -b=/c --root --root=/r -root --log --log=
	--log-format=json --log-format --debug --debug=false --systemd-cgroup -- - --- -5 -ä ∅ ·--bundle --bundle· --preserve-fds 0x1F 7 --no-pivot
	--no-pivot=0 -d --detach=T --keep --help --help=0 -h --version=false -v --new --=x --pid-file --console-socket=/s -t -e A=B --process ·create --criu
	--rootless --b --no-pivot=maybe --preserve-fds=x --d=1`)

func TestRandomLines(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 4000 {
		line := make([]string, random.IntN(8))
		for i := range line {
			line[i] = vocabulary[random.IntN(len(vocabulary))]
		}
		if compare(t, words(strings.Join(line, " "))); t.Failed() {
			return
		}
	}
}

// FuzzParse takes a line's words with newlines between them.
func FuzzParse(f *testing.F) {
	for _, line := range []string{
		"--root /r --log /l --log-format json create --bundle /b --pid-file /p id", "--root=/r -debug run -d --keep id -b /b",
		"create id -- --bundle", "create -- id", "create id --", "create -5", "create --no-pivot id --bundle /b", "- create id",
		"exec -t --env A=B id sh -c create", "exec -- id --x", "--rootless=auto --systemd-cgroup=TRUE start id", "--help=false create --h=0 id",
		"create --preserve-fds 0x10 id", "create -b /b --bundle /c id", "·--root /r ·create id", "foo create id", "∅ create id", "--version=false -h= create id",
		"create --root /r --log=/l id", "create help", "create --bundle", "--=x create id", "kill -a id KILL", "help create id", "create - ", "create -ä id",
	} {
		f.Add(strings.Join(words(line), "\n"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		if len(line) > 4096 {
			t.Skip()
		}
		compare(t, strings.Split(line, "\n"))
	})
}
