package window

import "strings"

// Who may look through a window.
const (
	caller = "correlator"
	// asker asks about the one container that is about to be created, and about its image.
	asker = "enforcer"
)

// host is the only name a request may be addressed to.
const host = "gate"

// route is one line of the table: a request's target to the byte, with at most one variable part.
type route struct {
	// head and tail stand before and after the variable part. Without one, head is the whole target.
	head, tail string
	// variable says what the variable part must be; nil if there is none.
	variable func(string) bool
	// asked says that the asker may have it too.
	asked bool
	// stream says that the answer has no end, so it is bounded by nothing but the caller.
	stream bool
	label  string
}

// routes is all that reaches the runtime, with the method GET, sorted by label. Every line reads. Log, archive, export,
// attach, stats and top have no line: they carry what is inside a container, or hijack the connection.
var routes = []route{
	{label: "ping", head: "/_ping"},
	// The list cut down to one: while Docker creates a container it lets a question about that one alone wait until it is created.
	{label: "being created", head: "/containers/json?all=1&filters=%7B%22id%22%3A%5B%22", tail: "%22%5D%7D", variable: isID, asked: true},
	{label: "container", head: "/containers/", tail: "/json", variable: isID},           // pid, mounts, privileged, start time of one
	{label: "containers", head: "/containers/json"},                                     // ids, names, images and labels of all that run
	{label: "events", head: EventsTarget, stream: true},                                 // tells when a container starts or ends
	{label: "image", head: "/images/", tail: "/json", variable: isImageID, asked: true}, // digest behind an image
	{label: "version", head: "/version"},                                                // for status
}

// EventsTarget is the one question about events that is let through: those of containers.
const EventsTarget = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D"

// find is the line that a target matches, to the byte: it is never decoded or cleaned, so there is no spelling of a path
// that means another here than at the runtime.
func find(target string) (route, bool) {
	for _, r := range routes {
		if r.variable == nil {
			if target == r.head {
				return r, true
			}
			continue
		}
		middle, ok := strings.CutPrefix(target, r.head)
		if middle, ok2 := strings.CutSuffix(middle, r.tail); ok && ok2 && r.variable(middle) {
			return r, true
		}
	}
	return route{}, false
}

// idDigits is the length of a container's or image's id.
const idDigits = 64

// isID says whether s is a whole id in lower case. Names and shortened ids are not let through: they are not evidence.
func isID(s string) bool {
	if len(s) != idDigits {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isImageID says whether s is an id with or without its algorithm: Podman leaves it out.
func isImageID(s string) bool { return isID(strings.TrimPrefix(s, "sha256:")) }
