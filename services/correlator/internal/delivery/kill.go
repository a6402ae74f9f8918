package delivery

import (
	"context"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// RunKills asks the enforcer, with a few calls at a time, until ctx ends.
func (d *Delivery) RunKills(ctx context.Context) error {
	var workers sync.WaitGroup
	for range d.enforcerConfig.Workers {
		workers.Go(func() {
			for {
				select {
				case item := <-d.kills:
					item.Finding.Action = d.kill(ctx, item)
					item.Kill = nil
					if d.Put(ctx, item) != nil {
						return
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
	workers.Wait()
	return ctx.Err()
}

// kill asks once. There is no second try: by then the process has done what it was to be kept from, and the action
// says that nobody stopped it.
func (d *Delivery) kill(ctx context.Context, item Item) *findingv1.Action {
	ctx, cancel := within(ctx, item.Span, d.enforcerConfig.Timeout)
	defer cancel()
	answer, err := d.enforcer.Kill(ctx, item.Kill)
	d.note(ctx, &d.enforcerErr, err, "enforcer")
	action := answer.GetAction()
	if err != nil || action == nil {
		action = &findingv1.Action{
			Kind: findingv1.ActionKind_ACTION_KIND_KILL, Outcome: findingv1.ActionOutcome_ACTION_OUTCOME_FAILED,
			Detail: "the enforcer did not answer",
		}
	}
	if action.GetTime() == nil {
		action.Time = timestamppb.Now()
	}
	if action.GetOutcome() == findingv1.ActionOutcome_ACTION_OUTCOME_DONE || action.GetDetail() == "" {
		action.Detail = item.Doing
	} else {
		action.Detail = item.Doing + ": " + action.GetDetail()
	}
	d.metrics.actions.WithLabelValues(outcomeLabel(action.GetOutcome())).Inc()
	return action
}

// outcomeLabel is the metric's label of an outcome.
func outcomeLabel(outcome findingv1.ActionOutcome) string {
	switch outcome {
	case findingv1.ActionOutcome_ACTION_OUTCOME_DONE:
		return "done"
	case findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED:
		return "refused"
	case findingv1.ActionOutcome_ACTION_OUTCOME_GONE:
		return "gone"
	case findingv1.ActionOutcome_ACTION_OUTCOME_FAILED, findingv1.ActionOutcome_ACTION_OUTCOME_UNSPECIFIED:
	}
	return "failed"
}
