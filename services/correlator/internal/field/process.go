package field

import "strings"

// processFields are proc.*: the acting process and those it descends from.
var processFields = map[string]Field{
	"proc.name":                              {Doc: "file name of the executable", Type: Name, Own: true, Str: self(name)},
	"proc.exe":                               {Doc: "argv[0]: what the caller says it runs", Str: self(firstArg)},
	"proc.exepath":                           {Doc: "the kernel's path of the executable", Str: self(exePath)},
	"proc.cmdline":                           {Doc: "name and arguments, separated by spaces", Str: func(c *Context) (string, bool) { return cmdline(c, 0) }},
	"proc.args":                              {Doc: "arguments after argv[0], separated by spaces", Str: func(c *Context) (string, bool) { return arguments(c, 0) }},
	"proc.exeline":                           {Doc: "argv[0] and the other arguments, separated by spaces", Str: exeLine},
	"proc.cmdlenargs":                        {Doc: "bytes of the arguments after argv[0], without the spaces between them", Type: Number, Num: argBytes},
	"proc.exe_ino":                           {Doc: "inode of the executable", Type: Number, Num: exeInode},
	"proc.exe_ino.ctime":                     {Doc: "last change of the executable's inode, nanoseconds since 1970", Type: Number, Num: exeTime(func(p *Process) int64 { return p.ExeCtimeNs })},
	"proc.exe_ino.mtime":                     {Doc: "last change of the executable's bytes, nanoseconds since 1970; its owner can set it", Type: Number, Num: exeTime(func(p *Process) int64 { return p.ExeMtimeNs })},
	"proc.exe_ino.ctime_duration_proc_start": {Doc: "nanoseconds from proc.exe_ino.ctime to the start of the process; below 0 if it changed after that", Type: Number, Num: exeAgeAtStart},
	"proc.cmdnargs":                          {Doc: "number of arguments after argv[0]", Type: Number, Num: argCount},
	"proc.cwd":                               {Doc: "working directory, with a slash at its end", Str: workDir},
	"proc.pid":                               {Doc: "process id in the initial pid namespace", Type: Number, Num: processID},
	"proc.ppid":                              {Doc: "parent's process id: of who started it, or took it over when that one had ended", Type: Number, Num: parentID},
	"proc.pname":                             {Doc: "proc.name of the parent", Type: Name, Str: above(1, name)},
	"proc.pexe":                              {Doc: "proc.exe of the parent", Str: above(1, firstArg)},
	"proc.pexepath":                          {Doc: "proc.exepath of the parent", Str: above(1, exePath)},
	"proc.pcmdline":                          {Doc: "proc.cmdline of the parent", Str: func(c *Context) (string, bool) { return cmdline(c, 1) }},
	"proc.aname":                             {Doc: "proc.name of any ancestor, or of the n-th: parents as proc.ppid", Type: Name, arg: optionalIndex, strAt: nth(name), AnyStr: anyAncestor(name)},
	"proc.aexe":                              {Doc: "proc.exe of any ancestor, or of the n-th", arg: optionalIndex, strAt: nth(firstArg), AnyStr: anyAncestor(firstArg)},
	"proc.aexepath":                          {Doc: "proc.exepath of any ancestor, or of the n-th", arg: optionalIndex, strAt: nth(exePath), AnyStr: anyAncestor(exePath)},
	"proc.acmdline":                          {Doc: "proc.cmdline of any ancestor, or of the n-th", arg: optionalIndex, strAt: cmdline, AnyStr: anyAncestorLine},
	"proc.apid":                              {Doc: "process id of any ancestor, or of the n-th", Type: Number, arg: optionalIndex, numAt: nthID, AnyNum: anyAncestorID},
	"proc.tty":                               {Doc: "controlling terminal, 0 if none", Type: Number, Num: terminal},
	"proc.sid":                               {Doc: "process id of the session's leader", Type: Number, Num: sessionID},
	"proc.sname":                             {Doc: "name of the session's leader", Type: Name, Str: sessionStr(name)},
	"proc.sexepath":                          {Doc: "executable of the session's leader", Str: sessionStr(exePath)},
	"proc.sid.exe":                           {Doc: "proc.exe of the session's leader", Str: sessionStr(firstArg)},
	"proc.sid.exepath":                       {Doc: "the same as proc.sexepath", Str: sessionStr(exePath)},
	"proc.is_sid_leader":                     {Doc: "the process leads its session", Type: Bool, Num: property(func(p *Process) bool { return p.Session == p.Key.PID })},
	"proc.pid.ts":                            {Doc: "start of the process, nanoseconds since 1970", Type: Number, Num: func(c *Context) (int64, bool) { return started(c, c.Process) }},
	"proc.ppid.ts":                           {Doc: "start of the parent, nanoseconds since 1970", Type: Number, Num: func(c *Context) (int64, bool) { return started(c, c.parent()) }},
	"proc.loginuid":                          {Doc: "audit login user id, -1 if never set", Type: Number, Num: loginID},
	"proc.duration":                          {Doc: "nanoseconds since the process started", Type: Number, Num: func(c *Context) (int64, bool) { return age(c, c.Process) }},
	"proc.ppid.duration":                     {Doc: "nanoseconds since the parent started", Type: Number, Num: func(c *Context) (int64, bool) { return age(c, c.parent()) }},
	"proc.is_exe_upper_layer":                {Doc: "the executable was written after the image was made", Type: Bool, Num: property(func(p *Process) bool { return p.ExeUpperLayer })},
	"proc.is_exe_from_memfd":                 {Doc: "the executable exists in memory only", Type: Bool, Num: property(func(p *Process) bool { return p.ExeMemfd })},
	"proc.is_exe_unlinked":                   {Doc: "the executable's file is deleted (ours, not Falco's)", Type: Bool, Num: property(func(p *Process) bool { return p.ExeUnlinked })},
}

