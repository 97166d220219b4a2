package store

import (
	"context"
	"iter"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Journals reads what single steps have recorded.
type Journals interface {
	// StepEvents yields the run's events at exactly that path, after the given
	// sequence number, in order.
	StepEvents(ctx context.Context, id pipeline.RunID, path pipeline.Path, after int32) iter.Seq2[pipeline.Event, error]
}
