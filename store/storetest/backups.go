package storetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

func backup(t testing.TB, s store.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := store.WriteBackup(t.Context(), s, &b, nil); err != nil {
		t.Fatalf("back up: %v", err)
	}
	return b.Bytes()
}

func openBackup(t testing.TB, file []byte) (*store.Backup, error) {
	t.Helper()
	b, err := store.OpenBackup(t.Context(), bytes.NewReader(file), int64(len(file)))
	if err == nil {
		t.Cleanup(b.Close)
		err = b.Verify(t.Context(), nil)
	}
	return b, err
}

func restore(t testing.TB, s store.Store, file []byte) {
	t.Helper()
	b, err := openBackup(t, file)
	if err == nil {
		err = b.Restore(t.Context(), s, nil)
	}
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
}

// told is all that readers learn of a run.
type told struct {
	Run       *pipeline.Run
	Events    []pipeline.Event
	Logs      []store.LogChunk
	Approvals []*pipeline.Approval
	Inbox     []store.Message
}

func tell(t testing.TB, s store.Store, id pipeline.RunID) (all told) {
	t.Helper()
	all.Run, all.Events = read(t, s, id), events(t, s, id, 0)
	for c, err := range s.Logs(t.Context(), store.LogQuery{Run: id}) {
		if err != nil {
			t.Fatalf("read logs: %v", err)
		}
		all.Logs = append(all.Logs, c)
	}
	page, err := s.Approvals(t.Context(), store.ApprovalQuery{Run: id})
	if err != nil {
		t.Fatalf("read approvals: %v", err)
	}
	all.Approvals = page.Approvals
	if all.Inbox, err = s.Inbox(t.Context(), []pipeline.RunID{id}); err != nil {
		t.Fatalf("read the inbox: %v", err)
	}
	return all
}

// backups holds that a restored store tells what the one that was backed up told,
// and goes on, whichever of the two children either is.
func backups(t *testing.T, h Harness) {
	other := Harness{Open: func(t testing.TB) store.Store { return Open(t) }}
	for _, way := range []struct {
		name     string
		from, to Harness
	}{{"to its own kind", h, h}, {"to SQLite", h, other}, {"from SQLite", other, h}} {
		t.Run(way.name, func(t *testing.T) { roundTrip(t, way.from, way.to) })
	}
}

func roundTrip(t *testing.T, from, to Harness) {
	s := from.Open(t)
	l := openLane(t, s, "a")
	whole := Finished(t, s, 40)
	old := past(t, s, l, runOf(daysAgo(9)), true)
	flying := past(t, s, l, runOf(daysAgo(0)), false)
	queued := submit(t, l, pipeline.RunQueued)
	parked := submit(t, l, pipeline.RunRunning)
	rest := *parked
	rest.Status = pipeline.RunWaiting
	commit(t, l, &store.Batch{Park: []store.Park{{Run: &rest, Wake: time.Now().Add(time.Hour)}}})
	if err := s.Send(t.Context(), flying.ID, store.Message{Kind: store.MessageSignal, Body: []byte(`{"name":"x"}`), At: instant(4)}); err != nil {
		t.Fatalf("send: %v", err)
	}
	sch := scheduleOf(t, s, "nightly")
	createSchedule(t, s, sch)
	if _, err := s.Backfill(t.Context(), "nightly", []time.Time{instant(0), instant(1000)}, 1); err != nil {
		t.Fatalf("backfill: %v", err)
	}
	if err := s.PutPipeline(t.Context(), store.Pipeline{ID: "demo", Version: "1", Name: "Demo", PlanDigest: whole.PlanDigest, CreatedAt: instant(0)}); err != nil {
		t.Fatalf("register: %v", err)
	}
	spend := func(s store.Store) (told []any) { // what is told: the raise is new, and what stands
		t.Helper()
		if err := s.WithBudgets(t.Context(), []string{"day/2026-01-31"}, func(tx store.BudgetTx) error {
			told = nil
			fresh, err := tx.Raise(store.BudgetRaise{ID: "a", Key: "day/2026-01-31", By: pipeline.Amount{Calls: 2}, Actor: "ann"})
			if err != nil {
				return err
			}
			if fresh {
				err = errors.Join(
					tx.SetBudget(store.Budget{Key: "day/2026-01-31", Spent: pipeline.Amount{Tokens: 9, Calls: 3}, Taken: pipeline.Amount{Tokens: 12, Calls: 4}, Raised: pipeline.Amount{Calls: 2}}),
					tx.SetSlice(store.BudgetSlice{Key: "day/2026-01-31", Replica: "r1", Amount: pipeline.Amount{Tokens: 3, Calls: 1}, ExpiresAt: instant(60)}),
					tx.SetSpender(store.BudgetRun{Run: flying.ID, Replica: "r1", Keys: []string{"day/2026-01-31"}, Settled: pipeline.Amount{Calls: 3}}))
			}
			if err != nil {
				return err
			}
			b, err1 := tx.Budget("day/2026-01-31")
			slices, err2 := tx.Slices("day/2026-01-31")
			runs, err3 := tx.Spenders("r1")
			told = []any{b, slices, runs, fresh}
			return errors.Join(err1, err2, err3)
		}); err != nil {
			t.Fatalf("budget: %v", err)
		}
		return told
	}
	if told := spend(s); told[3] != true {
		t.Error("the raise is not new")
	}
	key, err := s.Key(t.Context(), "attempt")
	if err != nil {
		t.Fatalf("key: %v", err)
	}

	runs := []pipeline.RunID{whole.ID, old.ID, flying.ID, queued.ID, parked.ID}
	want := make([]told, len(runs))
	file := backup(t, s)
	for i, id := range runs {
		want[i] = tell(t, s, id)
	}
	want[2].Run.Status = pipeline.RunQueued // nobody owns it there

	r := to.Open(t)
	restore(t, r, file)
	for i, id := range runs {
		got := tell(t, r, id)
		equal(t, "run "+string(id), got, want[i])
	}
	equal(t, "schedule", readSchedule(t, r, "nightly"), readSchedule(t, s, "nightly"))
	equal(t, "fires", fires(t, r, "nightly"), fires(t, s, "nightly"))
	equal(t, "budget", spend(r), spend(s))
	if again, err := r.Key(t.Context(), "attempt"); err != nil || !bytes.Equal(again, key) {
		t.Errorf("the key is another, %v", err)
	}
	if blob, err := r.Blob(t.Context(), whole.ID, store.BlobDigest(store.NewBlob(0, []byte("content")).SHA)); err != nil || string(blob) != "content" {
		t.Errorf("the content reads %q, %v", blob, err)
	}
	if p, err := r.Plan(t.Context(), whole.PlanDigest); err != nil || string(p.Source) != "id: demo\n" {
		t.Errorf("the plan reads %+v, %v", p, err)
	}

	// The run that was in flight goes on, in a lane that is newer than any before.
	next := openLane(t, r, "b")
	if next.Epoch() <= l.Epoch() {
		t.Errorf("epoch %d follows %d", next.Epoch(), l.Epoch())
	}
	mine := claim(t, next, 9)
	if !slices.Contains(ids(mine), flying.ID) || !slices.Contains(ids(mine), queued.ID) || len(mine) != 2 {
		t.Fatalf("claimed %v", ids(mine))
	}
	more := step(3)
	commit(t, next, &store.Batch{Append: []store.Append{{Run: flying.ID, Events: []pipeline.Event{more}}}})
	if err := r.AppendLogs(t.Context(), []store.LogChunk{{Run: flying.ID, Path: "a", Attempt: 1, N: 2, At: instant(1), Stream: "stdout", Text: "more\n"}}); err != nil {
		t.Fatalf("append logs: %v", err)
	}
	if all := tell(t, r, flying.ID); len(all.Events) != 3 || len(all.Logs) != 2 || all.Logs[1].Text != "more\n" {
		t.Errorf("the run that went on has %d records and %d pieces of logs", len(all.Events), len(all.Logs))
	}
	if err := r.PutPipeline(t.Context(), store.Pipeline{ID: "demo", Version: "2", PlanDigest: whole.PlanDigest}); err != nil {
		t.Errorf("register another version: %v", err)
	}
	if err := r.Send(t.Context(), parked.ID, store.Message{Kind: store.MessageCancel}); err != nil {
		t.Errorf("send to the parked run: %v", err)
	}
	if got := claim(t, next, 9); len(got) != 1 || got[0].ID != parked.ID {
		t.Errorf("the parked run was not woken: %v", ids(got))
	}

	b, err := openBackup(t, file)
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, b.Restore(t.Context(), r, nil), pipeline.Conflict) // a lane is open
	if err := next.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantKind(t, b.Restore(t.Context(), r, nil), pipeline.Conflict) // it is not empty
}

