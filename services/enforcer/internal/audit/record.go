package audit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Phase says when a record was written.
type Phase string

// The phases. An act has a record before and one after; a missing second one means that the enforcer died between.
const (
	PhaseBefore  Phase = "before"
	PhaseAfter   Phase = "after"
	PhaseRefused Phase = "refused"
)

// Record is one line of the log. Strings may come from anywhere: they are cut and escaped on the way in.
type Record struct {
	Time  time.Time `json:"time"`
	Phase Phase     `json:"phase"`
	// Act is what is done: "kill".
	Act string `json:"act"`
	// Outcome is empty before the act: done, refused, gone, failed.
	Outcome string `json:"outcome,omitempty"`
	Detail  string `json:"detail,omitempty"`
	PID     uint32 `json:"pid"`
	// StartBoottimeNs with PID and the boot names the process for good.
	StartBoottimeNs uint64 `json:"start_boottime_ns"`
	// Comm is the process's own name for itself, not evidence.
	Comm        string `json:"comm,omitempty"`
	Rule        string `json:"rule"`
	Effect      string `json:"effect,omitempty"`
	FindingID   string `json:"finding_id"`
	ContainerID string `json:"container_id,omitempty"`
	// PeerUID and PeerPID are the caller's, from the kernel.
	PeerUID uint32 `json:"peer_uid"`
	PeerPID uint32 `json:"peer_pid"`
	// Suppressed counts refusals since the last record that got none of their own.
	Suppressed uint64 `json:"suppressed,omitempty"`
}

const (
	// maxStringBytes bounds one foreign string; container and finding ids have 64 and 32.
	maxStringBytes = 256
	// maxRecordBytes is more than a record can have: eight strings, each byte of them written as six, and numbers.
	maxRecordBytes = 16 << 10
)

func (r Record) clean() Record {
	for _, s := range []*string{&r.Act, &r.Outcome, &r.Detail, &r.Comm, &r.Rule, &r.Effect, &r.FindingID, &r.ContainerID} {
		*s = Clean(*s, maxStringBytes)
	}
	return r
}

// Clean cuts s to at most limit bytes, says how much is missing, and writes every character that is not printable
// (control characters, bidirectional marks, invalid UTF-8) as an escape, so that no reader's terminal obeys it.
func Clean(s string, limit int) string {
	var missing int
	if len(s) > limit {
		cut := limit
		for cut > 0 && limit-cut < utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		missing = len(s) - cut
		s = s[:cut]
	}
	var out strings.Builder
	for i, width := 0, 0; i < len(s); i += width {
		var r rune
		r, width = utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && width <= 1:
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			out.WriteRune(r)
		default:
			out.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	if missing > 0 {
		fmt.Fprintf(&out, "…(%d bytes more)", missing)
	}
	return out.String()
}
