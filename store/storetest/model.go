package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const unowned = -1

// modelRun is what the store must know of a run.
type modelRun struct {
	run    *pipeline.Run
	owner  int  // index of the lane, or unowned
	begun  bool // some lane has owned it
	woken  bool // parked, and its time has come or a message is there
	inbox  []store.MessageID
	events []pipeline.Event
}

// model drives two lanes with random batches, sends some of them again as a
// lane in doubt does, and compares the store with what must have happened.
func model(t *testing.T, h Harness) {
	s := h.Open(t)
	lanes := []store.Lane{openLane(t, s, "a"), openLane(t, s, "b")}
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		m := &modelStore{t: t, rt: rt, s: s, lanes: lanes, round: round, keys: make(map[string]*modelRun)}
		for range rapid.IntRange(1, 12).Draw(rt, "operations") {
			switch rapid.IntRange(0, 6).Draw(rt, "operation") {
			case 0, 1:
				m.claim(rapid.IntRange(0, 1).Draw(rt, "lane"), rapid.IntRange(0, 4).Draw(rt, "n"))
			case 2:
				m.tell()
			default:
				m.commit(rapid.IntRange(0, 1).Draw(rt, "lane"))
			}
		}
		m.claim(0, 1000)
		m.compare()
		m.claimParked()
		// Leave an empty queue and no owned runs to the next round.
		for i := range lanes {
			b := new(store.Batch)
			for _, r := range m.owned(i) {
				m.finish(b, r, pipeline.RunCancelled)
			}
			m.send(i, b)
		}
		m.compare()
	})
}

type modelStore struct {
	t     *testing.T
	rt    *rapid.T
	s     store.Store
	lanes []store.Lane
	round int
	runs  []*modelRun
	keys  map[string]*modelRun
}

func (m *modelStore) owned(lane int) []*modelRun {
	var list []*modelRun
	for _, r := range m.runs {
		if r.owner == lane && !r.run.Status.Final() {
			list = append(list, r)
		}
	}
	return list
}

func (m *modelStore) commit(lane int) {
	b := new(store.Batch)
	owned := m.owned(lane) // before this batch
	want := m.creates(lane, b)
	for _, r := range owned {
		if n := rapid.IntRange(0, 4).Draw(m.rt, "events"); n > 0 {
			m.append(b, r, n)
		}
		if len(r.inbox) > 0 && rapid.Bool().Draw(m.rt, "consume") {
			b.Consume = append(b.Consume, r.inbox[0])
			r.inbox = r.inbox[1:]
		}
		switch rapid.IntRange(0, 7).Draw(m.rt, "fate") {
		case 0:
			m.finish(b, r, pipeline.RunStatuses[rapid.IntRange(2, len(pipeline.RunStatuses)-1).Draw(m.rt, "status")])
		case 1:
			b.Yield = append(b.Yield, r.run.ID)
			r.run.Status, r.owner = pipeline.RunQueued, unowned
		case 2, 3:
			m.park(b, r)
		}
	}
	res := m.send(lane, b)
	if d := gocmp.Diff(want, res.Creates, cmpopts.EquateEmpty()); d != "" {
		m.rt.Fatalf("result differs (-want +got):\n%s", d)
	}
}

func (m *modelStore) creates(lane int, b *store.Batch) []store.CreateResult {
	var want []store.CreateResult
	for range rapid.IntRange(0, 3).Draw(m.rt, "creates") {
		c := created(newRun(rapid.SampledFrom([]pipeline.RunStatus{pipeline.RunQueued, pipeline.RunRunning}).Draw(m.rt, "status")))
		c.Run.Priority = int32(rapid.IntRange(-1, 1).Draw(m.rt, "priority"))
		r := &modelRun{run: c.Run, owner: unowned, events: c.Events}
		if c.Run.Status == pipeline.RunRunning {
			r.owner, r.begun = lane, true
		}
		if k := rapid.IntRange(0, 4).Draw(m.rt, "key"); k > 0 {
			c.IdempotencyKey = fmt.Sprintf("%d/%d", m.round, k)
			c.RequestDigest = pipeline.Digest(fmt.Sprint("sha256:", rapid.IntRange(0, 1).Draw(m.rt, "request")))
		}
		stored := *c.Run // the model's copy changes later in this batch
		c.Run = &stored
		b.Create = append(b.Create, c)
		first := m.keys[c.IdempotencyKey]
		if c.IdempotencyKey != "" && first != nil {
			want = append(want, store.CreateResult{Existing: first.run.ID, Mismatch: first.run.Reason != string(c.RequestDigest)})
			continue
		}
		if c.IdempotencyKey != "" {
			m.keys[c.IdempotencyKey] = r
			r.run.Reason, stored.Reason = string(c.RequestDigest), string(c.RequestDigest)
		}
		m.runs = append(m.runs, r)
		want = append(want, store.CreateResult{})
	}
	return want
}

func (m *modelStore) append(b *store.Batch, r *modelRun, n int) {
	last := int32(len(r.events))
	list := steps(last+1, last+int32(n))
	r.events = append(r.events, list...)
	b.Append = append(b.Append, store.Append{Run: r.run.ID, Events: list})
}

