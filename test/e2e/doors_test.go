package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// TestDoorOfNodesIsShutWithoutACertificate reads 8084's raw bytes: a client without a certificate must get TLS
// handshake records and an alert, and no application data (RFC 8446, 5.1: content type 23 before the handshake is
// over is encrypted handshake, so the check is made on what the TLS library hands out and on the alert).
func TestDoorOfNodesIsShutWithoutACertificate(t *testing.T) {
	n := startNode(t)
	raw, err := net.Dial("tcp", n.nodes)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // the server's doubts are tested, not ours
	// In TLS 1.3 the client finishes first; the server's refusal comes as the answer to what it says next.
	_, writeErr := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	got, readErr := io.ReadAll(conn)
	if len(got) > 0 {
		t.Errorf("got %d application bytes without a certificate: %q", len(got), got)
	}
	var alert tls.AlertError
	if err := errors.Join(writeErr, readErr); !errors.As(err, &alert) && !strings.Contains(fmt.Sprint(err), "certificate required") {
		t.Errorf("connection ended with %v, want the alert certificate_required", err)
	}
	plain, err := net.Dial("tcp", n.nodes)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_ = plain.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(plain, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got, _ := io.ReadAll(plain); strings.Contains(string(got), "HTTP/") {
		t.Errorf("plain HTTP is answered: %q", got)
	}
}

// TestDoorOfPeopleIsShutForNodeCertificates shows 8083 a valid node certificate and no login.
func TestDoorOfPeopleIsShutForNodeCertificates(t *testing.T) {
	n := startNode(t)
	enroll := filepath.Join(n.state, "enroll")
	pair, err := tls.LoadX509KeyPair(filepath.Join(enroll, "node.crt"), filepath.Join(enroll, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	for who, b := range map[string]*browser{"node certificate": n.stranger(pair), "nobody": n.stranger()} {
		answer, err := b.client.Get(b.base + "/api/v1/findings")
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("GET /api/v1/findings as %s = %s, want 401", who, answer.Status)
		}
	}
}

// TestDoorOfNodesIsShutForPasswords sends the admin's credentials to 8084.
func TestDoorOfNodesIsShutForPasswords(t *testing.T) {
	n := startNode(t)
	b := n.stranger()
	request, err := http.NewRequest(http.MethodGet, "https://"+n.nodes+"/palisade.console.v1.IngestService/PushFindings", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth("admin", n.password())
	if answer, err := b.client.Do(request); err == nil {
		answer.Body.Close()
		t.Errorf("8084 answers a user's password with %s, want no answer", answer.Status)
	}
}

// asStranger makes the test binary call every socket in this directory instead of running tests.
const asStranger = "PALISADE_E2E_CALL_SOCKETS"

// TestDoorOfEverySocketIsShutForOtherUIDs calls from a process that may open the sockets, being in their group, but runs as
// nobody, and from Palisade processes that are not the callee's callers.
func TestDoorOfEverySocketIsShutForOtherUIDs(t *testing.T) {
	n := startNode(t)
	table, err := privilege.Load()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(filepath.Dir(n.run), "stranger")
	raw, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(binary, raw, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, uid := range []uint32{65534, 10001, 10003} {
		child := exec.Command(binary)
		child.Env = append(os.Environ(), asStranger+"="+n.run)
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: table.SocketGroup}}
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("as uid %d: %v:\n%s", uid, err, out)
		}
	}
}

// callAsStranger calls what the sockets in a directory serve and returns 0 if all of it is refused.
func callAsStranger(directory string) int {
	sockets, err := rpc.DefaultSockets()
	if err != nil {
		fmt.Println(err)
		return 2
	}
	sockets.Directory = directory
	table, err := privilege.Load()
	if err != nil {
		fmt.Println(err)
		return 2
	}
	bad := 0
	for _, row := range table.Processes {
		for name, err := range callEverything(sockets, row.Name) {
			if status.Code(err) != codes.PermissionDenied {
				fmt.Printf("%s of %s: %v, want PermissionDenied\n", name, row.Name, err)
				bad = 1
			}
		}
	}
	return bad
}

func callEverything(sockets rpc.Sockets, process string) map[string]error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := sockets.Dial(process)
	if err != nil {
		return map[string]error{"dial": err}
	}
	defer conn.Close()
	results := map[string]error{}
	_, results["GetStatus"] = processv1.NewProcessServiceClient(conn).GetStatus(ctx, &processv1.GetStatusRequest{})
	switch process {
	case "collector":
		stream, err := collectorv1.NewEventServiceClient(conn).StreamEvents(ctx)
		if err == nil {
			_, err = stream.Recv()
		}
		results["StreamEvents"] = err
	case "correlator":
		_, results["ListRules"] = correlatorv1.NewRuleServiceClient(conn).ListRules(ctx, &correlatorv1.ListRulesRequest{})
	case "enforcer":
		_, results["Kill"] = enforcerv1.NewActionServiceClient(conn).Kill(ctx, &enforcerv1.KillRequest{
			Process: &eventv1.ProcessKey{Pid: uint32(os.Getpid())},
		})
	case "scanner":
		client := scannerv1.NewScannerServiceClient(conn)
		_, results["GetReport"] = client.GetReport(ctx, &scannerv1.GetReportRequest{})
		_, results["ListReports"] = client.ListReports(ctx, &scannerv1.ListReportsRequest{})
		_, results["Scan"] = client.Scan(ctx, &scannerv1.ScanRequest{})
	case "uplink":
		_, results["PushFindings"] = uplinkv1.NewQueueServiceClient(conn).PushFindings(ctx, &uplinkv1.PushFindingsRequest{})
		_, results["ListFindings"] = uplinkv1.NewFindingServiceClient(conn).ListFindings(ctx, &uplinkv1.ListFindingsRequest{})
	case "gate":
		for _, method := range []string{"List", "Delete"} { // one that is forwarded for the correlator, one that never is
			results["containerd "+method] = conn.Invoke(ctx, "/containerd.services.containers.v1.Containers/"+method,
				&processv1.GetStatusRequest{}, &processv1.GetStatusResponse{})
		}
	}
	return results
}
