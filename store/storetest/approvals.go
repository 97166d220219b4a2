package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// question is an open approval of a run.
func question(r *pipeline.Run, kind pipeline.ApprovalKind) *pipeline.Approval {
	return &pipeline.Approval{
		ID: pipeline.NewApprovalID(), Run: r.ID, Pipeline: r.Pipeline, Path: "deploy[2]/confirm", Kind: kind,
		Question: "Deploy?", Status: pipeline.ApprovalOpen, CreatedAt: instant(3),
	}
}

func ask(t testing.TB, l store.Lane, list ...*pipeline.Approval) {
	t.Helper()
	commit(t, l, &store.Batch{Ask: list})
}

func approval(t testing.TB, s store.Store, id pipeline.ApprovalID) *pipeline.Approval {
	t.Helper()
	a, err := s.Approval(t.Context(), id)
	if err != nil {
		t.Fatalf("read approval: %v", err)
	}
	return a
}

func approvalsReadBack(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	least := 1.5
	full := question(r, pipeline.ApprovalAsk)
	full.Question, full.Pipeline = "größe? <b>\x00\xff</b>", "de\x00mo"
	full.Choices = []any{int64(1), 1.0, "a", nil, []any{true}, map[string]any{"k": 2.0}}
	full.Schema = &pipeline.Type{
		Kind: "map", Additional: true, Description: "what to do", Schema: map[string]any{"minimum": 2.0},
		Properties: []pipeline.Property{
			{Name: "n", Type: pipeline.Type{Kind: "number", Min: &least}, Default: 3.0},
			{Name: "e", Type: pipeline.Type{Kind: "enum", Values: []any{int64(1), 2.0, "x"}}, Required: true},
			{Name: "l", Type: pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "enum", Values: []any{1.0}}}},
			{Name: "u", Type: pipeline.Type{Kind: "union", By: "kind", Cases: []pipeline.Case{
				{Tag: "a", Fields: []pipeline.Property{{Name: "f", Type: pipeline.Type{Kind: "integer"}, Default: int64(4)}}},
			}}},
		},
	}
	full.Default = map[string]any{"n": 1.0, "e": int64(1)}
	full.Assignees, full.Quorum, full.Deadline, full.OnTimeout = []string{"ann", "bob"}, 2, instant(9), "default"
	plain := question(r, pipeline.ApprovalApprove)
	ask(t, l, full, plain)
	full.Question, full.Pipeline = "größe? <b>\x00\ufffd</b>", "de\ufffdmo" // as text columns and JSON keep them
	other := h.Again(t, s)
	equal(t, "full", approval(t, other, full.ID), full)
	equal(t, "plain", approval(t, other, plain.ID), plain)
	_, err := s.Approval(t.Context(), pipeline.NewApprovalID())
	wantKind(t, err, pipeline.NotFound)
	_, err = s.Approval(t.Context(), "x")
	wantKind(t, err, pipeline.NotFound)
}

