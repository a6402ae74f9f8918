package main

import (
	"fmt"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/interest"
	"github.com/palisade-sec/palisade/services/correlator/internal/model"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// modelBook is the learner, nil if nothing is learned.
func (p *parts) modelBook() *model.Learner {
	if p.models == nil {
		return nil
	}
	return p.models.Learner
}

// interestOf is what the collector is asked for on behalf of rules, and of models if there are any.
func (p *parts) interestOf(set *rule.Set) interest.Interest {
	if p.models == nil {
		return set.Interest()
	}
	return set.Interest().Or(model.Interest())
}

// modelStatus adds what there is to say of models.
func (p *parts) modelStatus(answer *processv1.GetStatusResponse) {
	if p.models == nil {
		answer.Facts = append(answer.Facts, &processv1.Fact{Name: "models", Value: "off"})
		return
	}
	answer.Facts = append(answer.Facts, p.models.Facts()...)
	if err := p.models.Err(); err != nil {
		answer.Warnings = append(answer.Warnings, fmt.Sprintf("models: %v", err))
	}
}
