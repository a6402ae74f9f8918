package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// TestCRIWithoutContainerdsAPI is a node that has nothing but a CRI, as one with CRI-O: its socket is a real containerd's, and
// containerd's own API is not to be had. Containers are known that ran before the node, and that start later. What CRI-O itself does is
// not tested.
func TestCRIWithoutContainerdsAPI(t *testing.T) {
	daemon, digest := containerdtest.StartCRI(t)
	daemon.Pulled(t, digest)
	labels := map[string]string{"app": "web"}
	p := containerdtest.StartPod(t, daemon, containerdtest.Pod{Name: "web-0", UID: "b0b0b0b0-0000-4000-8000-000000000030", Labels: labels})
	defer removeCgroups(t, containerdtest.Namespace)
	defer p.Remove()
	const script = "while :; do rm -f /bin/dropped; touch /bin/dropped; sleep 1; done"
	before := p.Run("before", nil, script)

	n := layNodeOn(t, daemon)
	n.words = []string{"--containerd-socket", filepath.Join(filepath.Dir(n.run), "no.sock"), "--crio-socket", daemon.Socket}
	n.start()
	t.Cleanup(n.stop)
	for name, id := range map[string]string{"before": before, "after": p.Run("after", nil, script)} {
		var got finding
		if !eventually(20*time.Second, func() bool {
			for _, f := range n.findings() {
				if f.Rule == "Write below a binary directory" && f.Workload.ContainerID == id {
					got = f
				}
			}
			return got.ID != ""
		}) {
			t.Errorf("no finding about container %s: %+v", name, n.findings())
			continue
		}
		w := got.Workload
		if w.Runtime != "cri-o" || w.ContainerName != name || w.Image != containerdtest.ImageName || w.ImageDigest != digest {
			t.Errorf("%s: workload = %+v, want container %s of cri-o, image %s@%s", name, w, name, containerdtest.ImageName, digest)
		}
		if w.PodName != "web-0" || w.PodNamespace != "prod" || w.PodUID != "b0b0b0b0-0000-4000-8000-000000000030" || w.PodLabels["app"] != "web" {
			t.Errorf("%s: workload = %+v, want pod prod/web-0 with uid and label", name, w)
		}
	}
	gate, _ := n.palisade("status", "gate")
	correlator, _ := n.palisade("status", "correlator")
	if !strings.Contains(gate, "answers, containerd ") || !strings.Contains(correlator, "runtime cri-o") {
		t.Errorf("status of the gate and the correlator does not tell of the runtimes:\n%s\n%s", gate, correlator)
	}
	refusesToEnter(t, n, before)
}

// asCorrelator makes the test binary ask the gate in this directory for what it must not do to the container in criVictim.
const (
	asCorrelator = "PALISADE_E2E_ENTER_THROUGH_GATE"
	criVictim    = "PALISADE_E2E_VICTIM"
)

// refusesToEnter asks the gate, with the uid of the one process that may ask it, for what would enter or change a container.
func refusesToEnter(t *testing.T, n *node, id string) {
	t.Helper()
	table, err := privilege.Load()
	if err != nil {
		t.Fatal(err)
	}
	row, err := table.Row("correlator")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(filepath.Dir(n.run), "impostor")
	raw, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(binary, raw, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(binary)
	child.Env = append(os.Environ(), asCorrelator+"="+n.run, criVictim+"="+id)
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: row.UID, Gid: table.SocketGroup}}
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("as the correlator: %v:\n%s", err, out)
	}
	const counted = `palisade_gate_refused_total{reason="method"} 4`
	if metrics, _ := n.palisade("metrics", "gate"); !strings.Contains(metrics, counted) {
		t.Errorf("the gate's metrics do not say %s", counted)
	}
}

// enterThroughGate returns 0 if the gate forwards what reads and refuses the rest.
func enterThroughGate(directory, id string) int {
	sockets, err := rpc.DefaultSockets()
	if err != nil {
		fmt.Println(err)
		return 2
	}
	sockets.Directory = directory
	conn, err := sockets.Dial("gate")
	if err != nil {
		fmt.Println(err)
		return 2
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cri := runtimeapi.NewRuntimeServiceClient(conn)
	results := map[string]error{}
	_, results["ExecSync"] = cri.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"/bin/true"}})
	_, results["CreateContainer"] = cri.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{})
	_, results["StopContainer"] = cri.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id})
	_, results["RemoveContainer"] = cri.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	bad := 0
	for name, err := range results {
		if status.Code(err) != codes.PermissionDenied {
			fmt.Printf("%s: %v, want PermissionDenied\n", name, err)
			bad = 1
		}
	}
	answer, err := cri.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if answer.GetStatus().GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING || err != nil {
		fmt.Printf("after the refusals: %v, %v, want the container running\n", answer, err)
		bad = 1
	}
	return bad
}
