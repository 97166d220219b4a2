package sqlite

import (
	"context"
	"iter"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const readSteps = `SELECT s.seq, s.type, s.path, s.attempt, s.at, s.body, b.size, b.data
	FROM step_log s LEFT JOIN blob b ON b.day = ? AND b.sha = s.blob
	WHERE s.run_id = ? AND s.seq > ? AND s.path = ? ORDER BY s.seq LIMIT ?`

// StepEvents implements store.Journals.
func (s *Store) StepEvents(ctx context.Context, id pipeline.RunID, path pipeline.Path, after int32) iter.Seq2[pipeline.Event, error] {
	return s.events(ctx, id, after, readSteps, string(path))
}
