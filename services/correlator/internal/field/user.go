package field

import (
	"strconv"
	"strings"
)

func userID(c *Context) (int64, bool) {
	if cred := c.Event.GetCredentials(); cred != nil {
		return int64(cred.GetEffectiveUid()), true
	}
	if c.Process == nil {
		return 0, false
	}
	return int64(c.Process.EUID), true
}

func groupID(c *Context) (int64, bool) {
	if cred := c.Event.GetCredentials(); cred != nil {
		return int64(cred.GetEffectiveGid()), true
	}
	if c.Process == nil {
		return 0, false
	}
	return int64(c.Process.GID), true
}

func loginID(c *Context) (int64, bool) {
	var login uint32
	switch cred := c.Event.GetCredentials(); {
	case cred != nil:
		login = cred.GetLoginUid()
	case c.Process != nil:
		login = c.Process.LoginUID
	default:
		return 0, false
	}
	if login == NoLogin {
		return -1, true
	}
	return int64(login), true
}

// accountName names an id. Only root's name is the same in every container, and /etc/passwd of a
// container is the attacker's to write, so nobody else is named.
func accountName(id int64, ok bool) (string, bool) {
	switch {
	case !ok || id < 0:
		return "", false
	case id == 0:
		return "root", true
	}
	return strconv.FormatInt(id, 10), true
}

// knownUser says whether accountName can answer this: root or a number.
func knownUser(name string) bool {
	if name == "root" {
		return true
	}
	_, err := strconv.ParseUint(name, 10, 32)
	return err == nil
}

// capNames are Linux capabilities by bit, see capabilities(7).
var capNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// effectiveCaps is present and empty for a process that has none.
func effectiveCaps(c *Context) (string, bool) {
	cred := c.Event.GetCredentials()
	if cred == nil {
		return "", false
	}
	mask := cred.GetEffectiveCapabilities()
	if mask == 0 {
		return "", true
	}
	cache := c.cached()
	if cache.caps == "" {
		names := make([]string, 0, len(capNames))
		for bit, name := range capNames {
			if mask&(1<<bit) != 0 {
				names = append(names, name)
			}
		}
		cache.caps = strings.Join(names, " ")
	}
	return cache.caps, true
}
