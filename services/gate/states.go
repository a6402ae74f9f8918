package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/services/gate/internal/account"
	"github.com/palisade-sec/palisade/services/gate/internal/proxy"
	"github.com/palisade-sec/palisade/services/gate/internal/window"
)

// states is what people are told about the runtimes.
type states struct {
	cfg, crio proxy.Config // containerd's, CRI-O's
	proxy     *proxy.Proxy
	windows   *window.Set
	accounts  *account.Service
}

// status says of each runtime whether it is here and answers. A node without any is not healthy; one that has another than
// containerd may do without containerd.
func (s states) status(ctx context.Context) *processv1.GetStatusResponse {
	answer := &processv1.GetStatusResponse{Healthy: true}
	others := s.others(ctx, answer)
	if err := s.accounts.Err(); err != nil {
		answer.Warnings = append(answer.Warnings, fmt.Sprintf("the host's users and groups are known by number only: %v", err))
	}
	if _, err := os.Stat(s.cfg.Socket); errors.Is(err, fs.ErrNotExist) && others > 0 {
		answer.Facts = append([]*processv1.Fact{{Name: "containerd", Value: "not on this node"}}, answer.Facts...)
		return answer
	}
	first := s.proxy.Status(ctx, s.cfg)
	first.Healthy = first.GetHealthy() && answer.GetHealthy()
	first.Facts = append(first.Facts, answer.GetFacts()...)
	first.Warnings = append(first.Warnings, answer.GetWarnings()...)
	return first
}

// others adds the states of all but containerd, and returns how many answer.
func (s states) others(ctx context.Context, answer *processv1.GetStatusResponse) int {
	answering := s.windows.Describe(ctx, answer)
	if s.proxy.DescribeCRIO(ctx, s.crio, answer) {
		answering++
	}
	return answering
}

// check fails unless a runtime answers.
func (s states) check(ctx context.Context, out io.Writer) error {
	version, err := s.proxy.Version(ctx, s.cfg)
	if err == nil {
		_, err = fmt.Fprintf(out, "ok: containerd %s at %s\n", version, s.cfg.Socket)
		return err
	}
	var answer processv1.GetStatusResponse
	if s.others(ctx, &answer) == 0 {
		return fmt.Errorf("%w: is it running, and is uid %d in the socket's group?", err, os.Getuid())
	}
	for _, fact := range answer.GetFacts() {
		if _, err := fmt.Fprintf(out, "ok: %s: %s\n", fact.GetName(), fact.GetValue()); err != nil {
			return err
		}
	}
	return nil
}
