package executor_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// scheduled is a pipeline whose runs wait for a signal.
const scheduled = `
name: scheduled
inputs: {n: 1}
steps:
  - {id: hold, wait: {signal: go}}
outputs: {at: "{{ run.scheduled_at }}", n: "{{ n }}"}
`

// register makes the pipeline known under its id.
func (e *engine) register(src string) {
	e.t.Helper()
	sub := e.submission(src, nil)
	ctx := context.Background()
	if err := e.store.PutPlan(ctx, store.Plan{Digest: sub.PlanDigest, Source: sub.Source, Compiled: sub.Compiled, Format: sub.Plan.Format}); err != nil {
		e.t.Fatal(err)
	}
	if err := e.store.PutPipeline(ctx, store.Pipeline{ID: sub.Plan.ID, Version: sub.Plan.Version, Name: sub.Plan.Name, PlanDigest: sub.PlanDigest}); err != nil {
		e.t.Fatal(err)
	}
}

// thisMinute is the fire time of an every-minute schedule that has just come.
func (e *engine) thisMinute() time.Time {
	e.t.Helper()
	now, err := e.store.Clock(context.Background())
	if err != nil {
		e.t.Fatal(err)
	}
	return now.Truncate(time.Minute)
}

// schedule stores a schedule that comes every minute and is due for the given fire,
// also where a new minute has begun before anybody looks.
func (e *engine) schedule(overlap string, next time.Time, change ...func(*pipeline.Schedule)) *pipeline.Schedule {
	e.t.Helper()
	s := &pipeline.Schedule{
		ID: "each-minute", Pipeline: "scheduled", Cron: []string{"* * * * *"}, Overlap: overlap, CatchUp: pipeline.CatchUpAll, CatchUpFrom: time.Hour, Next: next, Due: next,
		Inputs: map[string]any{"n": int64(7)}, Labels: map[string]string{"team": "x"},
	}
	for _, c := range change {
		c(s)
	}
	if err := e.store.CreateSchedule(context.Background(), s); err != nil {
		e.t.Fatal(err)
	}
	return s
}

// due makes the schedule fire at a time, as if no other had come since.
func (e *engine) due(id string, at time.Time) {
	e.t.Helper()
	for {
		s, err := e.store.Schedule(context.Background(), id)
		if err != nil {
			e.t.Fatal(err)
		}
		s.Next, s.Due = at, at
		err = e.store.UpdateSchedule(context.Background(), s)
		if err == nil {
			return
		}
		if pipeline.KindOf(err) != pipeline.Conflict {
			e.t.Fatal(err)
		}
	}
}

// fires waits until the fires of a schedule, oldest first, are in these states,
// of which a test may name fewer than there are once the next minute has come.
func (e *engine) fires(id string, want ...pipeline.FireState) []pipeline.Fire {
	e.t.Helper()
	var list []pipeline.Fire
	e.await("the fires to be "+strings.Join(words(want), ", "), func() bool {
		var err error
		if list, err = e.store.Fires(context.Background(), store.FireQuery{Schedule: id}); err != nil {
			e.t.Fatal(err)
		}
		slices.Reverse(list)
		if len(list) < len(want) {
			return false
		}
		for i, state := range want {
			if list[i].State != state {
				return false
			}
		}
		return true
	})
	return list[:len(want)]
}

func words(states []pipeline.FireState) []string {
	var texts []string
	for _, s := range states {
		texts = append(texts, string(s))
	}
	return texts
}

// until ends a schedule after a fire, so that the minute that a test may see begin
// brings none.
func until(end time.Time) func(*pipeline.Schedule) {
	return func(s *pipeline.Schedule) { s.End = end }
}

