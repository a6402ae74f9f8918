package channel

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/palisade-sec/palisade/services/uplink/internal/queue"
)

// maxLinks bounds the other traces that one batch belongs to.
const maxLinks = 32

// startSpan begins "uplink deliver" as a child of the batch's first finding's trace, and links it to the others'.
func (c *Channel) startSpan(ctx context.Context, batch []queue.Stored) (context.Context, trace.Span) {
	parent := spanContext(ctx, batch[0])
	var links []trace.Link
	seen := map[trace.SpanID]bool{parent.SpanID(): true}
	for _, stored := range batch[1:] {
		other := spanContext(ctx, stored)
		if len(links) == maxLinks {
			break
		}
		if other.IsValid() && !seen[other.SpanID()] {
			seen[other.SpanID()] = true
			links = append(links, trace.Link{SpanContext: other})
		}
	}
	if parent.IsValid() && !trace.SpanContextFromContext(ctx).IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	return c.tracer.Start(ctx, "uplink deliver", trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithLinks(links...), trace.WithAttributes(attribute.Int("palisade.findings", len(batch))))
}

// spanContext is the trace context that a finding carries, invalid if it carries none.
func spanContext(ctx context.Context, stored queue.Stored) trace.SpanContext {
	carrier := propagation.MapCarrier{"traceparent": stored.Finding.GetTraceparent()}
	ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, carrier))
}
