package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
)

// Fields of the CRI's VersionResponse.
const (
	runtimeNameField    = 2
	runtimeVersionField = 3
)

// DescribeCRIO adds CRI-O's state to a status, and says whether it answers. One whose socket is not there is no fault.
func (p *Proxy) DescribeCRIO(ctx context.Context, cfg Config, status *processv1.GetStatusResponse) bool {
	fact := &processv1.Fact{Name: "cri-o", Value: "not on this node"}
	status.Facts = append(status.Facts, fact)
	if _, err := os.Stat(cfg.Socket); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	var answer frame
	if err := p.crio.Invoke(ctx, criVersionMethod, &frame{}, &answer); err != nil {
		fact.Value = "does not answer"
		status.Healthy = false
		status.Warnings = append(status.Warnings, fmt.Sprintf(
			"cri-o does not answer at %s, its containers have no names: start it, or give the gate the group of its socket", cfg.Socket))
		return false
	}
	defer answer.data.Free()
	fact.Value = "answers, " + parseCRIVersion(answer.data.Materialize())
	return true
}

// parseCRIVersion reads the runtime's name and version out of a VersionResponse, "unknown" for what people cannot read.
func parseCRIVersion(raw []byte) string {
	name, version := "unknown", "unknown"
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			break
		}
		size := protowire.ConsumeFieldValue(number, kind, raw[n:])
		if size < 0 {
			break
		}
		if value, m := protowire.ConsumeBytes(raw[n:]); kind == protowire.BytesType && m >= 0 && readable(string(value)) {
			switch number {
			case runtimeNameField:
				name = string(value)
			case runtimeVersionField:
				version = string(value)
			default:
			}
		}
		raw = raw[n+size:]
	}
	return name + " " + version
}

// readable says whether a foreign string is short and of printable ASCII.
func readable(s string) bool {
	strange := func(r rune) bool { return r <= ' ' || r > '~' }
	return s != "" && len(s) <= maxLoggedBytes && strings.IndexFunc(s, strange) < 0
}
