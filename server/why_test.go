package server

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// standings is a store whose runs stand where a test says, and have children.
type standings struct {
	store.Store
	change   func(*store.Standing)
	children []*pipeline.Run
}

func (s *standings) Standing(ctx context.Context, id pipeline.RunID) (*store.Standing, error) {
	st, err := s.Store.Standing(ctx, id)
	if err == nil && s.change != nil {
		s.change(st)
	}
	return st, err
}

func (s *standings) Runs(context.Context, store.Query) (store.Page, error) {
	return store.Page{Runs: s.children}, nil
}

type crews = Workers // by another name than its method

// lineUp stands in for who gives steps to workers.
type lineUp struct {
	crews
	line []pipeline.WorkerWant
	crew []pipeline.Worker
}

func (l *lineUp) InLine(pipeline.RunID, int) []pipeline.WorkerWant { return l.line }
func (l *lineUp) Workers() []pipeline.Worker                       { return l.crew }

func TestWhyARunIsWhereItIs(t *testing.T) {
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	waits := func(w pipeline.Waiting, reason string) []pipeline.Event {
		return []pipeline.Event{{Type: pipeline.StepIsWaiting, Path: "s", Attempt: 1, Data: pipeline.Data{Kind: pipeline.KindAction, Action: "debug", Reason: reason, Waiting: &w}}}
	}
	started := pipeline.Event{Type: pipeline.StepStarted, Path: "s", Attempt: 1, Data: pipeline.Data{Kind: pipeline.KindAction, Action: "debug"}}
	alive := map[store.ReplicaID]int{"other": 2}
	child := &pipeline.Run{ID: pipeline.NewRunID(), CreatedAt: time.Now()}
	s := &standings{}
	crew := &lineUp{}
	f := start(t, func(c *Config) { s.Store, c.Store, c.Workers = c.Store, s, crew })
	for _, c := range []struct {
		name     string
		events   []pipeline.Event
		status   pipeline.RunStatus // of the row; empty: RUNNING
		change   func(*store.Standing)
		line     []pipeline.WorkerWant
		children []*pipeline.Run
		want     []string // code, message and refs
		until    time.Time
	}{
		{
			name: "for a worker with labels", events: waits(pipeline.Waiting{For: pipeline.WaitWorker, Labels: []string{"gpu", "eu"}}, ""),
			want: []string{"no_worker: the step s waits for a worker with the labels gpu, eu that carries out debug; none is connected that could ever take it [step s]"},
		},
		{
			name: "for a worker that is busy", line: []pipeline.WorkerWant{{Path: "s", Labels: []string{"gpu"}, Action: "debug"}},
			want: []string{"worker_busy: the step s waits until a worker with the label gpu has room [step s, worker one]"},
		},
		{
			name: "for the next attempt", events: []pipeline.Event{started, {Type: pipeline.StepRetrying, Path: "s", Attempt: 1, Data: pipeline.Data{Due: at, Error: pipeline.Failuref(pipeline.CategoryTool, "no such host")}}},
			want: []string{"retry: the step s is tried again after a pause; attempt 1 failed: no such host [step s]"}, until: at,
		},
		{
			name: "for a decision", events: waits(pipeline.Waiting{For: "approval", Approval: "a1"}, pipeline.ReasonUnknown),
			want: []string{"needs_decision: the step s may run only once, and nobody knows whether it took effect; a person must decide approval a1 [step s, approval a1]"},
		},
		{
			name: "for an approval", events: waits(pipeline.Waiting{For: "approval", Approval: "a1"}, ""),
			want: []string{"approval: the step s waits for a person to decide approval a1 [step s, approval a1]"},
		},
		{
			name: "for a signal", events: waits(pipeline.Waiting{For: "signal", Signal: "go", Due: at}, ""),
			want: []string{"signal: the step s waits for the signal go [step s, signal go]"}, until: at,
		},
		{
			name: "for files", events: waits(pipeline.Waiting{For: "files", Files: "*.x"}, ""),
			want: []string{"files: the step s waits for files: *.x [step s]"},
		},
		{
			name: "for a time", events: waits(pipeline.Waiting{For: "timer", Due: at}, ""),
			want: []string{"timer: the step s waits for its time [step s]"}, until: at,
		},
		{
			name: "paused", status: pipeline.RunPaused, events: []pipeline.Event{{Type: pipeline.RunIsPaused, Data: pipeline.Data{Actor: "ann"}}},
			want: []string{"paused: the run was paused by ann"},
		},
		{
			name: "its server died", change: func(st *store.Standing) { st.Dead, st.Expires, st.Replicas = true, at, alive },
			want: []string{"owner_died: the server test that had the run is gone; another one takes the run when its lease is over [replica test]"}, until: at,
		},
		{
			name: "its server died long ago", change: func(st *store.Standing) { st.Dead, st.Expires, st.Replicas = true, at.Add(-2*time.Hour), alive },
			want: []string{"owner_died: the server test that had the run is gone; another one takes the run with its next heartbeat [replica test]"},
		},
		{
			name: "its server died, and there is no other", change: func(st *store.Standing) { st.Dead, st.Replicas = true, nil },
			want: []string{"owner_died: the server test that had the run is gone, and no other one is alive that could take it [replica test]"},
		},
		{
			name: "its server has it", change: func(st *store.Standing) { st.Expires = at },
			want: []string{"owned: the server test has the run and keeps it until its lease is over; it begins a step as soon as it has room [replica test]"}, until: at,
		},
		{
			name: "it is carried out", events: []pipeline.Event{started},
			want: []string{"running: steps are being carried out by the server test [step s, replica test]"},
		},
		{
			name: "it has children", events: []pipeline.Event{started}, children: []*pipeline.Run{child},
			want: []string{
				"running: steps are being carried out by the server test [step s, replica test]",
				fmt.Sprintf("children: 1 run that it began has not ended; it does not wait for them [run %s]", child.ID),
			},
		},
		{
			name:     "an agent waits for its child",
			events:   []pipeline.Event{{Type: pipeline.StepStarted, Path: "s", Attempt: 1, Data: pipeline.Data{Kind: started.Data.Kind, Action: pipeline.AgentAction}}},
			children: []*pipeline.Run{{ID: child.ID, Pipeline: "below", Status: pipeline.RunQueued, CreatedAt: child.CreatedAt}},
			want: []string{
				"running: steps are being carried out by the server test [step s, replica test]",
				fmt.Sprintf("children: 1 run that it began has not ended; its agents wait for those that their tools have begun [run %s]", child.ID),
				fmt.Sprintf("child_queued: the run %s of the pipeline below that it began has not started yet [run %s]", child.ID, child.ID),
			},
		},
		{
			name: "it waits for its turn", change: func(st *store.Standing) {
				st.Replica, st.Waits, st.Replicas, st.Ahead = "", true, alive, 1
				st.Queue = &store.Queue{Name: "q", Paused: &store.Pause{At: at, By: "bob"}}
				st.Pipeline = &store.Pause{At: at, By: "cid"}
				st.Run.StartedAt = time.Time{}
			},
			want: []string{
				"queue_paused: the queue q was paused by bob [queue q]",
				"pipeline_paused: the pipeline hello was paused by cid [pipeline hello]",
				"queued: the run stands in the queue q with priority 0; 1 run stands before it by age and fairness [queue q]",
				"replicas: the living servers (1) own 2 runs; one of them takes the run when it has room [replica other]",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.change, s.children, crew.line = nil, c.children, c.line
			crew.crew = []pipeline.Worker{
				{Name: "one", Labels: []string{"gpu"}, Status: pipeline.WorkerConnected},
				{Name: "two", Status: pipeline.WorkerConnected},
				{Name: "three", Labels: []string{"gpu"}, Status: pipeline.WorkerDraining},
			}
			id := f.create()
			f.engine.add(id, c.events...)
			s.change = func(st *store.Standing) {
				if c.status != "" {
					st.Run.Status = c.status
				}
				if c.change != nil {
					c.change(st)
				}
			}
			resp, err := f.runs().WhyRun(t.Context(), &orchestratorv1.WhyRunRequest{Id: string(id)})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, cause := range resp.GetCauses() {
				text, gap := cause.GetCode()+": "+cause.GetMessage(), " ["
				for _, r := range cause.GetRefs() {
					text += gap + r.GetKind() + " " + r.GetId()
					gap = ", "
				}
				if gap == ", " {
					text += "]"
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if u := resp.GetCauses()[0].GetUntil(); (u == nil) != c.until.IsZero() || u != nil && !u.AsTime().Equal(c.until) {
				t.Errorf("it is over at %v, want %v", u, c.until)
			}
		})
	}
}
