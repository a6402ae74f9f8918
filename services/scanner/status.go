package main

import (
	"context"
	"fmt"
	"strconv"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/services/scanner/internal/cache"
	"github.com/palisade-sec/palisade/services/scanner/internal/scan"
)

// describe returns what the scanner says of itself. A node that has no advisories yet is healthy: nobody asked it for any.
func describe(advisories *scan.Advisories, kept *cache.Cache) func(context.Context) *processv1.GetStatusResponse {
	return func(context.Context) *processv1.GetStatusResponse {
		line, damaged := advisories.Describe()
		answer := &processv1.GetStatusResponse{Healthy: !damaged, Facts: []*processv1.Fact{{Name: "advisories", Value: line}}}
		if damaged {
			answer.Warnings = append(answer.Warnings, "no image can be judged: "+line)
		}
		reports, err := kept.List()
		if err != nil {
			answer.Healthy = false
			answer.Warnings = append(answer.Warnings, fmt.Sprintf("reports cannot be read: %v", err))
		}
		answer.Facts = append(answer.Facts, &processv1.Fact{Name: "reports", Value: strconv.Itoa(len(reports))})
		return answer
	}
}
