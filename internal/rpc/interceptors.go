package rpc

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/ratelimit"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What follows is the same for every gRPC server of Palisade, on unix sockets and on the console's 8084.

type limiter struct{ *rate.Limiter }

// NewLimiter bounds how many calls a second a server takes from all its callers.
func NewLimiter(perSecond int) ratelimit.Limiter {
	return limiter{rate.NewLimiter(rate.Limit(perSecond), perSecond)}
}

// Limit refuses the call with codes.ResourceExhausted if there are too many.
func (l limiter) Limit(context.Context) error {
	if l.Allow() {
		return nil
	}
	return status.Error(codes.ResourceExhausted, "too many calls per second")
}

// Recovery turns a handler's panic into codes.Internal, without the reason, which goes to the log.
func Recovery(log *slog.Logger) recovery.Option {
	return recovery.WithRecoveryHandlerContext(func(ctx context.Context, p any) error {
		log.ErrorContext(ctx, "Recovered from a panic in a handler", "err", fmt.Sprint(p))
		return status.Error(codes.Internal, "internal error")
	})
}

// Logger lets the logging interceptor write to log.
func Logger(log *slog.Logger) logging.Logger {
	return logging.LoggerFunc(func(ctx context.Context, level logging.Level, msg string, fields ...any) {
		log.Log(ctx, slog.Level(level), msg, fields...) //nolint:sloglint // the interceptor's own constants
	})
}

// LogFinished logs a call when it has ended, ordinary ones at Debug: only what a human should look at is above that.
func LogFinished() []logging.Option {
	return []logging.Option{logging.WithLogOnEvents(logging.FinishCall), logging.WithLevels(levelOf)}
}

func levelOf(code codes.Code) logging.Level {
	switch code {
	case codes.OK, codes.Canceled, codes.NotFound, codes.Unavailable, codes.DeadlineExceeded:
		return logging.LevelDebug
	case codes.PermissionDenied, codes.Unauthenticated, codes.ResourceExhausted, codes.InvalidArgument:
		return logging.LevelWarn
	default:
		return logging.LevelError
	}
}
