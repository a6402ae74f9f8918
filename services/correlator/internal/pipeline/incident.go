package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/process"
)

// incident is what a finding about the process belongs to, nil if the process is not known. It is derived and not remembered: a
// correlator that was restarted goes on with the same incident.
func (e *Engine) incident(entry *process.Entry, image *field.Process) *findingv1.Incident {
	if entry == nil {
		return nil
	}
	origin := image
	for range maxAncestors {
		above := e.tree.Parent(entry)
		if above == nil || !together(entry, above) {
			break
		}
		entry, origin = above, above.Image
	}
	sum := sha256.New()
	fmt.Fprintln(sum, e.judged.batch.GetBootId(), entry.Key.PID, entry.Key.StartBoottimeNs)
	return &findingv1.Incident{Id: hex.EncodeToString(sum.Sum(nil)[:16]), Origin: describe(origin, maxAncestorExe, maxAncestorArgv)}
}

// together says whether a process and its parent are of one container; where neither is of one that is known, of one session in
// the same namespaces.
func together(entry, above *process.Entry) bool {
	if entry.Home != 0 || above.Home != 0 {
		return entry.Home == above.Home
	}
	return entry.PIDNS == above.PIDNS && entry.MntNS == above.MntNS && entry.Image.Session == above.Image.Session
}
