package store

import (
	"context"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// ModelStats keeps what calls of models have come to, by day, pipeline and model.
type ModelStats interface {
	// AddModelStats adds to the counts, all of them or none. List names each day,
	// pipeline and model once. An error may leave unknown whether they were added.
	AddModelStats(ctx context.Context, list []pipeline.ModelStat) error
	// ModelStats sums the counts up by model, from the day of since on; zero: all
	// that there are.
	ModelStats(ctx context.Context, since time.Time) ([]pipeline.ModelStat, error)
	// ModelUsage lists the counts as they are kept: the newest day first, then by
	// pipeline and model.
	ModelUsage(ctx context.Context, q UsageQuery) ([]pipeline.ModelStat, error)
}

// UsageQuery selects counts of models.
type UsageQuery struct {
	Since, Until string // days, both included; empty: no bound
	Pipeline     string // empty: of all
	Model        string // empty: all
	After        pipeline.ModelStat
	Limit        int
}

// UsageDay is the day of a time, as counts of models are kept; empty for the zero time.
func UsageDay(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateOnly)
}