func TestAScheduleFiresOncePerTime(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Run("over two executors", func(t *testing.T) {
				s := open(t)
				a, b := start(t, s, nil), start(t, s, nil)
				a.register(scheduled)
				const n = 12
				at := a.thisMinute()
				var all sync.WaitGroup
				for i := range n {
					all.Go(func() {
						a.schedule(pipeline.OverlapAllow, at, until(at), func(s *pipeline.Schedule) { s.ID += string(rune('a' + i)) })
					})
				}
				all.Wait()
				for i := range n {
					id := "each-minute" + string(rune('a'+i))
					f := b.fires(id, pipeline.FireStarted)[0]
					run, err := s.Run(t.Context(), f.Run)
					if err != nil || !f.At.Equal(at) {
						t.Fatalf("the fire is %+v, %v", f, err)
					}
					if run.Labels[pipeline.LabelSchedule] != id || run.Labels[pipeline.LabelFire] != at.Format(time.RFC3339) || run.Labels["team"] != "x" || run.Inputs["n"] != int64(7) {
						t.Errorf("the run has labels %v and inputs %v", run.Labels, run.Inputs)
					}
				}
				page, err := s.Runs(t.Context(), store.Query{Limit: 100})
				if err != nil || len(page.Runs) != n {
					t.Errorf("there are %d runs of %d fires, %v", len(page.Runs), n, err)
				}
				a.signal(page.Runs[0].ID, "go", nil)
				if run, _ := a.wait(page.Runs[0].ID); run.Outputs["at"] != at.Format(time.RFC3339) || run.Outputs["n"] != int64(7) {
					t.Errorf("the run gave %v", run.Outputs)
				}
			})

			t.Run("over a crash between submission and advance", func(t *testing.T) {
				s := open(t)
				crash := &crashing{Store: s}
				a := start(t, crash, nil)
				a.register(scheduled)
				at := a.thisMinute()
				a.schedule(pipeline.OverlapSkip, at, until(at))
				a.await("the crash", func() bool { return crash.crashed.Load() })
				a.stop()
				b := start(t, s, nil)
				b.due("each-minute", at) // its holder's time is over
				f := b.fires("each-minute", pipeline.FireStarted)[0]
				page, err := s.Runs(t.Context(), store.Query{Limit: 100})
				if err != nil || len(page.Runs) != 1 || page.Runs[0].ID != f.Run {
					t.Errorf("there are %d runs, %v; the fire names %s", len(page.Runs), err, f.Run)
				}
			})
		})
	}
}

// crashing is a store whose user dies before a schedule moves on.
type crashing struct {
	store.Store
	crashed atomic.Bool
}

func (c *crashing) AdvanceSchedule(context.Context, *pipeline.Schedule, []pipeline.Fire) error {
	c.crashed.Store(true)
	return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "crash", Text: "the process is gone"}
}

