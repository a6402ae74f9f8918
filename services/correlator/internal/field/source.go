package field

import "strings"

// noSource says of fields of Falco's what would have to be recorded first. A name that ends in a dot stands for all that begin with
// it. They are no unknown names: a rule that asks for one is told what is missing.
var noSource = map[string]string{
	"evt.buffer":              "no record holds what was read or written",
	"evt.buflen":              "no record holds what was read or written",
	"evt.hostname":            "a node's name is its certificate's, which the console knows",
	"evt.latency":             "records are of the end of a call only",
	"fs.path.nameraw":         "only records of opens hold the caller's path, as fd.nameraw",
	"fs.path.sourceraw":       "only records of opens hold the caller's path",
	"fs.path.targetraw":       "only records of opens hold the caller's path",
	"fd.uid":                  "no record numbers sockets",
	"fd.is_lower_layer":       "records tell the upper layer of an overlay only",
	"proc.is_exe_lower_layer": "records tell the upper layer of an overlay only",
	"proc.is_exe_writable":    "a record of an exec does not hold the owner of the file",
	"proc.exe_ino.ctime_duration_pidns_start": "no record tells when a pid namespace began",
	"proc.env":                          "no record holds the environment",
	"proc.aenv":                         "no record holds the environment",
	"thread.vtid":                       "no record holds ids of inner pid namespaces",
	"proc.stdin.":                       "no record tells what a descriptor of another process is",
	"proc.stdout.":                      "no record tells what a descriptor of another process is",
	"proc.stderr.":                      "no record tells what a descriptor of another process is",
	"proc.fdopencount":                  "no record counts descriptors",
	"thread.cap_permitted":              "records hold effective capabilities only",
	"thread.cap_inheritable":            "records hold effective capabilities only",
	"user.homedir":                      "of an account the name alone is kept",
	"user.shell":                        "of an account the name alone is kept",
	"container.duration":                "the runtime is not asked when a container started",
	"container.mount.mode":              "runtimes tell it in words of their own",
	"container.mount.propagation":       "the runtime is not asked for it",
	"container.image.id":                "the runtime is not asked for it",
	"container.ip":                      "the runtime is not asked for it",
	"container.healthcheck":             "the runtime is not asked for it",
	"container.liveness_probe":          "the runtime is not asked for it",
	"container.readiness_probe":         "the runtime is not asked for it",
	"container.is_pod_sandbox":          "the runtime is not asked for it",
	"proc.is_container_healthcheck":     "the runtime is not asked for it",
	"proc.is_container_liveness_probe":  "the runtime is not asked for it",
	"proc.is_container_readiness_probe": "the runtime is not asked for it",
	"k8s.pod.labels":                    "labels of pods are not asked for",
	"k8s.pod.ip":                        "the runtime is not asked for it",
	"k8s.pod.cni.json":                  "the runtime is not asked for it",
	"k8s.pod.sandbox_id":                "the runtime is not asked for it",
	"k8s.pod.full_sandbox_id":           "the runtime is not asked for it",
}

// withoutSource is why a field of Falco's is not provided, empty for any other name.
func withoutSource(name string) string {
	for rest := name; ; {
		if why := noSource[rest]; why != "" {
			return why
		}
		dot := strings.LastIndexByte(strings.TrimSuffix(rest, "."), '.')
		if dot < 0 {
			return ""
		}
		rest = rest[:dot+1]
	}
}