func (m *modelStore) finish(b *store.Batch, r *modelRun, status pipeline.RunStatus) {
	r.run.Status = status
	if status.Final() {
		r.owner = unowned
		r.run.FinishedAt = instant(100)
	}
	r.run.Usage.Steps = int32(len(r.events))
	stored := *r.run
	b.Finish = append(b.Finish, store.Finish{Run: &stored})
}

// park frees a run until a message comes, for an hour, or for no time at all.
func (m *modelStore) park(b *store.Batch, r *modelRun) {
	wake := rapid.SampledFrom([]time.Duration{0, time.Hour, -time.Hour}).Draw(m.rt, "wake")
	r.run.Status, r.owner = pipeline.RunWaiting, unowned
	r.woken = wake < 0 || len(r.inbox) > 0
	stored := *r.run
	p := store.Park{Run: &stored}
	if wake != 0 {
		p.Wake = time.Now().Add(wake)
	}
	b.Park = append(b.Park, p)
}

// tell sends a message to some run.
func (m *modelStore) tell() {
	if len(m.runs) == 0 {
		return
	}
	r := rapid.SampledFrom(m.runs).Draw(m.rt, "run")
	id := store.MessageID(pipeline.NewRunID())
	err := m.s.Send(m.t.Context(), r.run.ID, store.Message{ID: id, Kind: store.MessageSignal})
	if final := r.run.Status.Final(); final != (err != nil) {
		m.rt.Fatalf("send to a run that is %s: %v", r.run.Status, err)
	} else if final {
		return
	}
	r.inbox = append(r.inbox, id)
	if r.run.Status == pipeline.RunWaiting && r.owner == unowned {
		r.woken = true
	}
}

// claimParked takes what nothing has woken, by name.
func (m *modelStore) claimParked() {
	for _, r := range m.runs {
		if r.run.Status != pipeline.RunWaiting || r.owner != unowned {
			continue
		}
		got, err := m.lanes[0].ClaimRun(m.t.Context(), r.run.ID)
		if err != nil {
			m.rt.Fatalf("claim a parked run: %v", err)
		}
		r.owner, r.run.StartedAt = 0, got.StartedAt
	}
	if p, err := m.s.Heartbeat(m.t.Context(), "a"); err != nil || p.Queued || !p.NextDue.IsZero() {
		m.rt.Fatalf("everything is claimed, but the pulse is %+v, %v", p, err)
	}
}

func (m *modelStore) send(lane int, b *store.Batch) store.Result {
	var res store.Result
	for range 1 + rapid.IntRange(0, 2).Draw(m.rt, "resends") {
		var err error
		if res, err = m.lanes[lane].Commit(m.t.Context(), b); err != nil {
			m.rt.Fatalf("commit: %v", err)
		}
	}
	return res
}

func (m *modelStore) claim(lane, n int) {
	var queue []*modelRun
	for _, r := range m.runs {
		if r.run.Status == pipeline.RunQueued || r.run.Status == pipeline.RunWaiting && r.owner == unowned && r.woken {
			queue = append(queue, r)
		}
	}
	slices.SortFunc(queue, func(a, b *modelRun) int {
		first := 0 // who is under way
		switch {
		case a.begun && !b.begun:
			first = -1
		case b.begun && !a.begun:
			first = 1
		}
		return cmp.Or(cmp.Compare(b.run.Priority, a.run.Priority), first, cmp.Compare(a.run.ID, b.run.ID))
	})
	queue = queue[:min(n, len(queue))]
	got, err := m.lanes[lane].Claim(m.t.Context(), n)
	if err != nil {
		m.rt.Fatalf("claim: %v", err)
	}
	if len(got) != len(queue) {
		m.rt.Fatalf("claimed %d runs, want %d", len(got), len(queue))
	}
	for i, r := range queue {
		if got[i].ID != r.run.ID {
			m.rt.Fatalf("claim %d is run %s, want %s", i, got[i].ID, r.run.ID)
		}
		if r.run.Status == pipeline.RunQueued {
			r.run.Status = pipeline.RunRunning
		}
		r.owner, r.begun, r.woken, r.run.StartedAt = lane, true, false, got[i].StartedAt
	}
}

func (m *modelStore) compare() {
	for _, r := range m.runs {
		got, err := m.s.Run(m.t.Context(), r.run.ID)
		if err != nil {
			m.rt.Fatalf("read run: %v", err)
		}
		if d := gocmp.Diff(r.run, got, cmpopts.EquateEmpty()); d != "" {
			m.rt.Fatalf("run differs (-want +got):\n%s", d)
		}
		var list []pipeline.Event
		for e, err := range m.s.Events(m.t.Context(), r.run.ID, 0) {
			if err != nil {
				m.rt.Fatalf("read events: %v", err)
			}
			list = append(list, e)
		}
		if d := gocmp.Diff(r.events, list, cmpopts.EquateEmpty()); d != "" {
			m.rt.Fatalf("events differ (-want +got):\n%s", d)
		}
	}
}