// StartedBy is the process that started this one, whether it lives or not, nil if it is not known.
func (p *Process) StartedBy() *Process {
	if p.Creator != nil {
		return p.Creator
	}
	return p.Parent
}

func name(p *Process) string    { return p.Name }
func exePath(p *Process) string { return p.Exe }

// firstArg falls back to the executable where the arguments are not known.
func firstArg(p *Process) string {
	if len(p.Argv) == 0 {
		return p.Exe
	}
	return p.Argv[0]
}

// self reads a string of the acting process; missing if empty.
func self(get func(*Process) string) func(*Context) (string, bool) { return above(0, get) }

// above reads a string of the n-th ancestor.
func above(n int, get func(*Process) string) func(*Context) (string, bool) {
	return func(c *Context) (string, bool) {
		p := c.Process.ancestor(n)
		if p == nil {
			return "", false
		}
		return text(get(p))
	}
}

// nth reads a string of the n-th ancestor, where n is the field's argument.
func nth(get func(*Process) string) func(*Context, int) (string, bool) {
	return func(c *Context, n int) (string, bool) {
		p := c.Process.ancestor(n)
		if p == nil {
			return "", false
		}
		return text(get(p))
	}
}

// anyAncestor asks every ancestor, the parent first; the process itself is not one.
func anyAncestor(get func(*Process) string) func(*Context, func(string) bool) bool {
	return func(c *Context, match func(string) bool) bool {
		p := c.parent()
		for n := 0; p != nil && n < maxAncestors; n++ {
			if s := get(p); s != "" && match(s) {
				return true
			}
			p = p.Parent
		}
		return false
	}
}

func nthID(c *Context, n int) (int64, bool) {
	p := c.Process.ancestor(n)
	if p == nil {
		return 0, false
	}
	return int64(p.Key.PID), true
}

func anyAncestorID(c *Context, match func(int64) bool) bool {
	p := c.parent()
	for n := 0; p != nil && n < maxAncestors; n++ {
		if match(int64(p.Key.PID)) {
			return true
		}
		p = p.Parent
	}
	return false
}

func processID(c *Context) (int64, bool) {
	if c.Process != nil {
		return int64(c.Process.Key.PID), true
	}
	pid := c.Event.GetProcess().GetPid()
	return int64(pid), pid != 0
}

