package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/flight"
)

// Limits of a request.
const (
	defaultLimit = 10_000
	maxLimit     = 100_000
	maxKinds     = 64
	maxName      = 512
)

// Flight is FlightRecorderService.
type Flight struct {
	correlatorv1.UnimplementedFlightRecorderServiceServer
	recorder *flight.Recorder
}

// NewFlight returns a server over a recorder, nil if nothing is recorded.
func NewFlight(recorder *flight.Recorder) *Flight { return &Flight{recorder: recorder} }

// Register adds the service to a server.
func (s *Flight) Register(registrar grpc.ServiceRegistrar) {
	correlatorv1.RegisterFlightRecorderServiceServer(registrar, s)
}

var errFlightOff = status.Error(codes.FailedPrecondition, "the flight recorder is off: set recorder.enabled in the correlator's configuration, and see its log")

// ListRecorded returns the workloads of which there is something on disk.
func (s *Flight) ListRecorded(context.Context, *correlatorv1.ListRecordedRequest) (*correlatorv1.ListRecordedResponse, error) {
	if s.recorder == nil {
		return nil, errFlightOff
	}
	return &correlatorv1.ListRecordedResponse{Workloads: s.recorder.List()}, nil
}

// ReadEvents streams one workload's events.
func (s *Flight) ReadEvents(r *correlatorv1.ReadEventsRequest, stream correlatorv1.FlightRecorderService_ReadEventsServer) error {
	if s.recorder == nil {
		return errFlightOff
	}
	query, err := queryOf(r)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	err = s.recorder.Read(stream.Context(), query, stream.Send)
	switch {
	case errors.Is(err, flight.ErrUnknown):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, flight.ErrSeveral):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, flight.ErrBusy):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return err // of sending, which has its code
}

// queryOf reports every fault of a request.
func queryOf(r *correlatorv1.ReadEventsRequest) (flight.Query, error) {
	q := flight.Query{Workload: r.GetWorkload(), Incident: r.GetIncident(), Limit: int(r.GetLimit())}
	var errs []error
	if q.Workload == "" && q.Incident == "" {
		errs = append(errs, errors.New("workload: name one, or an incident"))
	}
	if len(q.Workload) > maxName || len(q.Incident) > maxName {
		errs = append(errs, fmt.Errorf("workload, incident: at most %d bytes", maxName))
	}
	if q.Limit == 0 {
		q.Limit = defaultLimit
	}
	if q.Limit > maxLimit || r.GetLimit() > maxLimit {
		errs = append(errs, fmt.Errorf("limit: %d is not 1 to %d", r.GetLimit(), maxLimit))
	}
	for _, bound := range []struct {
		key  string
		from *timestamppb.Timestamp
		to   *time.Time
	}{{"since", r.GetSince(), &q.Since}, {"until", r.GetUntil(), &q.Until}} {
		if bound.from == nil {
			continue
		}
		if err := bound.from.CheckValid(); err != nil {
			errs = append(errs, fmt.Errorf("%s: not a time", bound.key))
			continue
		}
		*bound.to = bound.from.AsTime()
	}
	if !q.Until.IsZero() && q.Until.Before(q.Since) {
		errs = append(errs, errors.New("until: it is before since"))
	}
	if len(r.GetKinds()) > maxKinds {
		errs = append(errs, fmt.Errorf("kinds: at most %d", maxKinds))
		return q, errors.Join(errs...)
	}
	for _, name := range r.GetKinds() {
		kind := kindNamed(name)
		if kind == 0 {
			errs = append(errs, fmt.Errorf("kinds: %.40q is not one of %s, nor a system call of theirs", name, strings.Join(field.AllKinds.Classes(), ", ")))
		}
		q.Kinds |= kind
	}
	return q, errors.Join(errs...)
}

// kindNamed is the class of that name, else the classes of a system call's.
func kindNamed(name string) field.Kinds {
	if i := slices.Index(field.AllKinds.Classes(), name); i >= 0 {
		return 1 << i
	}
	return field.KindsNamed(func(call string) bool { return call == name })
}
