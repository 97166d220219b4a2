// Package cache keeps results of steps in layers, the fastest first: the memory
// of this process, Redis where there is one, and the store. What a lower layer
// has is taken up into those above it, for as long as it is still good.
//
// Layers above the store only save time: one that fails is passed over, and is
// left alone for a while, so that steps do not wait for what is broken.
//
//	layers := cache.New(log, metrics, cache.Memory(1000), redis, st)
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Layer is one of the places where values are kept.
type Layer struct {
	Name  string // as metrics and logs say it
	Cache pipeline.ResultCache
}

// pause is how long a layer that has failed is left alone.
const pause = 5 * time.Second

// Layers is a pipeline.ResultCache made of others.
type Layers struct {
	layers []*layer
	log    *slog.Logger
	found  *prometheus.CounterVec
}

type layer struct {
	Layer
	rests atomic.Pointer[time.Time] // until when; nil: it has never failed
}

var _ pipeline.ResultCache = (*Layers)(nil)

// New returns a cache of the given layers, the fastest first. The last one
// decides whether a value was kept. A nil registry means no metrics.
func New(log *slog.Logger, metrics prometheus.Registerer, layers ...Layer) (*Layers, error) {
	l := &Layers{log: log, found: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "orchestrator_cache_lookups_total", Help: "Looks for results of equal steps, by the layer that had one; none: there was none.",
	}, []string{"layer"})}
	for i := range layers {
		l.layers = append(l.layers, &layer{Layer: layers[i]})
	}
	if metrics != nil {
		if err := metrics.Register(l.found); err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
	}
	return l, nil
}

// Cached implements pipeline.ResultCache. It fails only if no layer could be asked.
func (l *Layers) Cached(ctx context.Context, key pipeline.Digest) (value []byte, left time.Duration, err error) {
	asked := false
	for i, y := range l.layers {
		if y.resting() {
			continue
		}
		value, left, failed := y.Cache.Cached(ctx, key)
		if failed != nil {
			err = errors.Join(err, l.failed(ctx, y, failed))
			continue
		}
		asked = true
		if value == nil || left <= 0 {
			continue
		}
		l.found.WithLabelValues(y.Name).Inc()
		for _, above := range l.layers[:i] {
			_ = l.put(ctx, above, key, value, left) // it only saves time
		}
		return value, left, nil
	}
	if asked {
		err = nil
		l.found.WithLabelValues("none").Inc()
	}
	return nil, 0, err
}

// PutCached implements pipeline.ResultCache. It fails only if the last layer does.
func (l *Layers) PutCached(ctx context.Context, key pipeline.Digest, value []byte, ttl time.Duration) (err error) {
	for _, y := range l.layers {
		err = l.put(ctx, y, key, value, ttl)
	}
	return err
}

func (l *Layers) put(ctx context.Context, y *layer, key pipeline.Digest, value []byte, ttl time.Duration) error {
	if y.resting() {
		return fmt.Errorf("the cache in %s has failed a moment ago", y.Name)
	}
	if err := y.Cache.PutCached(ctx, key, value, ttl); err != nil {
		return l.failed(ctx, y, err)
	}
	return nil
}

func (y *layer) resting() bool {
	until := y.rests.Load()
	return until != nil && time.Now().Before(*until)
}

// failed lets a layer rest, unless it was its caller who gave up.
func (l *Layers) failed(ctx context.Context, y *layer, err error) error {
	if ctx.Err() == nil {
		until := time.Now().Add(pause)
		y.rests.Store(&until)
		l.log.Warn("a layer of the cache does not answer; going on without it", "layer", y.Name, "for", pause, "err", err)
	}
	return fmt.Errorf("cache in %s: %w", y.Name, err)
}
