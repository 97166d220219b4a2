package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// memoryBytes bounds what Memory keeps, whatever the number of values.
const memoryBytes = 64 << 20

// memory keeps values in this process.
type memory struct {
	values *otter.Cache[pipeline.Digest, kept]
}

type kept struct {
	value   []byte
	expires time.Time
}

// Memory is a layer in the memory of this process: the values that are used most,
// at most so many, and of 64 MiB together; none of more than 4 MiB. One whose time is over is let go of when
// somebody asks for it, or for the room of others, so that no goroutine looks for it.
func Memory(most int) (Layer, error) {
	// A value weighs its bytes, but at least its share, so that one bound does for both.
	share := uint32(max(1, memoryBytes/max(1, most))) //nolint:gosec // at most memoryBytes
	values, err := otter.New(&otter.Options[pipeline.Digest, kept]{
		MaximumWeight: memoryBytes,
		Weigher: func(_ pipeline.Digest, k kept) uint32 {
			return max(share, uint32(len(k.value))) //nolint:gosec // at most memoryBytes
		},
	})
	if err != nil {
		return Layer{}, fmt.Errorf("cache in memory: %w", err)
	}
	return Layer{Name: "memory", Cache: memory{values}}, nil
}

func (m memory) Cached(_ context.Context, key pipeline.Digest) ([]byte, time.Duration, error) {
	k, ok := m.values.GetIfPresent(key)
	if !ok {
		return nil, 0, nil
	}
	left := time.Until(k.expires)
	if left <= 0 {
		m.values.Invalidate(key)
		return nil, 0, nil
	}
	return k.value, left, nil
}

func (m memory) PutCached(_ context.Context, key pipeline.Digest, value []byte, ttl time.Duration) error {
	if len(value) > memoryBytes/16 {
		m.values.Invalidate(key)
		return nil
	}
	m.values.Set(key, kept{value, time.Now().Add(ttl)})
	return nil
}
