package executor_test

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// tallying is a store that counts the records that are read through it.
type tallying struct {
	store.Store
	records atomic.Int64
	mu      sync.Mutex
	bad     func(pipeline.Digest) bool // blobs that are lost
}

func (c *tallying) Events(ctx context.Context, id pipeline.RunID, after int32) iter.Seq2[pipeline.Event, error] {
	return func(yield func(pipeline.Event, error) bool) {
		for e, err := range c.Store.Events(ctx, id, after) {
			c.records.Add(1)
			if !yield(e, err) {
				return
			}
		}
	}
}

func (c *tallying) Blob(ctx context.Context, run pipeline.RunID, d pipeline.Digest) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad != nil && c.bad(d) {
		return nil, store.BlobNotFound(d)
	}
	return c.Store.Blob(ctx, run, d)
}

// longRun is a loop that stops at a signal and then has a step more.
func longRun(settings string, items int) string {
	return fmt.Sprintf(`
%s
steps:
- id: chain
  for: {items: '{{ range(%d) }}'}
  steps:
  - id: work
    set: {n: '{{ item }}'}
- id: gate
  wait: {signal: go}
- id: last
  action: probe
  with: {do: 'x'}
outputs: {n: '{{ chain.results | length }}', last: '{{ chain.results[-1].work.n }}', x: '{{ last }}'}`, settings, items)
}

func checkpointsOf(t *testing.T, s store.Store, id pipeline.RunID) (list []*pipeline.SnapshotRef, records int) {
	t.Helper()
	for e, err := range s.Events(t.Context(), id, 0) {
		if err != nil {
			t.Fatal(err)
		}
		records++
		if e.Type == pipeline.Checkpoint {
			list = append(list, e.Data.Snapshot)
		}
	}
	return list, records
}

// A run of 50,000 steps is taken over by reading what its newest snapshot does
// not know, and that is a small part.
func TestRecoveryIsBounded(t *testing.T) {
	const items = 50000
	st := storetest.Open(t)
	one := start(t, st, nil)
	id := one.submit(longRun("", items), nil)
	one.status(id, pipeline.RunWaiting)
	one.stop()

	c := &tallying{Store: st}
	two := start(t, c, nil)
	before := c.records.Load()
	two.signal(id, "go", nil)
	two.await("the end", func() bool {
		run, err := st.Run(context.Background(), id)
		return err == nil && run.Status.Final()
	})
	read := c.records.Load() - before
	run, v := two.wait(id)
	if run.Status != pipeline.RunCompleted || run.Outputs["n"] != int64(items) || run.Outputs["last"] != int64(items-1) {
		t.Fatalf("%s %v %v", run.Status, run.Outputs, run.Error)
	}
	if len(v.Steps) < items {
		t.Fatalf("%d steps", len(v.Steps))
	}
	list, records := checkpointsOf(t, st, id)
	if len(list) == 0 {
		t.Fatal("the state was never saved")
	}
	last := list[len(list)-1]
	if want := int64(records) - int64(last.Covers); read > want {
		t.Errorf("%d records were read to take the run over; %d follow the newest snapshot", read, want)
	}
	if read > int64(records)/2 {
		t.Errorf("%d of %d records were read to take the run over", read, records)
	}
	t.Logf("%d of %d records were read, after %d snapshots, the last of %d bytes", read, records, len(list), last.Size)
}

// The state is saved when the settings say so, and what is saved is together no
// longer than the log.
func TestCheckpointStrategies(t *testing.T) {
	st := storetest.Open(t)
	e := start(t, st, nil)
	for _, c := range []struct {
		name, settings, step string
		items, least, most   int
	}{
		{"short runs", "", "set: {n: '{{ item }}'}", 500, 0, 0},
		{"long runs", "", "set: {n: '{{ item }}'}", 6000, 1, 3},
		{"none", "settings: {checkpoint: none}\n", "set: {n: '{{ item }}'}", 6000, 0, 0},
		{"fixed", "settings: {checkpoint: {fixed: 100}}\n", "action: probe, with: {do: x}", 500, 4, 11},
		{"critical", "", "action: probe, with: {do: x}, critical: true", 1, 1, 1},
		{"critical in a loop", "", "action: probe, with: {do: '{{ item }}x'}, critical: true", 300, 2, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := e.submit(fmt.Sprintf("%ssteps:\n- id: chain\n  for: {items: '{{ range(%d) }}'}\n  steps:\n  - {id: work, %s}\n- {id: gate, wait: {signal: go}}", c.settings, c.items, c.step), nil)
			e.status(id, pipeline.RunWaiting)
			e.signal(id, "go", nil)
			run, _ := e.wait(id)
			if run.Status != pipeline.RunCompleted {
				t.Fatalf("%s %v", run.Status, run.Error)
			}
			list, records := checkpointsOf(t, st, id)
			if n := len(list); n < c.least || n > c.most {
				t.Errorf("the state was saved %d times, want %d to %d", n, c.least, c.most)
			}
			if n := len(list); n > 0 && run.Checkpoint != list[n-1].Covers {
				t.Errorf("the row says %d, the newest snapshot knows %d", run.Checkpoint, list[n-1].Covers)
			}
			saved := int64(0)
			for _, s := range list {
				saved += s.Size
			}
			if most := int64(records) * 400; saved > most {
				t.Errorf("%d bytes were saved of a log of %d records", saved, records)
			}
		})
	}
}