func parentID(c *Context) (int64, bool) {
	if p := c.parent(); p != nil {
		return int64(p.Key.PID), true
	}
	pid := c.Event.GetParent().GetPid()
	return int64(pid), pid != 0
}

// cmdline is of the n-th ancestor, put together once for an event for the nearest of them. It
// begins with the name and not with argv[0], as Falco's does: argv[0] is the caller's choice.
func cmdline(c *Context, n int) (string, bool) {
	p := c.Process.ancestor(n)
	if p == nil || p.Name == "" {
		return "", false
	}
	args := p.args()
	if len(args) == 0 {
		return p.Name, true
	}
	cache := c.cached()
	if n >= len(cache.cmdline) {
		return p.Name + " " + strings.Join(args, " "), true
	}
	if cache.cmdline[n] == "" {
		cache.cmdline[n] = p.Name + " " + strings.Join(args, " ")
	}
	return cache.cmdline[n], true
}

// anyAncestorLine asks every ancestor's command line, the parent's first.
func anyAncestorLine(c *Context, match func(string) bool) bool {
	p := c.parent()
	for n := 1; p != nil && n <= maxAncestors; n++ {
		if s, ok := cmdline(c, n); ok && match(s) {
			return true
		}
		p = p.Parent
	}
	return false
}

// exeLine is put together once for an event.
func exeLine(c *Context) (string, bool) {
	if c.Process == nil || len(c.Process.Argv) == 0 {
		return "", false
	}
	cache := c.cached()
	if cache.exeLine == "" {
		cache.exeLine = strings.Join(c.Process.Argv, " ")
	}
	return cache.exeLine, true
}

func argBytes(c *Context) (int64, bool) {
	if c.Process == nil {
		return 0, false
	}
	total := 0
	for _, arg := range c.Process.args() {
		total += len(arg)
	}
	return int64(total), true
}

func exeInode(c *Context) (int64, bool) {
	if c.Process == nil || c.Process.ExeInode == 0 {
		return 0, false
	}
	return number(c.Process.ExeInode), true
}

// exeTime reads a time of the executable's; missing if it is not known.
func exeTime(get func(*Process) int64) func(*Context) (int64, bool) {
	return func(c *Context) (int64, bool) {
		if c.Process == nil {
			return 0, false
		}
		at := get(c.Process)
		return at, at != 0
	}
}

// exeAgeAtStart is how old the executable's last change was when the process started.
func exeAgeAtStart(c *Context) (int64, bool) {
	start, ok := started(c, c.Process)
	if !ok || c.Process.ExeCtimeNs == 0 {
		return 0, false
	}
	return start - c.Process.ExeCtimeNs, true
}

// started is when the process started, by the event's two clocks.
func started(c *Context, p *Process) (int64, bool) {
	old, ok := age(c, p)
	now, known := eventRawTime(c)
	return now - old, ok && known
}

// arguments is the tail of cmdline; present and empty if there are none.
func arguments(c *Context, n int) (string, bool) {
	p := c.Process.ancestor(n)
	if p == nil {
		return "", false
	}
	args := p.args()
	switch {
	case len(args) == 0:
		return "", true
	case len(args) == 1:
		return args[0], true
	case p.Name == "":
		return strings.Join(args, " "), true
	}
	line, _ := cmdline(c, n)
	return line[len(p.Name)+1:], true
}

func argCount(c *Context) (int64, bool) {
	if c.Process == nil {
		return 0, false
	}
	return int64(len(c.Process.args())), true
}

func workDir(c *Context) (string, bool) {
	if c.Process == nil || c.Process.Cwd == "" {
		return "", false
	}
	if strings.HasSuffix(c.Process.Cwd, "/") {
		return c.Process.Cwd, true
	}
	return c.Process.Cwd + "/", true
}

func terminal(c *Context) (int64, bool) {
	if c.Process == nil {
		return 0, false
	}
	return int64(c.Process.TTY), true
}

func sessionID(c *Context) (int64, bool) {
	if c.Process == nil {
		return 0, false
	}
	return int64(c.Process.Session), true
}