func listApprovals(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	first, second := submit(t, l, pipeline.RunRunning), submit(t, l, pipeline.RunRunning)
	var all []pipeline.ApprovalID // oldest first
	for i := range 7 {
		a := question([]*pipeline.Run{first, second}[i%2], pipeline.ApprovalApprove)
		ask(t, l, a)
		all = append(all, a.ID)
	}
	if _, err := s.Decide(t.Context(), all[3], pipeline.Decision{Decision: "approve", Actor: "ann"}); err != nil {
		t.Fatal(err)
	}
	commit(t, l, &store.Batch{Withdraw: []pipeline.ApprovalID{all[4]}})
	pick := func(at ...int) (list []pipeline.ApprovalID) {
		for _, i := range at {
			list = append(list, all[i])
		}
		return list
	}
	for _, c := range []struct {
		name string
		q    store.ApprovalQuery
		want []pipeline.ApprovalID
		more bool
	}{
		{"all", store.ApprovalQuery{}, pick(6, 5, 4, 3, 2, 1, 0), false},
		{"first page", store.ApprovalQuery{Limit: 3}, pick(6, 5, 4), true},
		{"next page", store.ApprovalQuery{Limit: 3, Before: all[4]}, pick(3, 2, 1), true},
		{"last page", store.ApprovalQuery{Limit: 3, Before: all[1]}, pick(0), false},
		{"open", store.ApprovalQuery{Status: pipeline.ApprovalOpen}, pick(6, 5, 2, 1, 0), false},
		{"open, older", store.ApprovalQuery{Status: pipeline.ApprovalOpen, Before: all[5], Limit: 2}, pick(2, 1), true},
		{"decided", store.ApprovalQuery{Status: pipeline.ApprovalDecided}, pick(3), false},
		{"withdrawn", store.ApprovalQuery{Status: pipeline.ApprovalWithdrawn}, pick(4), false},
		{"of a run", store.ApprovalQuery{Run: second.ID}, pick(5, 3, 1), false},
		{"open of a run", store.ApprovalQuery{Run: second.ID, Status: pipeline.ApprovalOpen, Limit: 1}, pick(5), true},
		{"of nobody", store.ApprovalQuery{Run: pipeline.NewRunID()}, nil, false},
	} {
		p, err := s.Approvals(t.Context(), c.q)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var got []pipeline.ApprovalID
		for _, a := range p.Approvals {
			got = append(got, a.ID)
		}
		equal(t, c.name, got, c.want)
		if p.More != c.more {
			t.Errorf("%s: more is %v", c.name, p.More)
		}
	}
	_, err := s.Approvals(t.Context(), store.ApprovalQuery{Before: "x"})
	wantKind(t, err, pipeline.Invalid)
}

func asksOnce(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	decided, withdrawn := question(r, pipeline.ApprovalApprove), question(r, pipeline.ApprovalApprove)
	b := &store.Batch{
		Append: []store.Append{{Run: r.ID, Events: steps(2, 3)}},
		Ask:    []*pipeline.Approval{decided, withdrawn},
	}
	commit(t, l, b)
	commit(t, l, b)
	if _, err := s.Decide(t.Context(), decided.ID, pipeline.Decision{Decision: "approve", Actor: "ann"}); err != nil {
		t.Fatal(err)
	}
	w := &store.Batch{Withdraw: []pipeline.ApprovalID{decided.ID, withdrawn.ID}}
	for _, b := range []*store.Batch{w, w, b} {
		commit(t, l, b)
	}
	if a := approval(t, s, decided.ID); a.Status != pipeline.ApprovalDecided || len(a.Decisions) != 1 {
		t.Errorf("a settled approval became %+v", a)
	}
	if a := approval(t, s, withdrawn.ID); a.Status != pipeline.ApprovalWithdrawn {
		t.Errorf("the withdrawn approval is %s", a.Status)
	}
	_, err := s.Decide(t.Context(), withdrawn.ID, pipeline.Decision{Decision: "approve", Actor: "ann"})
	wantKind(t, err, pipeline.Conflict)
}

