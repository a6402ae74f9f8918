package main

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/flight"
)

// openFlight opens the flight recorder, if there is to be one. That its directory cannot be used is told of, and no reason not to judge.
func (p *parts) openFlight(cfg settings, log *slog.Logger, registry *prometheus.Registry) {
	if !cfg.Recorder.Enabled {
		return
	}
	p.flight, p.flightErr = flight.Open(cfg.Recorder, cfg.StateDirectory, log, registry)
	if p.flightErr != nil {
		p.flight = nil
		log.Error("Records no events on disk", "err", p.flightErr)
	}
}

// flightStatus adds what there is to say of the flight recorder.
func (p *parts) flightStatus(answer *processv1.GetStatusResponse) {
	switch {
	case p.flightErr != nil:
		answer.Healthy = false
		answer.Warnings = append(answer.Warnings, fmt.Sprintf("events are not recorded on disk: %v", p.flightErr))
	case p.flight == nil:
		answer.Facts = append(answer.Facts, &processv1.Fact{Name: "recorder", Value: "off"})
	default:
		answer.Facts = append(answer.Facts, p.flight.Facts()...)
		answer.Warnings = append(answer.Warnings, p.flight.Warnings()...)
	}
}
