package budget

import (
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// clock is a clock that stands until it is set.
type clock struct{ now time.Time }

func (c *clock) at(text string) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	c.now = t
}

// spent is what the store knows of a budget; nothing where it was never drawn from.
func spent(t *testing.T, l *ledger, key string) store.Budget {
	t.Helper()
	list, err := l.Budgets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if b.Key == key {
			return b
		}
	}
	return store.Budget{Key: key}
}

// A call counts for the day of UTC on which it was begun, whenever it ends and
// whatever its run does meanwhile.
func TestACallCountsForTheDayOnWhichItWasBegun(t *testing.T) {
	for _, order := range []string{"settled at once", "settled at the end", "the run is idle"} {
		t.Run(order, func(t *testing.T) {
			l, c := openLedger(t), &clock{}
			p := New(Config{Day: pipeline.Budget{Tokens: 1000}, Workspace: pipeline.Budget{Tokens: 5000}, Store: l, Replica: "r", Now: func() time.Time { return c.now }})
			env := l.env("a")
			settle := func(all bool) {
				if _, err := p.shared.settle(t.Context(), all); err != nil {
					t.Fatal(err)
				}
			}
			reserve := func(tokens int64) model.Reservation {
				r, err := p.Reserve(t.Context(), env, model.Estimate{InputTokens: tokens})
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			c.at("2026-11-21T23:59:58+00:00")
			reserve(300).Settle(pipeline.Usage{InputTokens: 100, Calls: 1})
			early, open := reserve(400), reserve(300)
			if _, err := p.Reserve(t.Context(), l.env("b"), model.Estimate{InputTokens: 300}); !refused(err) {
				t.Fatalf("the day holds 900 of 1000: %v", err)
			}
			c.at("2026-11-22T00:00:01+00:00")
			if order == "settled at once" {
				settle(false)
			}
			fresh := reserve(1000) // the whole new day
			early.Settle(pipeline.Usage{InputTokens: 350, Calls: 1})
			if order == "settled at once" {
				settle(false)
			}
			fresh.Settle(pipeline.Usage{InputTokens: 600, Calls: 1})
			if order == "the run is idle" {
				c.at("2026-11-22T00:05:00+00:00") // and one call lasts
				settle(false)
				settle(false)
			}
			open.Settle(pipeline.Usage{InputTokens: 7, Calls: 1})
			settle(false)
			settle(true)
			for key, want := range map[string]int64{"day/2026-11-21": 457, "day/2026-11-22": 600, "workspace/default": 1057} {
				if b := spent(t, l, key); b.Spent.Tokens != want || b.Taken.Tokens != want {
					t.Errorf("%s: %d spent, %d taken, want %d", key, b.Spent.Tokens, b.Taken.Tokens, want)
				}
			}
			if _, err := p.Reserve(t.Context(), env, model.Estimate{InputTokens: 401}); !refused(err) {
				t.Errorf("beyond the new day: %v", err)
			}
			reserve(400).Release()
		})
	}
}

// The day is one of UTC, also where the clock shows another zone.
func TestTheDayIsOneOfUTC(t *testing.T) {
	l, c := openLedger(t), &clock{}
	p := New(Config{Day: pipeline.Budget{Tokens: 100}, Store: l, Replica: "r", Now: func() time.Time { return c.now }})
	take := func() error {
		r, err := p.Reserve(t.Context(), l.env("a"), model.Estimate{InputTokens: 100})
		if err == nil {
			r.Settle(pipeline.Usage{InputTokens: 100})
		}
		return err
	}
	c.at("2026-11-22T01:30:00+02:00") // 23:30 on the 21st
	if err := take(); err != nil {
		t.Fatal(err)
	}
	c.at("2026-11-22T01:59:59+02:00")
	if err := take(); !refused(err) {
		t.Errorf("the same day: %v", err)
	}
	c.at("2026-11-22T02:00:00+02:00")
	if err := take(); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

// What recorded answers had cost counts for the run, so that a replay goes as the run
// went, but is not taken from what others may spend.
func TestReplayedAnswersCostSharedBudgetsNothing(t *testing.T) {
	l := openLedger(t)
	p := New(Config{Run: pipeline.Budget{Tokens: 1000}, Workspace: pipeline.Budget{Tokens: 100}, Store: l, Replica: "r"})
	env := l.env("a")
	r, err := p.Reserve(t.Context(), env, model.Estimate{InputTokens: 600, Replays: true})
	if err != nil {
		t.Fatalf("a spent workspace keeps a replay from going on: %v", err)
	}
	replayed := pipeline.Usage{InputTokens: 600, CostUSD: 1, Calls: 1, ReplayedTokens: 600, ReplayedUSD: 1, ReplayedCalls: 1}
	l.record("a", replayed)
	r.Settle(replayed)
	if _, err := p.Reserve(t.Context(), env, model.Estimate{InputTokens: 500, Replays: true}); !refused(err) {
		t.Errorf("the run's own budget: %v", err)
	}
	// One that may have to ask is within the budgets, and costs what it has paid.
	mixed, err := p.Reserve(t.Context(), env, model.Estimate{InputTokens: 100})
	if err != nil {
		t.Fatal(err)
	}
	l.record("a", replayed)
	mixed.Settle(replayed)
	paid, err := p.Reserve(t.Context(), l.env("b"), model.Estimate{InputTokens: 100})
	if err != nil {
		t.Fatal(err)
	}
	paid.Settle(pipeline.Usage{InputTokens: 40, Calls: 1})
	if _, err := p.shared.settle(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if b := spent(t, l, "workspace/default"); b.Spent.Tokens != 40 || b.Taken.Tokens != 40 || b.Spent.Calls != 1 || b.Spent.Nanos != 0 {
		t.Errorf("settled %+v", b)
	}
	if total, err := p.shared.logged(t.Context(), "a"); err != nil || total != (pipeline.Amount{}) {
		t.Errorf("from the log: %+v, %v", total, err)
	}
}