// damagedBackups holds that nothing of a damaged file gets into a store.
func damagedBackups(t *testing.T, h Harness) {
	s := h.Open(t)
	Finished(t, s, 40)
	file := backup(t, s)
	if _, err := openBackup(t, file); err != nil {
		t.Fatalf("the whole file: %v", err)
	}
	flip := func(at int) []byte {
		bad := bytes.Clone(file)
		bad[at] ^= 0x10
		return bad
	}
	bad := map[string][]byte{
		"nothing": {}, "not a backup": bytes.Repeat([]byte("text"), 4096), "a header": flip(20), "the first part": flip(600), "the last block": flip(len(file) - 1),
		"the sum": flip(len(file) - 1500), "half": file[:len(file)/2/512*512], "all but a block": file[:len(file)-512], "a byte less": file[:len(file)-1],
		"something behind": append(bytes.Clone(file), make([]byte, 512)...),
	}
	for i := 0; i < len(file); i += max(1, len(file)/64) {
		bad["byte "+time.Duration(i).String()] = flip(i)
	}
	for name, text := range bad {
		_, err := openBackup(t, text)
		if pipeline.KindOf(err) != pipeline.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// backupsWithWriters holds that a backup is one moment, whatever is written meanwhile.
func backupsWithWriters(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	writing, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	began := make(chan struct{})
	all.Go(func() {
		for n := 0; writing.Err() == nil; n++ {
			r := newRun(pipeline.RunRunning)
			b := &store.Batch{Create: []store.Create{created(r)}}
			for seq := int32(2); seq < 40; seq++ {
				e := step(seq)
				if seq%10 == 0 {
					e.Data.Output = string(bytes.Repeat([]byte(r.ID), 100))
				}
				b.Create[0].Events = append(b.Create[0].Events, e)
			}
			if _, err := l.Commit(context.WithoutCancel(writing), b); err != nil {
				t.Errorf("commit: %v", err)
				return
			}
			if n == 5 {
				close(began)
			}
		}
	})
	<-began
	file := backup(t, s)
	stop()
	all.Wait()
	r := h.Open(t)
	restore(t, r, file)
	page, err := r.Runs(t.Context(), store.Query{Limit: 1000})
	if err != nil || len(page.Runs) < 6 {
		t.Fatalf("%d runs, %v", len(page.Runs), err)
	}
	for _, run := range page.Runs {
		if n := len(events(t, r, run.ID, 0)); n != 39 {
			t.Errorf("run %s has %d records", run.ID, n)
		}
	}
}
