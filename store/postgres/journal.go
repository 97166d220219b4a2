package postgres

import (
	"context"
	"iter"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const readSteps = `SELECT seq, type, path, attempt, at, body, blob FROM step_log
	WHERE day = $1 AND run_id = $2 AND seq > $3 AND path = $5 ORDER BY seq LIMIT $4`

// StepEvents implements store.Journals.
func (s *Store) StepEvents(ctx context.Context, id pipeline.RunID, path pipeline.Path, after int32) iter.Seq2[pipeline.Event, error] {
	return s.events(ctx, id, after, readSteps, string(path))
}
