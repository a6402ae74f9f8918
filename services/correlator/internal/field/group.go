package field

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

// groupStr reads a string of the process group's leader, if it is the process or an ancestor.
func groupStr(get func(*Process) string) func(*Context) (string, bool) {
	return func(c *Context) (string, bool) {
		if c.Process == nil {
			return "", false
		}
		return led(c.Process, c.Process.Group, get)
	}
}

// led reads a string of the process with that id, if it is this one or an ancestor.
func led(p *Process, leader uint32, get func(*Process) string) (string, bool) {
	for n := 0; p != nil && n < maxAncestors; n++ {
		if p.Key.PID == leader {
			return text(get(p))
		}
		p = p.Parent
	}
	return "", false
}
