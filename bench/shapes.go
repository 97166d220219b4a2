package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// latency measures how long one caller waits from the submission of a run to
// its last event, one run after the other.
func (b *bench) latency(ctx context.Context) error {
	return b.withServer(ctx, "latency", func(s *session, pg *postgres) error {
		floor, err := pg.commitTime(ctx)
		if err != nil {
			return err
		}
		b.add("one bare commit of one row, p50", floor, "ms")
		times := func(source string, n int) ([]float64, error) {
			var list []float64
			for i := range n + 50 {
				began := time.Now()
				if err := s.finish(ctx, source); err != nil {
					return nil, err
				}
				if i >= 50 {
					list = append(list, time.Since(began).Seconds()*1e3)
				}
			}
			return list, nil
		}
		one, err := times(chain(1), 1000)
		if err != nil {
			return err
		}
		b.atMost("one run of one step, submitted to finished, p50", median(one), "ms", 1.7)
		b.add("one run of one step, submitted to finished, p99", quantile(one, 0.99), "ms")
		b.atMost("p99 to p50", quantile(one, 0.99)/median(one), "", 4)
		ten, err := times(chain(10), 300)
		if err != nil {
			return err
		}
		b.atMost("a chain of 10 steps, submitted to finished, p50", median(ten), "ms", 6)
		return nil
	})
}

// shapes measures single large runs.
func (b *bench) shapes(ctx context.Context) error {
	return b.withServer(ctx, "shapes", func(s *session, pg *postgres) error {
		for _, w := range []struct {
			n, times int
			limit    float64
		}{{1000, 7, 0.1}, {10_000, 3, 1}} {
			var list []float64
			for range w.times {
				_, took, err := s.lasts(ctx, wide(w.n))
				if err != nil {
					return fmt.Errorf("wide run: %w", err)
				}
				list = append(list, took)
			}
			b.atMost(fmt.Sprintf("one run of %d parallel steps and a join, submitted to finished", w.n), median(list), "s", w.limit)
		}
		if err := b.long(ctx, s, 1000, 7, 1.1); err != nil {
			return err
		}
		if err := b.long(ctx, s, 10_000, 1, 1.5); err != nil {
			return err
		}
		if err := b.pure(ctx, s, pg); err != nil {
			return err
		}
		if err := b.items(ctx, s); err != nil {
			return err
		}
		if now, peak := s.memory(); now > 0 {
			b.add("memory of the server after all these", now, "MiB")
			b.add("memory of the server at its peak", peak, "MiB")
		}
		return nil
	})
}

// lasts is how many seconds pass from the submission of a run, which nobody
// watches, until its caller knows that it has completed.
func (s *session) lasts(ctx context.Context, source string) (run *orchestratorv1.Run, seconds float64, err error) {
	began := time.Now()
	run, err = s.submit(ctx, source)
	if err == nil {
		err = s.completes(ctx, run)
	}
	return run, time.Since(began).Seconds(), err
}

// long measures chains: their whole time, and the time per step in their last
// tenth against that in their first.
func (b *bench) long(ctx context.Context, s *session, n, times int, limit float64) error {
	var took, growth []float64
	cpu := s.process.CPU()
	for range times {
		run, seconds, err := s.lasts(ctx, chain(n))
		if err != nil {
			return fmt.Errorf("chain: %w", err)
		}
		took = append(took, seconds)
		var finished []time.Time
		if err := s.watch(ctx, run.GetId(), func(e *orchestratorv1.Event) {
			if e.GetType() == "step_finished" {
				finished = append(finished, e.GetAt().AsTime())
			}
		}); err != nil {
			return fmt.Errorf("chain: %w", err)
		}
		if len(finished) != n {
			return fmt.Errorf("chain: %d steps finished, want %d", len(finished), n)
		}
		tenth := n / 10
		growth = append(growth, finished[n-1].Sub(finished[n-1-tenth]).Seconds()/finished[tenth].Sub(finished[0]).Seconds())
	}
	cpu = s.process.CPU() - cpu
	b.add(fmt.Sprintf("one chain of %d steps, submitted to finished", n), median(took), "s")
	b.add("processor time of the server per step of it, reading it back included", cpu.Seconds()/float64(n*times)*1e6, "us")
	b.atMost("its last tenth to its first", median(growth), "", limit)
	return nil
}

