package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// scheduleOf is a schedule that is due since a minute.
func scheduleOf(t testing.TB, s store.Store, id string) *pipeline.Schedule {
	t.Helper()
	now := clock(t, s)
	return &pipeline.Schedule{
		ID: id, Name: "n\x00", Pipeline: "p", Version: "1.0", Inputs: map[string]any{"n": int64(9007199254740993), "l": []any{"ä", nil}},
		Labels: map[string]string{"team": "x"}, Priority: -3, Cron: []string{"0 6 * * 1", "@hourly"}, Zone: "Europe/Berlin",
		Overlap: pipeline.OverlapQueue, CatchUp: pipeline.CatchUpAll, CatchUpFrom: 90 * time.Minute, Jitter: 5 * time.Second,
		Start: now.Add(-time.Hour), End: now.Add(time.Hour), Next: now.Add(-time.Minute), Due: now.Add(-time.Minute),
	}
}

func clock(t testing.TB, s store.Store) time.Time {
	t.Helper()
	now, err := s.Clock(t.Context())
	if err != nil {
		t.Fatalf("read the clock: %v", err)
	}
	return now
}

func createSchedule(t testing.TB, s store.Store, sch *pipeline.Schedule) *pipeline.Schedule {
	t.Helper()
	if err := s.CreateSchedule(t.Context(), sch); err != nil {
		t.Fatalf("create schedule %s: %v", sch.ID, err)
	}
	return sch
}

func readSchedule(t testing.TB, s store.Store, id string) *pipeline.Schedule {
	t.Helper()
	got, err := s.Schedule(t.Context(), id)
	if err != nil {
		t.Fatalf("read schedule %s: %v", id, err)
	}
	return got
}

// takeOne takes the one schedule that is due.
func takeOne(t testing.TB, s store.Store) store.TakenSchedule {
	t.Helper()
	taken, err := s.TakeSchedules(t.Context(), 10, time.Minute)
	if err != nil || len(taken.List) != 1 {
		t.Fatalf("took %d schedules, %v; want one", len(taken.List), err)
	}
	return taken.List[0]
}

func fires(t testing.TB, s store.Store, id string) []pipeline.Fire {
	t.Helper()
	list, err := s.Fires(t.Context(), store.FireQuery{Schedule: id, Limit: 1000})
	if err != nil {
		t.Fatalf("list fires: %v", err)
	}
	return list
}

func schedules(t *testing.T, h Harness) {
	s := h.Open(t)
	want := createSchedule(t, s, scheduleOf(t, s, "nightly"))
	if want.Revision == 0 || want.CreatedAt.IsZero() {
		t.Errorf("the new schedule has revision %d and time %s", want.Revision, want.CreatedAt)
	}
	want.Name, want.Parallel = "n\ufffd", 1
	equal(t, "schedule", readSchedule(t, s, "nightly"), want)
	wantKind(t, s.CreateSchedule(t.Context(), scheduleOf(t, s, "nightly")), pipeline.Conflict)
	_, err := s.Schedule(t.Context(), "other")
	wantKind(t, err, pipeline.NotFound)

	stale := *want
	want.Inputs, want.Labels, want.Paused, want.Due, want.Next, want.Start, want.End = nil, nil, true, time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if err := s.UpdateSchedule(t.Context(), want); err != nil {
		t.Fatalf("update: %v", err)
	}
	equal(t, "updated schedule", readSchedule(t, s, "nightly"), want)
	wantKind(t, s.UpdateSchedule(t.Context(), &stale), pipeline.Conflict)
	stale.ID = "other"
	wantKind(t, s.UpdateSchedule(t.Context(), &stale), pipeline.NotFound)

	for _, id := range []string{"a", "z", "m"} {
		sch := scheduleOf(t, s, id)
		sch.Pipeline = "q"
		createSchedule(t, s, sch)
	}
	for _, q := range []struct {
		store.ScheduleQuery
		want []string
	}{
		{store.ScheduleQuery{}, []string{"a", "m", "nightly", "z"}},
		{store.ScheduleQuery{Limit: 2}, []string{"a", "m"}},
		{store.ScheduleQuery{After: "m", Limit: 2}, []string{"nightly", "z"}},
		{store.ScheduleQuery{Pipeline: "q", After: "a"}, []string{"m", "z"}},
	} {
		list, err := s.Schedules(t.Context(), q.ScheduleQuery)
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		var got []string
		for _, sch := range list {
			got = append(got, sch.ID)
		}
		equal(t, "list", got, q.want)
	}

	if _, err := s.Backfill(t.Context(), "a", []time.Time{instant(0)}, 2); err != nil {
		t.Fatalf("backfill: %v", err)
	}
	if err := s.DeleteSchedule(t.Context(), "a"); err != nil {
		t.Fatalf("delete: %v", err)
	}
	wantKind(t, s.DeleteSchedule(t.Context(), "a"), pipeline.NotFound)
	if list := fires(t, s, "a"); len(list) != 0 {
		t.Errorf("a deleted schedule has left %d fires", len(list))
	}
}

