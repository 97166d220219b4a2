package model

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Stats keeps statistics of models where all replicas find them.
type Stats interface {
	// AddModelStats adds to the statistics, in one transaction.
	AddModelStats(ctx context.Context, list []pipeline.ModelStat) error
	// ModelStats sums them up, by model, from a day on.
	ModelStats(ctx context.Context, since time.Time) ([]pipeline.ModelStat, error)
}

// Stat is what is known of a model's work.
type Stat = pipeline.ModelStat

const (
	// statsFlush is how often what this replica has seen is shared.
	statsFlush = 5 * time.Second
	// statsAge is how often what others have shared is read, while models are chosen.
	statsAge = 30 * time.Second
	// statsDays are what counts: what was good last year may not be today.
	statsDays = 30
)

// board is the statistics of this replica: what all have shared, and what it has
// seen since.
type board struct {
	stats Stats // nil: nobody else is there
	log   *slog.Logger
	wake  chan struct{} // capacity 1: something is to be shared

	mu      sync.Mutex
	shared  map[string]Stat // by model
	read    time.Time
	pending map[statKey]*Stat
	flying  map[statKey]*Stat // being shared just now
}

type statKey struct{ day, pipeline, model string }

func newBoard(s Stats, log *slog.Logger) *board {
	return &board{stats: s, log: log, wake: make(chan struct{}, 1), shared: map[string]Stat{}, pending: map[statKey]*Stat{}}
}

// statName names a model to the statistics.
func (t *target) statName() string { return t.id() }

// expectedSeconds is what an answer takes of which nothing better is known, and
// dearUSD what a call costs that is neither cheap nor dear.
const (
	expectedSeconds = 2.0
	dearUSD         = 0.01
)

// reward is how good a call was, from 0 to 1: that it has worked counts most, then
// how long it took against what is usual for the model, and what it cost.
func reward(t *target, u *pipeline.Usage, priced bool, err error, took time.Duration) float64 {
	if err != nil {
		return 0
	}
	usual := expectedSeconds
	if t.Metrics.LatencyP50 > 0 {
		usual = t.Metrics.LatencyP50
	}
	thrift := 0.5
	if u != nil && priced {
		thrift = dearUSD / (dearUSD + u.CostUSD)
	}
	return 0.6 + 0.2*usual/(usual+took.Seconds()) + 0.2*thrift
}

// add counts a call.
func (b *board) add(c *call, t *target, u *pipeline.Usage, err error, took time.Duration) {
	s := Stat{Calls: 1, Seconds: took.Seconds(), Reward: reward(t, u, c.priced, err, took)}
	if err != nil {
		s.Failures, s.Seconds = 1, 0
	}
	if u != nil {
		s.InputTokens, s.OutputTokens, s.CachedTokens, s.CostUSD = int64(u.InputTokens), int64(u.OutputTokens), int64(u.CachedTokens), u.CostUSD-u.ReplayedUSD
		if c.choice["price"] != nil {
			s.Unpriced = 1
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entry(keyFor(c.env, t.statName(), c.begun)).Add(&s)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// blameReward is what an answer is worth less that does not have the form that was
// asked for.
const blameReward = 0.5

// blame takes back from a model's rewards.
func (b *board) blame(env executor.Env, model string) {
	k := keyFor(env, model, time.Now())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entry(k).Reward -= blameReward
}

func keyFor(env executor.Env, model string, at time.Time) statKey {
	k := statKey{day: at.UTC().Format(time.DateOnly), model: model}
	if env.Unit != nil {
		k.pipeline = env.Unit.ID
	}
	return k
}

// entry is where the counts of a key are added up. mu is held.
func (b *board) entry(k statKey) *Stat {
	if b.pending[k] == nil {
		b.pending[k] = &Stat{Day: k.day, Pipeline: k.pipeline, Model: k.model}
	}
	return b.pending[k]
}

// stat is what is known of a model.
func (b *board) stat(model string) Stat {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.shared[model]
	s.Model = model
	for _, list := range []map[statKey]*Stat{b.pending, b.flying} {
		for k, p := range list {
			if k.model == model {
				s.Add(p)
			}
		}
	}
	return s
}

// load reads what all replicas have shared, if that was not done lately.
func (b *board) load(ctx context.Context) error {
	b.mu.Lock()
	fresh := b.stats == nil || !b.read.IsZero() && time.Since(b.read) < statsAge
	if !fresh {
		b.read = time.Now() // one at a time asks
	}
	b.mu.Unlock()
	if fresh {
		return nil
	}
	list, err := b.stats.ModelStats(ctx, time.Now().AddDate(0, 0, -statsDays))
	if err != nil {
		return err
	}
	shared := make(map[string]Stat, len(list))
	for i := range list {
		shared[list[i].Model] = list[i]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.flying == nil { // else nobody knows whether these are among them
		b.shared = shared
	}
	return nil
}

// run shares what this replica has seen, a batch at a time, until ctx ends; then
// the rest.
func (b *board) run(ctx context.Context) error {
	if b.stats == nil {
		<-ctx.Done()
		return nil
	}
	for {
		select {
		case <-b.wake:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), statsFlush)
			defer cancel()
			b.flush(last)
			return nil
		}
		_ = sleep(ctx, statsFlush) // what comes meanwhile goes along
		b.flush(context.WithoutCancel(ctx))
	}
}

func (b *board) flush(ctx context.Context) {
	b.mu.Lock()
	batch := b.pending
	b.pending, b.flying = map[statKey]*Stat{}, batch
	b.mu.Unlock()
	list := make([]Stat, 0, len(batch))
	for _, s := range batch {
		list = append(list, *s)
	}
	var err error
	if len(list) > 0 {
		err = b.stats.AddModelStats(ctx, list)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flying = nil
	for k, s := range batch {
		if err != nil { // later, then
			b.entry(k).Add(s)
			continue
		}
		sum := b.shared[k.model]
		sum.Model = k.model
		sum.Add(s)
		b.shared[k.model] = sum
	}
	if err != nil {
		b.log.Warn("statistics of models not stored", "err", err)
	}
}