// pure measures what a run of steps costs that change nothing outside: they need
// not be durable one by one.
func (b *bench) pure(ctx context.Context, s *session, pg *postgres) error {
	var text strings.Builder
	text.WriteString("id: bench-pure\nsteps:\n  - {id: s0, action: debug}\n")
	for i := 1; i < 1000; i++ {
		fmt.Fprintf(&text, "  - {id: s%d, action: debug, dependencies: [s%d]}\n", i, i-1)
	}
	before, err := pg.counters(ctx)
	if err != nil {
		return err
	}
	if err := s.finish(ctx, text.String()); err != nil {
		return fmt.Errorf("chain of pure steps: %w", err)
	}
	after, err := pg.counters(ctx)
	if err != nil {
		return err
	}
	b.atMost("a chain of 1,000 pure steps, submitted to finished and watched: transactions", float64(after.commits-before.commits), "", 50)
	return nil
}

// items measures one loop over very many items.
func (b *bench) items(ctx context.Context, s *session) error {
	const source = `id: bench-items
steps:
  - id: each
    for: {items: "{{ range(100000) }}", collect: "{{ item }}"}
    steps:
      - {id: s, action: debug, parameters: {value: "{{ item }}"}}
`
	_, took, err := s.lasts(ctx, source)
	if err != nil {
		return fmt.Errorf("loop over items: %w", err)
	}
	b.add("a loop over 100,000 items, submitted to finished", took, "s")
	return nil
}

// viewers measures how late 200 viewers of one run see its events.
func (b *bench) viewers(ctx context.Context) error {
	return b.withServer(ctx, "viewers", func(s *session, _ *postgres) error {
		const n, length = 200, 200
		before := "begin"
		var text strings.Builder
		text.WriteString("id: bench-viewed\nsteps:\n  - {id: begin, wait: {signal: begin}}\n")
		for i := range length { // one after the other, about 150 events a second
			fmt.Fprintf(&text, "  - {id: s%d, wait: {for: 20ms}, dependencies: [%s]}\n", i, before)
			before = fmt.Sprintf("s%d", i)
		}
		run, err := s.submit(ctx, text.String())
		if err != nil {
			return err
		}
		late := make([][]float64, n)
		ready := make(chan struct{}, n)
		cpu := s.process.CPU()
		g, watching := errgroup.WithContext(ctx)
		for i := range n {
			g.Go(func() error {
				next := int32(1)
				return s.watch(watching, run.GetId(), func(e *orchestratorv1.Event) {
					if next == 1 {
						ready <- struct{}{}
					}
					if e.GetSeq() == next {
						next++
						late[i] = append(late[i], time.Since(e.GetAt().AsTime()).Seconds()*1e3)
					}
				})
			})
		}
		for range n {
			select {
			case <-ready:
			case <-watching.Done():
				return g.Wait()
			}
		}
		if err := s.signal(ctx, run.GetId(), "begin"); err != nil {
			return err
		}
		if err := g.Wait(); err != nil {
			return err
		}
		cpu = s.process.CPU() - cpu
		var all []float64
		for i, list := range late {
			if len(list) < length {
				return fmt.Errorf("viewer %d has seen %d events in order, of at least %d", i, len(list), length)
			}
			all = append(all, list[min(10, len(list)):]...) // the first ones were there before the viewer
		}
		b.atMost("200 viewers of one run: from an event to its arrival, p50", median(all), "ms", 250)
		b.atMost("the same, p99", quantile(all, 0.99), "ms", 250)
		b.add("processor time of the server per event and viewer", cpu.Seconds()/float64(len(all))*1e6, "us")
		return nil
	})
}
