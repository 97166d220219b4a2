package storetest

import (
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// Benchmark repeats Life and reports durable steps a second.
func Benchmark(b *testing.B, s store.Store, runs int) {
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n += Life(b, s, runs)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "steps/s")
}

// Life takes some runs of ten steps through their whole life by a bare
// group-commit loop: submit, own, two records a step, finish. They step
// together, so a batch holds two records of each. It returns the number of
// steps.
func Life(t testing.TB, s store.Store, runs int) int {
	const stepsOfRun = 10
	l, err := s.OpenLane(t.Context(), "life")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	commit := func(batch *store.Batch) {
		if _, err := l.Commit(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	batch := new(store.Batch)
	live := make([]*pipeline.Run, runs)
	for i := range live {
		live[i] = newRun(pipeline.RunRunning)
		live[i].StartedAt = instant(1)
		batch.Create = append(batch.Create, created(live[i]))
	}
	commit(batch)
	for k := range int32(stepsOfRun) {
		batch = new(store.Batch)
		for _, r := range live {
			batch.Append = append(batch.Append, store.Append{Run: r.ID, Events: steps(2*k+2, 2*k+3)})
		}
		if k == stepsOfRun-1 {
			for i, r := range live {
				batch.Append[i].Events = append(batch.Append[i].Events, pipeline.Event{
					Seq: 2*stepsOfRun + 2, Type: pipeline.RunFinished, At: instant(9),
					Data: pipeline.Data{RunStatus: pipeline.RunCompleted, Outputs: map[string]any{"answer": int64(42)}},
				})
				r.Status, r.FinishedAt, r.Outputs = pipeline.RunCompleted, instant(9), map[string]any{"answer": int64(42)}
				r.Usage.Steps = stepsOfRun
				batch.Finish = append(batch.Finish, store.Finish{Run: r})
			}
		}
		commit(batch)
	}
	return runs * stepsOfRun
}
