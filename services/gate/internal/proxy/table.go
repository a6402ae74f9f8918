package proxy

import (
	"slices"
	"strings"

	gatev1 "github.com/palisade-sec/palisade/api/palisade/gate/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// caller is the process that may look through the window.
const caller = "correlator"

// asker is another, which asks about the one container that is about to be created.
const asker = "enforcer"

// asked are the methods that the asker may call, too.
var asked = []string{
	"/containerd.services.containers.v1.Containers/Get", // image reference and labels of the container, and of its pod
	"/containerd.services.images.v1.Images/Get",         // digest behind that reference
}

// containerdMethods is all that reaches containerd, sorted. Every line reads; none can change, start or enter anything. Content,
// snapshots, leases, diff, transfer and sandboxes have no line: metadata needs none of them.
var containerdMethods = []string{
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

// criMethods is all that reaches CRI-O, sorted. Every line reads. Images and statistics have no line: a container's status names its
// image. Nor has ExecSync, Attach or any other that starts, changes or enters.
var criMethods = []string{
	"/runtime.v1.RuntimeService/ContainerStatus",    // description and pid of one container
	"/runtime.v1.RuntimeService/GetContainerEvents", // tells when a container starts or ends
	"/runtime.v1.RuntimeService/ListContainers",     // ids and states of all
	"/runtime.v1.RuntimeService/ListPodSandbox",     // ids and states of all pods
	"/runtime.v1.RuntimeService/PodSandboxStatus",   // name, labels and pid of one pod
	"/runtime.v1.RuntimeService/Version",            // for status
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

// What the gate itself asks, to see whether a runtime answers.
const (
	versionMethod    = "/containerd.services.version.v1.Version/Version"
	criVersionMethod = "/runtime.v1.RuntimeService/Version"
)

// Callers is the caller table of the methods that are forwarded, and of the gate's own.
func Callers() rpc.Callers {
	callers := rpc.Callers{}
	for _, method := range slices.Concat(containerdMethods, criMethods, own) {
		callers[method] = []string{caller}
	}
	for _, method := range asked {
		callers[method] = append(callers[method], asker)
	}
	return callers
}

// split cuts "/service/method".
func split(full string) (service, method string) {
	service, method, _ = strings.Cut(strings.TrimPrefix(full, "/"), "/")
	return service, method
}