// firesOnce holds the transactions of a fire, and what a crash after each of them leaves.
func firesOnce(t *testing.T, h Harness) {
	s := h.Open(t)
	createSchedule(t, s, scheduleOf(t, s, "s"))
	if p := pulse(t, s, "a"); !p.Fires || p.FireIn != 0 {
		t.Errorf("a schedule is due, but the heartbeat says %+v", p)
	}
	one := takeOne(t, s)
	if again, err := s.TakeSchedules(t.Context(), 10, time.Minute); err != nil || len(again.List) != 0 {
		t.Errorf("a schedule that somebody has was handed out again: %d, %v", len(again.List), err)
	}
	if p := pulse(t, s, "a"); p.Fires || p.FireIn <= 0 || p.FireIn > time.Minute {
		t.Errorf("a schedule is held for a minute, but the heartbeat says %+v", p)
	}
	at := []time.Time{one.Next, one.Next.Add(time.Second), one.Next.Add(2 * time.Second)}
	fresh, err := s.DecideFires(t.Context(), "s", one.Revision, []pipeline.Fire{
		{At: at[0], State: pipeline.FirePending, Open: true}, {At: at[1], State: pipeline.FireSkipped, Reason: "overlap"}, {At: at[2], State: pipeline.FireBuffered, Open: true},
	})
	if err != nil || len(fresh) != 3 {
		t.Fatalf("decided %v, %v", fresh, err)
	}

	// Whoever decided has died. The next one finds what was decided, and cannot
	// decide it anew.
	holdPasses(t, s, "s")
	next := takeOne(t, s)
	if len(next.Open) != 2 || !next.Open[0].At.Equal(at[0]) || next.Open[0].State != pipeline.FirePending || next.Open[1].State != pipeline.FireBuffered {
		t.Fatalf("open are %+v", next.Open)
	}
	fresh, err = s.DecideFires(t.Context(), "s", next.Revision, []pipeline.Fire{{At: at[0], State: pipeline.FireSkipped}, {At: at[1], State: pipeline.FirePending, Open: true}})
	if err != nil || len(fresh) != 0 {
		t.Errorf("decided anew: %v, %v", fresh, err)
	}
	_, err = s.DecideFires(t.Context(), "s", one.Revision, []pipeline.Fire{{At: at[0].Add(time.Hour), State: pipeline.FirePending, Open: true}})
	wantKind(t, err, pipeline.Conflict)

	// The dead one was only slow: what it has submitted is recorded, but it does
	// not move the schedule.
	run := pipeline.NewRunID()
	slow := *one.Schedule
	slow.Next, slow.Due = at[2].Add(time.Hour), at[2].Add(time.Hour)
	wantKind(t, s.AdvanceSchedule(t.Context(), &slow, []pipeline.Fire{{At: at[0], State: pipeline.FireStarted, Run: run}}), pipeline.Conflict)
	list := fires(t, s, "s")
	if len(list) != 3 || list[2].Run != run || list[2].State != pipeline.FireStarted || list[2].Open || list[1].Reason != "overlap" || !list[0].Open {
		t.Fatalf("fires are %+v", list)
	}
	moved := *next.Schedule
	moved.Next, moved.Due, moved.LastFire, moved.LastRun, moved.Waiting = at[2].Add(time.Hour), at[2].Add(time.Hour), at[0], run, true
	if err := s.AdvanceSchedule(t.Context(), &moved, []pipeline.Fire{{At: at[0], State: pipeline.FireFailed, Reason: "late"}}); err != nil {
		t.Fatalf("advance: %v", err)
	}
	equal(t, "advanced schedule", readSchedule(t, s, "s"), &moved)
	if got := fires(t, s, "s")[2]; got.State != pipeline.FireStarted {
		t.Errorf("a fire that is settled became %s", got.State)
	}

	// The run that the buffered fire waits for ends.
	if woken, err := s.WakeSchedule(t.Context(), "s"); err != nil || !woken {
		t.Errorf("woken: %v, %v", woken, err)
	}
	if woken, err := s.WakeSchedule(t.Context(), "s"); err != nil || woken {
		t.Errorf("woken twice: %v, %v", woken, err)
	}
	last := takeOne(t, s)
	last.Waiting, last.Due = false, last.Next
	if err := s.AdvanceSchedule(t.Context(), last.Schedule, []pipeline.Fire{{At: at[2], State: pipeline.FireStarted, Run: pipeline.NewRunID()}}); err != nil {
		t.Fatalf("advance: %v", err)
	}
	if woken, err := s.WakeSchedule(t.Context(), "s"); err != nil || woken {
		t.Errorf("a schedule that waits for nothing was woken: %v, %v", woken, err)
	}
}

// holdPasses makes a schedule due whose holder has died.
func holdPasses(t testing.TB, s store.Store, id string) {
	t.Helper()
	sch := readSchedule(t, s, id)
	sch.Due = clock(t, s).Add(-time.Second)
	if err := s.UpdateSchedule(t.Context(), sch); err != nil {
		t.Fatalf("update: %v", err)
	}
}

