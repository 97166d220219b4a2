package store

import (
	"context"
	"fmt"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// ReadSnapshot reads the snapshot that a checkpoint record names.
func ReadSnapshot(ctx context.Context, s Store, run pipeline.RunID, ref *pipeline.SnapshotRef) ([]byte, error) {
	var b []byte
	for _, part := range ref.Parts {
		data, err := s.Blob(ctx, run, part)
		if err != nil {
			return nil, fmt.Errorf("read a snapshot of run %s: %w", run, err)
		}
		if b == nil {
			b = data // mostly the only one
		} else {
			b = append(b, data...)
		}
	}
	return b, nil
}