// A snapshot that is lost or damaged costs time and nothing else.
func TestLostSnapshotIsDoneWithout(t *testing.T) {
	st := storetest.Open(t)
	one := start(t, st, nil)
	id := one.submit(longRun("settings: {checkpoint: {fixed: 50}}", 400), nil)
	one.status(id, pipeline.RunWaiting)
	one.stop()
	if list, _ := checkpointsOf(t, st, id); len(list) == 0 {
		t.Fatal("the state was never saved")
	}
	two := start(t, &tallying{Store: st, bad: func(pipeline.Digest) bool { return true }}, nil)
	two.signal(id, "go", nil)
	run, _ := two.wait(id)
	if run.Status != pipeline.RunCompleted || run.Outputs["n"] != int64(400) || run.Outputs["x"] != "x" {
		t.Fatalf("%s %v %v", run.Status, run.Outputs, run.Error)
	}
}

// An owner that dies with steps under way, after a snapshot, leaves nothing out:
// its successor begins them again, and no other.
func TestTakeoverFromASnapshot(t *testing.T) {
	st := storetest.Open(t)
	stuck := make(chan struct{}, 10)
	var calls atomic.Int32
	one := start(t, st, func(ctx context.Context, _ executor.Env, do string) (any, error) {
		calls.Add(1)
		if do == "299x" {
			stuck <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return do, nil
	}, func(c *executor.Config) { c.Grace = 1 })
	id := one.submit(`
settings: {checkpoint: {fixed: 20}}
steps:
- id: chain
  for: {items: '{{ range(300) }}'}
  action: probe
  with: {do: '{{ item }}x'}
outputs: {v: '{{ chain.results }}'}`, nil)
	<-stuck
	one.await("a snapshot", func() bool {
		run, err := st.Run(context.Background(), id)
		return err == nil && run.Checkpoint > 500
	})
	one.stop()
	c := &tallying{Store: st}
	two := start(t, c, func(_ context.Context, _ executor.Env, do string) (any, error) { calls.Add(1); return do, nil })
	run, v := two.wait(id)
	list, _ := run.Outputs["v"].([]any)
	if run.Status != pipeline.RunCompleted || len(list) != 300 || list[299] != "299x" || list[0] != "0x" {
		t.Fatalf("%s %d %v", run.Status, len(list), run.Error)
	}
	if n := calls.Load(); n != 301 {
		t.Errorf("%d calls were made for 300 steps of which one was under way", n)
	}
	if s := v.Step("chain[299]"); s.Attempt != 2 {
		t.Errorf("the step in flight ended with attempt %d", s.Attempt)
	}
}

// What a step takes on disk does not depend on how long its run is.
func TestStoragePerStepIsConstant(t *testing.T) {
	perStep := func(items int) float64 {
		st := storetest.Open(t)
		e := start(t, st, nil)
		id := e.submit(longRun("", items), nil)
		e.status(id, pipeline.RunWaiting)
		bytes := int64(0)
		for ev, err := range st.Events(t.Context(), id, 0) {
			if err != nil {
				t.Fatal(err)
			}
			bytes += int64(len(pipeline.AppendData(nil, &ev.Data)) + len(ev.Path) + len(ev.Type))
			if ev.Data.Snapshot != nil {
				bytes += ev.Data.Snapshot.Size
			}
		}
		return float64(bytes) / float64(items)
	}
	short, long := perStep(2000), perStep(20000)
	if long > 1.5*short {
		t.Errorf("a step of a long run takes %.0f bytes, one of a short run %.0f", long, short)
	}
}
