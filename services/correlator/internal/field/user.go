package field

import "strconv"

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

// effectiveCaps is present and empty for a process that has none.
func effectiveCaps(c *Context) (string, bool) {
	cred := c.Event.GetCredentials()
	return c.spelled(capabilities, cred.GetEffectiveCapabilities()), cred != nil
}
