package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// kill measures how long a server that was killed in the middle of 500 runs of
// ten steps needs, from its new start, to bring all of them to their end, and
// whether it recorded every step once.
func (b *bench) kill(ctx context.Context) error {
	return b.withServer(ctx, "kill", func(s *session, pg *postgres) error {
		var list []float64
		for range b.rounds {
			took, err := b.killOnce(ctx, s, pg)
			if err != nil {
				return err
			}
			list = append(list, took)
		}
		b.atMost("killed with 40 % of 5,000 steps done: from the new start to the last one", median(list), "s", 1.2)
		return nil
	})
}

func (b *bench) killOnce(ctx context.Context, s *session, pg *postgres) (seconds float64, err error) {
	const runs, all = 500, 500 * steps
	// The runs begin together, at a signal of their own, so that none has ended
	// when the first ones are under way.
	before, err := pg.results(ctx)
	if err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- s.submitMany(ctx, chain(steps), runs) }()
	first, err := s.attempts(ctx)
	if err != nil {
		return 0, err
	}
	for n := first; n-first < all*4/10; {
		if n, err = s.attempts(ctx); err != nil {
			return 0, err
		}
	}
	s.process.Kill()
	submitted := <-done // those that were not acknowledged are submitted again
	began := time.Now()
	if err := s.again(ctx); err != nil {
		return 0, err
	}
	if submitted != nil {
		known, err := pg.runs(ctx)
		if err != nil {
			return 0, err
		}
		if err := s.submitMany(ctx, chain(steps), max(0, before.runs+runs-known)); err != nil {
			return 0, err
		}
	}
	for {
		open, err := pg.open(ctx)
		if err != nil {
			return 0, err
		}
		if open == 0 {
			break
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return 0, err
		}
	}
	took := time.Since(began).Seconds()
	after, err := pg.results(ctx)
	if err != nil {
		return 0, err
	}
	if n := after.steps - before.steps; n != after.distinct-before.distinct || n != (after.runs-before.runs)*steps {
		return 0, fmt.Errorf("%d runs have %d results of %d steps", after.runs-before.runs, n, after.distinct-before.distinct)
	}
	return took, nil
}

// takeover measures how long another server needs to go on with 1,000 runs
// whose server was killed: each has one step under way, a request to us that we
// do not answer before.
func (b *bench) takeover(ctx context.Context) error {
	return b.withDatabase(ctx, func(pg *postgres) (err error) {
		const n = 1000
		h := &holder{free: make(chan struct{})}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		web := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
		served := make(chan error, 1)
		go func() { served <- web.Serve(l) }()
		defer func() {
			if e := errors.Join(web.Close(), <-served); !errors.Is(e, http.ErrServerClosed) {
				err = errors.Join(err, e)
			}
		}()
		room := []string{"ORCHESTRATOR_EXECUTION_MAX_CONCURRENT_TASKS=1200", "ORCHESTRATOR_EXECUTION_GRACE=1s"}
		first, err := b.start(ctx, pg.url, room...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, first.end()) }()
		source := fmt.Sprintf("id: bench-hold\nsteps:\n  - {id: hold, action: http, parameters: {url: \"http://%s/\"}}\n", l.Addr())
		if err := first.submitMany(ctx, source, n); err != nil {
			return err
		}
		if err := h.reached(ctx, n); err != nil {
			return err
		}
		second, err := b.start(ctx, pg.url, room...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, second.end()) }()
		killed := time.Now()
		first.process.Kill()
		if err := h.reached(ctx, n+1); err != nil {
			return err
		}
		noticed := time.Now()
		if err := h.reached(ctx, 2*n); err != nil {
			return err
		}
		b.atMost("1,000 running runs of a killed server: until the first goes on elsewhere", noticed.Sub(killed).Seconds(), "s", 20)
		b.atMost("from then until all go on", time.Since(noticed).Seconds(), "s", 2)
		close(h.free)
		for {
			open, err := pg.open(ctx)
			if err != nil || open == 0 {
				return err
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	})
}

// holder answers requests when it is free, and counts them before.
type holder struct {
	free  chan struct{}
	count atomic.Int64
	mu    sync.Mutex
	wait  chan struct{} // closed at the next request
}

func (h *holder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.count.Add(1)
	h.mu.Lock()
	if h.wait != nil {
		close(h.wait)
		h.wait = nil
	}
	h.mu.Unlock()
	select {
	case <-h.free:
		w.WriteHeader(http.StatusNoContent)
	case <-r.Context().Done():
	}
}

// reached waits until n requests have come.
func (h *holder) reached(ctx context.Context, n int64) error {
	for {
		h.mu.Lock()
		if h.wait == nil {
			h.wait = make(chan struct{})
		}
		wait := h.wait
		h.mu.Unlock()
		if h.count.Load() >= n {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Minute):
			return fmt.Errorf("only %d of %d requests have come", h.count.Load(), n)
		}
	}
}
