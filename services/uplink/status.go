package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/services/uplink/internal/channel"
	"github.com/palisade-sec/palisade/services/uplink/internal/queue"
)

// droppedWarning is how long status warns after the last drop.
const droppedWarning = time.Hour

// describe returns what the uplink says of itself. It is healthy as long as it takes findings, loses none and reaches its
// console.
func describe(findings *queue.Queue, console *channel.Channel) func(context.Context) *processv1.GetStatusResponse {
	return func(context.Context) *processv1.GetStatusResponse {
		stats, state := findings.Stats(), console.State()
		answer := &processv1.GetStatusResponse{
			Healthy:  state.Err == nil && stats.Refusing == nil,
			Warnings: stats.Warnings,
			Facts: []*processv1.Fact{
				{Name: "console", Value: string(state.Connection)},
				{Name: "pending", Value: strconv.Itoa(stats.Pending)},
				{Name: "pending bytes", Value: strconv.FormatInt(stats.PendingBytes, 10)},
				{Name: "delivered", Value: strconv.FormatUint(stats.DeliveredTotal, 10)},
				{Name: "kept", Value: strconv.Itoa(stats.Delivered)},
				{Name: "kept bytes", Value: strconv.FormatInt(stats.DeliveredBytes, 10)},
				{Name: "dropped", Value: strconv.FormatUint(stats.Dropped, 10)},
			},
		}
		if state.Err != nil {
			text := daemon.OneLine(state.Err)
			answer.Facts = append(answer.Facts, &processv1.Fact{Name: "last error", Value: text})
			answer.Warnings = append(answer.Warnings, "cannot deliver to the console, findings wait: "+text)
		}
		if stats.Dropped > 0 && time.Since(stats.LastDropped) < droppedWarning {
			answer.Healthy = false
			answer.Warnings = append(answer.Warnings, fmt.Sprintf(
				"queue was full at %s: %d findings dropped since the start; bring the console back or raise queue.pending and queue.pending_bytes",
				stats.LastDropped.UTC().Format(time.RFC3339), stats.Dropped))
		}
		return answer
	}
}