// takenOnce holds that of several takers one gets a schedule.
func takenOnce(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	const n = 20
	for i := range n {
		createSchedule(t, s, scheduleOf(t, s, string(rune('a'+i))))
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			from := []store.Store{s, other}[i%2]
			for {
				taken, err := from.TakeSchedules(context.WithoutCancel(t.Context()), 3, time.Hour)
				if err != nil {
					t.Errorf("take: %v", err)
					return
				}
				if len(taken.List) == 0 {
					return
				}
				mu.Lock()
				for _, one := range taken.List {
					seen[one.ID]++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(seen) != n {
		t.Errorf("%d of %d schedules were taken", len(seen), n)
	}
	for id, k := range seen {
		if k != 1 {
			t.Errorf("%s was taken %d times", id, k)
		}
	}
}

func backfills(t *testing.T, h Harness) {
	s := h.Open(t)
	sch := scheduleOf(t, s, "s")
	sch.Due, sch.Next = time.Time{}, time.Time{}
	createSchedule(t, s, sch)
	_, err := s.Backfill(t.Context(), "none", []time.Time{instant(0)}, 1)
	wantKind(t, err, pipeline.NotFound)
	add := func(want int, seconds ...int) {
		t.Helper()
		var times []time.Time
		for _, n := range seconds {
			times = append(times, instant(n))
		}
		if n, err := s.Backfill(t.Context(), "s", times, 3); err != nil || n != want {
			t.Fatalf("a backfill of %v added %d, %v; want %d", seconds, n, err, want)
		}
	}
	add(4, 1, 2, 3, 4)
	add(1, 2, 3, 5)
	one := takeOne(t, s)
	if one.Parallel != 3 || !one.Waiting || len(one.Open) != 5 || !one.Open[0].Backfill || !one.Open[0].At.Equal(instant(1)) {
		t.Fatalf("the schedule is %+v, %+v", one.Schedule, one.Open)
	}
	one.Due, one.Waiting = clock(t, s).Add(time.Hour), true
	settled := []pipeline.Fire{
		{At: instant(1), State: pipeline.FireStarted, Run: pipeline.NewRunID(), Open: true},
		{At: instant(2), State: pipeline.FireFailed, Reason: "no such input"},
		{At: instant(3), State: pipeline.FireStarted, Run: pipeline.NewRunID()},
	}
	if err := s.AdvanceSchedule(t.Context(), one.Schedule, settled); err != nil {
		t.Fatalf("advance: %v", err)
	}
	add(1, 1, 2, 3, 4, 5) // only what has failed
	one = takeOne(t, s)
	var order []string
	for _, f := range one.Open {
		order = append(order, f.At.Sub(instant(0)).String()+string(f.State))
	}
	if want := []string{"1msstarted", "2mspending", "4mspending", "5mspending"}; !slices.Equal(order, want) {
		t.Errorf("open are %v, not %v", order, want)
	}
	page, err := s.Fires(t.Context(), store.FireQuery{Schedule: "s", Before: instant(4), Limit: 2})
	if err != nil || len(page) != 2 || !page[0].At.Equal(instant(3)) || page[0].Run == "" {
		t.Errorf("a page is %+v, %v", page, err)
	}

	// A paused schedule keeps its backfill for later.
	p := readSchedule(t, s, "s")
	p.Paused, p.Due = true, time.Time{}
	if err := s.UpdateSchedule(t.Context(), p); err != nil {
		t.Fatalf("pause: %v", err)
	}
	add(1, 6)
	if taken, err := s.TakeSchedules(t.Context(), 10, time.Minute); err != nil || len(taken.List) != 0 {
		t.Errorf("a paused schedule was handed out: %v", err)
	}
	p = readSchedule(t, s, "s")
	p.Paused = false
	if err := s.UpdateSchedule(t.Context(), p); err != nil {
		t.Fatalf("resume: %v", err)
	}
	if one := takeOne(t, s); len(one.Open) != 5 {
		t.Errorf("%d fires are open", len(one.Open))
	}
}

// firesAreForgotten holds that what a schedule did long ago takes no room.
func firesAreForgotten(t *testing.T, h Harness) {
	s := h.Open(t)
	createSchedule(t, s, scheduleOf(t, s, "s"))
	one := takeOne(t, s)
	old := one.Next.Add(-pipeline.FireRetention - time.Hour)
	if _, err := s.DecideFires(t.Context(), "s", one.Revision, []pipeline.Fire{
		{At: old, State: pipeline.FirePending, Open: true}, {At: old.Add(time.Second), State: pipeline.FireSkipped}, {At: one.Next, State: pipeline.FireSkipped},
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.AdvanceSchedule(t.Context(), one.Schedule, nil); err != nil {
		t.Fatal(err)
	}
	if list := fires(t, s, "s"); len(list) != 2 || !list[1].Open {
		t.Errorf("what is left is %+v", list)
	}
	if err := s.AdvanceSchedule(t.Context(), &pipeline.Schedule{ID: "none"}, nil); errors.Is(err, nil) {
		t.Error("an unknown schedule was advanced")
	}
}
