package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	callers = 16 // that submit runs at once
	steps   = 10 // of each of these runs
)

// throughput measures, in turn and several times, a plain loop and two sizes of
// load on the server, and what one of them writes.
func (b *bench) throughput(ctx context.Context) error {
	return b.withServer(ctx, "throughput", func(s *session, pg *postgres) error {
		source := chain(steps)
		var plain, small, large, ratios []float64
		for range b.rounds {
			p, err := plainLoop(ctx, b.window, pg)
			if err != nil {
				return fmt.Errorf("plain loop: %w", err)
			}
			few, err := s.batches(ctx, source, 500, b.window)
			if err != nil {
				return fmt.Errorf("500 runs: %w", err)
			}
			many, err := s.batches(ctx, source, 5000, 0)
			if err != nil {
				return fmt.Errorf("5,000 runs: %w", err)
			}
			plain, small, large = append(plain, p), append(small, few.perSecond), append(large, many.perSecond)
			ratios = append(ratios, few.perSecond/p)
		}
		b.add("plain loop, one commit per step, 32 connections", median(plain), "steps/s")
		b.atLeast("500 runs of 10 steps, submitted by 16 callers", median(small), "steps/s", 20_000)
		b.atLeast("ratio to the plain loop of the same round", median(ratios), "", 3)
		b.atLeast("5,000 runs of 10 steps, submitted by 16 callers", median(large), "steps/s", 20_000)

		load, written, err := counted(ctx, pg, func() (loaded, error) { return s.batches(ctx, source, 500, b.window) })
		if err != nil {
			return err
		}
		b.gate("commits per step", float64(written.commits)/float64(load.steps), "", 0.05)
		b.gate("WAL per step", float64(written.wal)/float64(load.steps), "bytes", 1024)
		b.add("processor time of the server per step", load.cpu.Seconds()/float64(load.steps)*1e6, "us")

		load, written, err = counted(ctx, pg, func() (loaded, error) { return s.watched(ctx, source, b.window) })
		if err != nil {
			return fmt.Errorf("watched: %w", err)
		}
		b.add("256 runs at once, each watched by its caller", load.perSecond, "steps/s")
		b.add("statements per step then, reads included", float64(written.commits)/float64(load.steps), "")
		return nil
	})
}

// loaded is what a measurement has done.
type loaded struct {
	steps     int
	perSecond float64
	cpu       time.Duration // of the server
}

// batches submits n equal runs of ten steps and waits until all have completed,
// again and again until d has passed, at least once.
func (s *session) batches(ctx context.Context, source string, n int, d time.Duration) (l loaded, err error) {
	done, err := s.completed(ctx)
	if err != nil {
		return l, err
	}
	cpu, began := s.process.CPU(), time.Now()
	for {
		if err := s.submitMany(ctx, source, n); err != nil {
			return l, err
		}
		l.steps += n * steps
		for done += n; ; {
			now, err := s.completed(ctx)
			if err != nil {
				return l, err
			}
			if now >= done {
				break
			}
			// To read the metrics costs the server about as much as twenty steps.
			if err := sleep(ctx, 25*time.Millisecond); err != nil {
				return l, err
			}
		}
		if time.Since(began) >= d {
			break
		}
	}
	l.perSecond = float64(l.steps) / time.Since(began).Seconds()
	l.cpu = s.process.CPU() - cpu
	return l, nil
}

// watched keeps 256 runs under way for a while: each caller submits one, waits
// on its stream of events for the last one, and submits the next.
func (s *session) watched(ctx context.Context, source string, d time.Duration) (l loaded, err error) {
	counts := make([]int, 256)
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i := range counts {
		g.Go(func() error {
			for time.Since(began) < d {
				if err := s.finish(ctx, source); err != nil {
					return err
				}
				counts[i] += steps
			}
			return nil
		})
	}
	err = g.Wait()
	for _, n := range counts {
		l.steps += n
	}
	l.perSecond = float64(l.steps) / time.Since(began).Seconds()
	return l, err
}

// counted measures a load between two looks at the counters of the database.
func counted(ctx context.Context, pg *postgres, do func() (loaded, error)) (l loaded, c counters, err error) {
	if err := pg.checkpoint(ctx); err != nil {
		return l, c, err
	}
	before, err := pg.counters(ctx)
	if err != nil {
		return l, c, err
	}
	if l, err = do(); err != nil {
		return l, c, err
	}
	after, err := pg.counters(ctx)
	return l, counters{after.commits - before.commits, after.wal - before.wal}, err
}

// embedded measures a server on the embedded store.
func (b *bench) embedded(ctx context.Context) (err error) {
	s, err := b.start(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	for range 20 {
		if err := s.finish(ctx, chain(steps)); err != nil {
			return err
		}
	}
	if err := sleep(ctx, 15*time.Second); err != nil {
		return err
	}
	if now, _ := s.memory(); now > 0 {
		b.atMost("memory of an idle server on SQLite", now, "MiB", 40)
	}
	var rates []float64
	for range b.rounds {
		l, err := s.batches(ctx, chain(steps), 500, b.window)
		if err != nil {
			return err
		}
		rates = append(rates, l.perSecond)
	}
	b.atLeast("500 runs of 10 steps on SQLite, submitted by 16 callers", median(rates), "steps/s", 5000)
	return nil
}

func median(list []float64) float64 { return quantile(list, 0.5) }

// quantile is the smallest of the values that at least the part q is no larger than.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