func TestOverlapsOfRuns(t *testing.T) {
	s := storetest.Open(t)
	e := start(t, s, nil)
	e.register(scheduled)
	at := e.thisMinute().Add(-2 * time.Minute)
	old := func(s *pipeline.Schedule) { // made-up fires, so that a test decides when each comes
		s.End = at
	}
	later := func(id string, k int) {
		sch, err := s.Schedule(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		sch.End = at.Add(time.Duration(k) * time.Minute)
		sch.Next, sch.Due = sch.End, sch.End
		if err := s.UpdateSchedule(t.Context(), sch); err != nil {
			t.Fatal(err)
		}
	}
	named := func(id string) func(*pipeline.Schedule) { return func(s *pipeline.Schedule) { s.ID = id } }

	e.schedule(pipeline.OverlapSkip, at, old, named("skip"))
	first := e.fires("skip", pipeline.FireStarted)[0].Run
	e.settled("skip")
	later("skip", 1)
	if f := e.fires("skip", pipeline.FireStarted, pipeline.FireSkipped)[1]; f.Reason == "" || f.Run != "" {
		t.Errorf("the skipped fire is %+v", f)
	}
	e.signal(first, "go", nil)
	e.wait(first)
	e.settled("skip")
	later("skip", 2)
	e.fires("skip", pipeline.FireStarted, pipeline.FireSkipped, pipeline.FireStarted)

	e.schedule(pipeline.OverlapQueue, at, old, named("queue"))
	first = e.fires("queue", pipeline.FireStarted)[0].Run
	e.settled("queue")
	later("queue", 1)
	e.fires("queue", pipeline.FireStarted, pipeline.FireBuffered)
	e.settled("queue")
	later("queue", 2)
	e.fires("queue", pipeline.FireStarted, pipeline.FireBuffered, pipeline.FireSkipped)
	e.settled("queue")
	e.signal(first, "go", nil) // its end starts the one that waits
	e.fires("queue", pipeline.FireStarted, pipeline.FireStarted, pipeline.FireSkipped)

	e.schedule(pipeline.OverlapCancel, at, old, named("cancel"))
	first = e.fires("cancel", pipeline.FireStarted)[0].Run
	e.settled("cancel")
	later("cancel", 1)
	second := e.fires("cancel", pipeline.FireStarted, pipeline.FireStarted)[1].Run
	if run, _ := e.wait(first); run.Status != pipeline.RunCancelled {
		t.Errorf("the run before is %s", run.Status)
	}
	e.status(second, pipeline.RunWaiting)
}

// settled waits until nobody holds a schedule.
func (e *engine) settled(id string) {
	e.t.Helper()
	e.await("schedule "+id+" to be advanced", func() bool {
		s, err := e.store.Schedule(context.Background(), id)
		if err != nil {
			e.t.Fatal(err)
		}
		now, err := e.store.Clock(context.Background())
		if err != nil {
			e.t.Fatal(err)
		}
		return s.Next.IsZero() && (s.Due.IsZero() || s.Due.After(now.Add(45*time.Second)))
	})
}

func TestBackfillRepeatsNothing(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			var now, most atomic.Int32
			probe := func(context.Context, executor.Env, string) (any, error) {
				n := now.Add(1)
				defer now.Add(-1)
				for {
					m := most.Load()
					if n <= m || most.CompareAndSwap(m, n) {
						return nil, nil
					}
				}
			}
			e := start(t, s, probe)
			other := start(t, s, probe)
			e.register("name: scheduled\nsteps:\n  - {id: a, action: probe, parameters: {do: x}}\n")
			at := e.thisMinute().Add(-24 * time.Hour)
			e.schedule(pipeline.OverlapSkip, time.Time{}, func(s *pipeline.Schedule) { s.Inputs, s.Due = nil, time.Time{} })
			var times []time.Time
			for i := range 9 {
				times = append(times, at.Add(time.Duration(i)*time.Minute))
			}
			for _, part := range [][]time.Time{times[:6], times, times[2:5]} {
				if _, err := s.Backfill(t.Context(), "each-minute", part, 2); err != nil {
					t.Fatal(err)
				}
			}
			other.await("the backfill's end", func() bool {
				sch, err := s.Schedule(context.Background(), "each-minute")
				return err == nil && !sch.Waiting
			})
			var runs []pipeline.RunID
			for i, f := range e.fires("each-minute", slices.Repeat([]pipeline.FireState{pipeline.FireStarted}, 9)...) {
				if !f.At.Equal(times[i]) || !f.Backfill || f.Open {
					t.Errorf("fire %d is %+v", i, f)
				}
				runs = append(runs, f.Run)
			}
			if !slices.IsSorted(runs) {
				t.Errorf("the runs were not made in the order of their times: %v", runs)
			}
			page, err := s.Runs(t.Context(), store.Query{Limit: 100})
			if err != nil || len(page.Runs) != 9 {
				t.Errorf("there are %d runs, %v", len(page.Runs), err)
			}
			for _, run := range page.Runs {
				if run.Labels[pipeline.LabelBackfill] != "true" {
					t.Errorf("the labels are %v", run.Labels)
				}
			}
			if most.Load() > 2 {
				t.Errorf("%d runs were under way at once", most.Load())
			}
		})
	}
}

// TestAFireThatCannotRunIsRecorded holds that a schedule whose inputs no longer
// fit says so and goes on.
func TestAFireThatCannotRunIsRecorded(t *testing.T) {
	s := storetest.Open(t)
	e := start(t, s, nil)
	at := e.thisMinute()
	e.schedule(pipeline.OverlapSkip, at, until(at))
	if f := e.fires("each-minute", pipeline.FireFailed)[0]; !strings.Contains(f.Reason, "no pipeline scheduled") {
		t.Errorf("the reason is %q", f.Reason)
	}
	e.register(scheduled)
	e.schedule(pipeline.OverlapSkip, at, until(at), func(s *pipeline.Schedule) { s.ID, s.Inputs = "misfit", map[string]any{"m": int64(1)} })
	if f := e.fires("misfit", pipeline.FireFailed)[0]; !strings.Contains(f.Reason, `no input "m"`) {
		t.Errorf("the reason is %q", f.Reason)
	}
	e.settled("misfit")
}

// TestTheStoresClockFires holds that a replica whose own clock is wrong fires when
// the store's says so: neither before nor long after.
func TestTheStoresClockFires(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 3 * time.Hour, "behind": -3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := storetest.Open(t)
			e := start(t, s, nil, func(c *executor.Config) { c.Now = func() time.Time { return time.Now().Add(off) } })
			e.register(scheduled)
			at := e.thisMinute()
			e.schedule(pipeline.OverlapSkip, at.Add(time.Hour), func(s *pipeline.Schedule) { s.ID = "later" })
			e.schedule(pipeline.OverlapSkip, at, until(at))
			e.fires("each-minute", pipeline.FireStarted)
			if list := e.fires("later"); len(list) != 0 {
				t.Errorf("it fired an hour early: %+v", list)
			}
		})
	}
}