// sessionStr reads a string of the session's leader.
func sessionStr(get func(*Process) string) func(*Context) (string, bool) {
	return leaderStr(func(p *Process) uint32 { return p.Session }, get)
}

// age is how long the process had lived when the event happened.
func age(c *Context, p *Process) (int64, bool) {
	now := c.Event.GetBoottimeNs()
	if p == nil || p.Key.StartBoottimeNs == 0 || now < p.Key.StartBoottimeNs {
		return 0, false
	}
	return int64(now - p.Key.StartBoottimeNs), true //nolint:gosec // nanoseconds since boot
}

// property reads a yes-or-no of the acting process.
func property(get func(*Process) bool) func(*Context) (int64, bool) {
	return func(c *Context) (int64, bool) {
		if c.Process == nil {
			return 0, false
		}
		return flag(get(c.Process))
	}
}

// groupFields are proc.pgid* and proc.vpgid*: the process group of the acting process as of its last exec, and ids that the
// process's own pid namespace gives.
var groupFields = map[string]Field{
	"proc.pgid":            {Doc: "process id of the process group's leader", Type: Number, Num: knownID(func(p *Process) uint32 { return p.Group })},
	"proc.pgid.name":       {Doc: "proc.name of the process group's leader", Type: Name, Str: groupStr(name)},
	"proc.pgid.exe":        {Doc: "proc.exe of the process group's leader", Str: groupStr(firstArg)},
	"proc.pgid.exepath":    {Doc: "proc.exepath of the process group's leader", Str: groupStr(exePath)},
	"proc.is_pgid_leader":  {Doc: "the process leads its process group", Type: Bool, Num: leadsGroup},
	"proc.vpgid":           {Doc: "proc.pgid in the process's own pid namespace", Type: Number, Num: knownID(func(p *Process) uint32 { return p.InnerGroup })},
	"proc.vpgid.name":      {Doc: "the same as proc.pgid.name", Type: Name, Str: groupStr(name)},
	"proc.vpgid.exe":       {Doc: "the same as proc.pgid.exe", Str: groupStr(firstArg)},
	"proc.vpgid.exepath":   {Doc: "the same as proc.pgid.exepath", Str: groupStr(exePath)},
	"proc.is_vpgid_leader": {Doc: "the same as proc.is_pgid_leader", Type: Bool, Num: leadsGroup},
	"proc.vpid":            {Doc: "proc.pid in the process's own pid namespace; missing between fork and exec", Type: Number, Num: knownID(innerPID)},
	"proc.pvpid":           {Doc: "proc.vpid of the parent", Type: Number, Num: parentInnerPID},
}

// leadsGroup is missing where the group is: in what an earlier version recorded.
func leadsGroup(c *Context) (int64, bool) {
	if c.Process == nil || c.Process.Group == 0 {
		return 0, false
	}
	return flag(c.Process.Group == c.Process.Key.PID)
}

func innerPID(p *Process) uint32 { return p.InnerPID }

// knownID is an id of the acting process, missing if it is zero.
func knownID(get func(*Process) uint32) func(*Context) (int64, bool) {
	return func(c *Context) (int64, bool) {
		if c.Process == nil {
			return 0, false
		}
		id := get(c.Process)
		return int64(id), id != 0
	}
}

func parentInnerPID(c *Context) (int64, bool) {
	p := c.parent()
	if p == nil {
		return 0, false
	}
	return int64(p.InnerPID), p.InnerPID != 0
}

// groupStr reads a string of the process group's leader.
func groupStr(get func(*Process) string) func(*Context) (string, bool) {
	return leaderStr(func(p *Process) uint32 { return p.Group }, get)
}

// leaderStr reads a string of the process that leads the acting one, if it is the process itself or among those that started it: a
// leader may have ended since, and is then no parent any more.
func leaderStr(leader func(*Process) uint32, get func(*Process) string) func(*Context) (string, bool) {
	return func(c *Context) (string, bool) {
		p := c.Process
		for n := 0; p != nil && n < maxAncestors; n++ {
			if p.Key.PID == leader(c.Process) {
				return text(get(p))
			}
			p = p.StartedBy()
		}
		return "", false
	}
}
