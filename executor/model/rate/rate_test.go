package rate

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// shared is the store's side, in memory.
type shared struct {
	mu    sync.Mutex
	tat   map[string]int64
	asked int
}

func (s *shared) TakeRate(_ context.Context, key string, r store.Rate, n int64, most time.Duration) (time.Duration, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	next, wait := r.Takes(time.Now().UnixMicro(), s.tat[key], n)
	if wait > most {
		return wait, false, nil
	}
	s.tat[key] = next
	return wait, true, nil
}

func TestReplicasKeepARateTogether(t *testing.T) {
	for name, c := range map[string]struct {
		limits    model.Limits
		tokens    int64
		perMinute int64 // calls that are allowed
	}{
		"requests":        {model.Limits{RequestsPerMinute: 60}, 10, 60},
		"many requests":   {model.Limits{RequestsPerMinute: 1200}, 10, 1200},
		"tokens":          {model.Limits{RequestsPerMinute: 6000, TokensPerMinute: 100_000}, 1000, 100},
		"more in a burst": {model.Limits{TokensPerMinute: 100_000_000}, 200_000, 500},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &shared{tat: map[string]int64{}}
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				var all sync.WaitGroup
				var mu sync.Mutex
				sent := int64(0)
				for range 3 {
					l := New(st)
					for range 4 {
						all.Go(func() {
							for l.Wait(ctx, "anthropic", c.limits, c.tokens) == nil {
								mu.Lock()
								sent++
								mu.Unlock()
							}
						})
					}
				}
				all.Wait()
				want := 3 * c.perMinute
				if burst := c.perMinute/10 + 6; sent > want+burst || sent < want-burst {
					t.Errorf("%d calls in three minutes, want about %d", sent, want)
				}
				t.Logf("the store was asked %d times for %d calls", st.asked, sent)
			})
		})
	}
}

func TestNoLimitAsksNobody(t *testing.T) {
	st := &shared{tat: map[string]int64{}}
	if err := New(st).Wait(t.Context(), "x", model.Limits{}, 1<<40); err != nil || st.asked > 0 {
		t.Errorf("%v, asked %d times", err, st.asked)
	}
}

func TestEndlessWaitIsAFailure(t *testing.T) {
	st := &shared{tat: map[string]int64{"x tokens": time.Now().Add(time.Hour).UnixMicro()}}
	l, limits := New(st), model.Limits{TokensPerMinute: 10}
	err := l.Wait(t.Context(), "x", limits, 10)
	f, ok := errors.AsType[*pipeline.Failure](err)
	if !ok || f.Kind != pipeline.CategoryRateLimit || f.RetryAfter < 3000 {
		t.Errorf("got %#v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	st.tat = map[string]int64{"x tokens": time.Now().Add(time.Minute).UnixMicro()}
	if err := l.Wait(ctx, "x", limits, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
