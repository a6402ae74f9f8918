package proxy

import (
	"slices"
	"strings"

	gatev1 "github.com/palisade-sec/palisade/api/palisade/gate/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// caller is the only process that may look through the window.
const caller = "correlator"

// methods is all that reaches containerd, sorted. Every line reads; none can change, start or enter anything. Content,
// snapshots, leases, diff, transfer and sandboxes have no line: metadata needs none of them.
var methods = []string{
	"/containerd.services.containers.v1.Containers/Get",        // image reference and labels of one container
	"/containerd.services.containers.v1.Containers/List",       // the same of all
	"/containerd.services.containers.v1.Containers/ListStream", // the same, one message each: how containerd's client lists
	"/containerd.services.events.v1.Events/Subscribe",          // tells when a task starts or ends
	"/containerd.services.images.v1.Images/Get",                // digest behind an image reference
	"/containerd.services.images.v1.Images/List",               // the same of all
	"/containerd.services.namespaces.v1.Namespaces/List",       // containerd keeps containers per namespace
	"/containerd.services.tasks.v1.Tasks/Get",                  // pid of one container
	"/containerd.services.tasks.v1.Tasks/List",                 // pids of all
	"/containerd.services.version.v1.Version/Version",          // for status
}

// own are methods that the gate serves itself.
var own = []string{
	gatev1.AccountService_ReadAccounts_FullMethodName, // names of the host's users and groups
}

// standard are the methods every process serves, named here because the guard comes before the caller table.
var standard = []string{
	"/grpc.health.v1.Health/Check",
	"/palisade.process.v1.ProcessService/GetMetrics",
	"/palisade.process.v1.ProcessService/GetStatus",
}

// versionMethod is what the gate itself asks, to see whether containerd answers.
const versionMethod = "/containerd.services.version.v1.Version/Version"

// Callers is the caller table of the methods that are forwarded, and of the gate's own.
func Callers() rpc.Callers {
	callers := rpc.Callers{}
	for _, method := range slices.Concat(methods, own) {
		callers[method] = []string{caller}
	}
	return callers
}

// split cuts "/service/method".
func split(full string) (service, method string) {
	service, method, _ = strings.Cut(strings.TrimPrefix(full, "/"), "/")
	return service, method
}
