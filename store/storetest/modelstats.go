package storetest

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

func modelStats(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	one := func(day, in, model string) pipeline.ModelStat {
		return pipeline.ModelStat{
			Day: day, Pipeline: in, Model: model, Calls: 2, Failures: 1, Unpriced: 1, Reward: 0.5, Seconds: 1.5,
			InputTokens: 1 << 40, OutputTokens: 20, CachedTokens: 5, CostUSD: 0.25,
		}
	}
	batch := []pipeline.ModelStat{one("2026-01-02", "p", "b"), one("2026-01-02", "p", "a"), one("2026-01-01", "", "a")}
	const times = 8
	var all sync.WaitGroup
	for i := range times { // replicas add at once, each in its own order
		all.Go(func() {
			to, list := s, []pipeline.ModelStat{batch[i%3], batch[(i+1)%3], batch[(i+2)%3]}
			if i%2 == 1 {
				to = other
			}
			if err := to.AddModelStats(t.Context(), list); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := s.AddModelStats(t.Context(), nil); err != nil {
		t.Error(err)
	}
	sum := func(m pipeline.ModelStat, n int) pipeline.ModelStat {
		var all pipeline.ModelStat
		all.Day, all.Pipeline, all.Model = m.Day, m.Pipeline, m.Model
		for range n {
			all.Add(&m)
		}
		return all
	}
	day := func(text string) time.Time {
		d, err := time.Parse(time.DateOnly, text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, c := range []struct {
		since time.Time
		want  []pipeline.ModelStat
	}{
		{time.Time{}, []pipeline.ModelStat{sum(one("", "", "a"), 2*times), sum(one("", "", "b"), times)}},
		{day("2026-01-02"), []pipeline.ModelStat{sum(one("", "", "a"), times), sum(one("", "", "b"), times)}},
		{day("2026-01-03"), nil},
	} {
		got, err := other.ModelStats(t.Context(), c.since)
		if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("since %v: %v %s", c.since, err, diff)
		}
	}
	order := []pipeline.ModelStat{sum(batch[1], times), sum(batch[0], times), sum(batch[2], times)}
	for _, c := range []struct {
		q    store.UsageQuery
		want []pipeline.ModelStat
	}{
		{store.UsageQuery{}, order},
		{store.UsageQuery{Since: "2026-01-02"}, order[:2]},
		{store.UsageQuery{Until: "2026-01-01"}, order[2:]},
		{store.UsageQuery{Pipeline: "p", Model: "b"}, order[1:2]},
		{store.UsageQuery{Limit: 1}, order[:1]},
		{store.UsageQuery{After: order[0]}, order[1:]},
		{store.UsageQuery{After: order[1]}, order[2:]},
	} {
		got, err := s.ModelUsage(t.Context(), c.q)
		if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%+v: %v %s", c.q, err, diff)
		}
	}
}
