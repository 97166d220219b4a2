package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// settle is how long a server gets to give back the memory of a load.
const settle = 20 * time.Second

// idle measures a server that has nothing to do, on a database of its own that
// has seen little: the statements that it sends, and its memory with and without
// runs in the queue.
func (b *bench) idle(ctx context.Context) error {
	return b.withDatabase(ctx, func(pg *postgres) (err error) {
		// Autovacuum's visits would count as statements of the server.
		if err := pg.quiet(ctx, "SET autovacuum = off"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pg.quiet(context.WithoutCancel(ctx), "RESET autovacuum")) }()
		s, err := b.start(ctx, pg.url, "ORCHESTRATOR_EXECUTION_MAX_CONCURRENT_PIPELINES=1")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.end()) }()
		if err := s.finish(ctx, chain(steps)); err != nil {
			return err
		}
		if err := sleep(ctx, 12*time.Second); err != nil { // until the counts of its start are handed in
			return err
		}
		rate, err := pg.statements(ctx, 30*time.Second)
		if err != nil {
			return err
		}
		b.atMost("statements of an idle server", rate, "1/s", 0.5)
		if now, _ := s.memory(); now > 0 {
			b.atMost("memory of an idle server on PostgreSQL", now, "MiB", 40)
		}
		return b.queued(ctx, s, pg)
	})
}

// queued measures what runs in the queue cost a server that has room for one.
func (b *bench) queued(ctx context.Context, s *session, pg *postgres) error {
	const busy = "id: bench-busy\nsteps:\n  - {id: hold, command: [sleep, \"3600\"]}\n"
	first, err := s.submit(ctx, busy)
	if err != nil {
		return err
	}
	// As many requests as the measured ones, so that what requests cost is not
	// taken for what queued runs do.
	for range 10_000 {
		if _, err := s.runs.GetRun(ctx, &orchestratorv1.GetRunRequest{Id: first.GetId()}); err != nil {
			return err
		}
	}
	if err := s.submitMany(ctx, chain(steps), 500); err != nil {
		return err
	}
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	before, _ := s.memory()
	if err := s.submitMany(ctx, chain(steps), 10_000); err != nil {
		return err
	}
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	if now, _ := s.memory(); now > 0 {
		b.atMost("memory that 10,000 queued runs add", now-before, "MiB", 4)
	}
	open, err := pg.open(ctx)
	if err == nil && open != 10_501 {
		err = fmt.Errorf("%d runs are queued or running, want 10,501", open)
	}
	return err
}

// waiting measures what 100,000 runs that wait for a signal cost a server.
func (b *bench) waiting(ctx context.Context) error {
	return b.withServer(ctx, "waiting", func(s *session, pg *postgres) error {
		const n = 100_000
		if err := sleep(ctx, settle); err != nil {
			return err
		}
		before, _ := s.memory()
		began := time.Now()
		if err := s.submitMany(ctx, "id: bench-wait\nsteps:\n  - {id: w, wait: {signal: never}}\n", n); err != nil {
			return err
		}
		for {
			parked, err := pg.parked(ctx)
			if err != nil {
				return err
			}
			if parked == n {
				break
			}
			if err := sleep(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
		b.add("100,000 runs submitted and parked", time.Since(began).Seconds(), "s")
		if err := sleep(ctx, settle); err != nil {
			return err
		}
		if now, _ := s.memory(); now > 0 {
			b.atMost("memory that 100,000 waiting runs add", now-before, "MiB", 50)
		}
		stop, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := s.process.Stop(stop); err != nil {
			return err
		}
		if err := s.again(ctx); err != nil {
			return err
		}
		if err := sleep(ctx, settle); err != nil {
			return err
		}
		if now, _ := s.memory(); now > 0 {
			b.atMost("memory of a server started on them", now, "MiB", 50)
		}
		return nil
	})
}

// stored measures lists and single runs among a million that have finished.
func (b *bench) stored(ctx context.Context) error {
	return b.withServer(ctx, "stored", func(s *session, pg *postgres) error {
		const n = 1_000_000
		began := time.Now()
		if err := pg.fill(ctx, n); err != nil {
			return fmt.Errorf("fill the database: %w", err)
		}
		b.add("1,000,000 runs written by SQL", time.Since(began).Seconds(), "s")
		for _, q := range []struct{ name, filter string }{
			{"all", ""}, {"failed ones", "status:failed"}, {"those of one pipeline", "pipeline:bench-7"}, {"running ones", "status:running"},
		} {
			var list []float64
			token := ""
			for range 40 { // pages further and further back
				began := time.Now()
				page, err := s.runs.ListRuns(ctx, &orchestratorv1.ListRunsRequest{Filter: q.filter, PageToken: token})
				if err != nil {
					return err
				}
				list = append(list, time.Since(began).Seconds()*1e3)
				token = page.GetNextPageToken()
			}
			b.atMost("a page of 50 of 1,000,000 runs, "+q.name+", p99", quantile(list, 0.99), "ms", 50)
		}
		ids, err := pg.some(ctx, 200)
		if err != nil {
			return err
		}
		var list []float64
		for _, id := range ids {
			began := time.Now()
			if _, err := s.runs.GetRun(ctx, &orchestratorv1.GetRunRequest{Id: id}); err != nil {
				return err
			}
			list = append(list, time.Since(began).Seconds()*1e3)
		}
		b.atMost("one of 1,000,000 runs, p99", quantile(list, 0.99), "ms", 50)
		return nil
	})
}