func decides(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	a := question(r, pipeline.ApprovalAsk)
	a.Quorum = 2
	b := parkFor(r, time.Now().Add(time.Hour))
	b.Ask = []*pipeline.Approval{a}
	commit(t, l, b)

	say := func(actor string) pipeline.Decision {
		return pipeline.Decision{Decision: "answer", Value: 2.0, Comment: "so be it", Actor: actor, At: instant(5)}
	}
	got, err := other.Decide(t.Context(), a.ID, say("ann"))
	if err != nil || got.Status != pipeline.ApprovalOpen || len(got.Decisions) != 1 {
		t.Fatalf("the first of two: %+v, %v", got, err)
	}
	equal(t, "read after the first", approval(t, s, a.ID), got)
	inbox := func() []store.Message {
		t.Helper()
		list, err := s.Inbox(t.Context(), []pipeline.RunID{r.ID})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if n := len(inbox()) + len(claim(t, l, 1)); n != 0 {
		t.Error("a decision that does not settle the approval wakes the run")
	}
	for _, c := range []struct {
		d    pipeline.Decision
		kind pipeline.ErrorKind
	}{
		{say("ann"), pipeline.Conflict},
		{pipeline.Decision{Decision: "approve", Actor: "bob"}, pipeline.Invalid},
	} {
		_, err := s.Decide(t.Context(), a.ID, c.d)
		wantKind(t, err, c.kind)
	}
	got, err = s.Decide(t.Context(), a.ID, say("bob"))
	if err != nil || got.Status != pipeline.ApprovalDecided || !got.DecidedAt.Equal(instant(5)) {
		t.Fatalf("the second of two: %+v, %v", got, err)
	}
	want := say("bob")
	want.Approval = a.ID
	equal(t, "decision", got.Decisions[1], want)
	equal(t, "read after the second", approval(t, other, a.ID), got)

	runs := claim(t, l, 10)
	equal(t, "claimed", ids(runs), []pipeline.RunID{r.ID})
	list := inbox()
	if len(list) != 1 || list[0].Kind != store.MessageDecision || list[0].Actor != "bob" {
		t.Fatalf("inbox %+v", list)
	}
	d, err := pipeline.DecodeDecision(list[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "message", *d, want)
	_, err = s.Decide(t.Context(), a.ID, say("carol"))
	wantKind(t, err, pipeline.Conflict)
	_, err = s.Decide(t.Context(), pipeline.NewApprovalID(), say("carol"))
	wantKind(t, err, pipeline.NotFound)

	// The deadline is a decider like others, of a run that is owned here.
	late := question(r, pipeline.ApprovalApprove)
	ask(t, l, late)
	got, err = s.Decide(t.Context(), late.ID, pipeline.Decision{Decision: "fail", Actor: pipeline.DeadlineActor})
	if err != nil || got.Status != pipeline.ApprovalExpired || got.DecidedAt.IsZero() {
		t.Errorf("after the deadline: %+v, %v", got, err)
	}
	equal(t, "read after the deadline", approval(t, s, late.ID), got)
	if n := len(inbox()); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
	if runs := claim(t, l, 10); len(runs) != 0 {
		t.Errorf("an owned run was queued: %v", ids(runs))
	}
}

func oneDecisionWins(t *testing.T, h Harness) {
	s := h.Open(t)
	stores := []store.Store{s, h.Again(t, s)}
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	const rounds, deciders = 15, 4
	for round := range rounds {
		a, both := question(r, pipeline.ApprovalApprove), question(r, pipeline.ApprovalApprove)
		both.Quorum = 2
		b := parkFor(r, time.Time{})
		b.Ask = []*pipeline.Approval{a, both}
		var mu sync.Mutex
		won := make(map[pipeline.ApprovalID]int)
		var wg sync.WaitGroup
		commit(t, l, b)
		for i := range deciders {
			wg.Go(func() {
				for _, x := range []*pipeline.Approval{a, both} {
					got, err := stores[i%2].Decide(t.Context(), x.ID, pipeline.Decision{Decision: "approve", Actor: fmt.Sprint("p", i)})
					if err != nil {
						wantKind(t, err, pipeline.Conflict)
						continue
					}
					mu.Lock()
					won[x.ID]++
					mu.Unlock()
					if n := len(got.Decisions); n == 0 || got.Decisions[n-1].Actor != fmt.Sprint("p", i) {
						t.Errorf("the winner gets %+v", got.Decisions)
					}
				}
			})
		}
		wg.Wait()
		if won[a.ID] != 1 || won[both.ID] != 2 {
			t.Fatalf("round %d: %d and %d decisions won, want 1 and 2", round, won[a.ID], won[both.ID])
		}
		inbox, err := s.Inbox(t.Context(), []pipeline.RunID{r.ID})
		if err != nil || len(inbox) != 2*(round+1) {
			t.Fatalf("round %d: %d messages, %v", round, len(inbox), err)
		}
		if runs := claim(t, l, 10); len(runs) != 1 {
			t.Fatalf("round %d: %d claims, want 1", round, len(runs))
		}
	}
}

// finishWithdraws ends runs while people decide: an approval is settled with
// its message told, or withdrawn.
func finishWithdraws(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	r, kept := submit(t, l, pipeline.RunRunning), submit(t, l, pipeline.RunRunning)
	open, settled, others := question(r, pipeline.ApprovalApprove), question(r, pipeline.ApprovalApprove), question(kept, pipeline.ApprovalApprove)
	late := question(r, pipeline.ApprovalApprove)
	ask(t, l, open, settled, others)
	if _, err := s.Decide(t.Context(), settled.ID, pipeline.Decision{Decision: "reject", Actor: "ann"}); err != nil {
		t.Fatal(err)
	}
	r.Status, r.FinishedAt = pipeline.RunCancelled, instant(5)
	commit(t, l, &store.Batch{Ask: []*pipeline.Approval{late}, Finish: []store.Finish{{Run: r}}})
	for a, want := range map[*pipeline.Approval]pipeline.ApprovalStatus{
		open: pipeline.ApprovalWithdrawn, late: pipeline.ApprovalWithdrawn, settled: pipeline.ApprovalDecided, others: pipeline.ApprovalOpen,
	} {
		if got := approval(t, s, a.ID); got.Status != want {
			t.Errorf("approval is %s, want %s", got.Status, want)
		}
	}
	_, err := s.Decide(t.Context(), open.ID, pipeline.Decision{Decision: "approve", Actor: "ann"})
	wantKind(t, err, pipeline.Conflict)

	for range 15 {
		r := submit(t, l, pipeline.RunRunning)
		a := question(r, pipeline.ApprovalApprove)
		ask(t, l, a)
		r.Status = pipeline.RunCancelled
		var wg sync.WaitGroup
		var decided error
		wg.Go(func() {
			_, decided = s.Decide(t.Context(), a.ID, pipeline.Decision{Decision: "approve", Actor: "ann"})
		})
		_, err := l.Commit(t.Context(), &store.Batch{Withdraw: []pipeline.ApprovalID{a.ID}, Finish: []store.Finish{{Run: r}}})
		wg.Wait()
		if err != nil {
			t.Fatalf("finish: %v", err)
		}
		want := pipeline.ApprovalDecided
		if decided != nil {
			wantKind(t, decided, pipeline.Conflict)
			want = pipeline.ApprovalWithdrawn
		}
		if got := approval(t, s, a.ID); got.Status != want {
			t.Errorf("decide gave %v, and the approval is %s", decided, got.Status)
		}
		if inbox, err := s.Inbox(t.Context(), []pipeline.RunID{r.ID}); err != nil || len(inbox) != 0 {
			t.Errorf("a finished run has %d messages, %v", len(inbox), err)
		}
	}
}

func approvalBells(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	heard := make(chan store.Bell, 64)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = other.Listen(ctx, func(b store.Bell) {
			if b.All || b.Approvals {
				heard <- b
			}
		})
	})
	defer wg.Wait()
	defer stop()
	<-heard // it listens
	first, second := question(r, pipeline.ApprovalApprove), question(r, pipeline.ApprovalApprove)
	for what, do := range map[string]func(){
		"asked": func() { ask(t, l, question(r, pipeline.ApprovalApprove), first, second) },
		"decided": func() {
			a := question(r, pipeline.ApprovalApprove)
			ask(t, l, a)
			<-heard
			if _, err := s.Decide(t.Context(), a.ID, pipeline.Decision{Decision: "approve", Actor: "ann"}); err != nil {
				t.Error(err)
			}
		},
		"withdrawn": func() { commit(t, l, &store.Batch{Withdraw: []pipeline.ApprovalID{first.ID}}) },
	} {
		do()
		select {
		case <-heard:
		case <-time.After(2 * time.Minute):
			t.Errorf("%s: nothing heard", what)
		}
	}
	r.Status = pipeline.RunFailed
	commit(t, l, &store.Batch{Finish: []store.Finish{{Run: r}}})
	select {
	case <-heard:
	case <-time.After(2 * time.Minute):
		t.Error("withdrawn with their run: nothing heard")
	}
}
