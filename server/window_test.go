package server

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

const longLoop = `id: long
steps:
  - id: first
    set: {x: 1}
  - id: outer
    for: {items: "{{ range(3) }}"}
    steps:
      - id: inner
        for: {items: "{{ range(2) }}", parallel: 2}
        steps:
          - {id: work, action: debug, with: {message: "{{ item }}"}}
      - {id: after, action: debug, with: {message: done}}
`

// long drives a run of longLoop by the machine to its end: each outer pass has so
// many inner ones. The state is saved at the given numbers of records.
func (f *fixture) long(inner int, saves ...int32) pipeline.RunID {
	f.t.Helper()
	resp, err := f.runs().CreateRun(f.t.Context(), &orchestratorv1.CreateRunRequest{Source: longLoop})
	if err != nil {
		f.t.Fatal(err)
	}
	id := pipeline.RunID(resp.GetId())
	run, err := f.st.Run(f.t.Context(), id)
	if err != nil {
		f.t.Fatal(err)
	}
	plan, err := f.srv.planOf(f.t.Context(), run.PlanDigest)
	if err != nil {
		f.t.Fatal(err)
	}
	m := pipeline.NewMachine(plan, *run)
	var gathered []pipeline.Event
	tell := func(typ pipeline.EventType, path pipeline.Path, attempt int32, d pipeline.Data) {
		e := pipeline.Event{Seq: m.Seq + 1, Type: typ, Path: path, Attempt: attempt, At: time.Unix(1e9+int64(m.Seq), 0).UTC(), Data: d}
		if m.Seq < 2 { // these were written with the run
			e.At = run.CreatedAt
		}
		if err := m.Apply(&e); err != nil {
			f.t.Fatal(err)
		}
		if m.Seq > 2 {
			gathered = append(gathered, e)
		}
	}
	tell(pipeline.RunCreated, "", 0, pipeline.Data{})
	tell(pipeline.RunStarted, "", 0, pipeline.Data{})
	for !m.Run.Status.Final() {
		for _, t := range m.Next() {
			if len(saves) > 0 && m.Seq >= saves[0] {
				saves = saves[1:]
				s := m.Snapshot()
				b := s.Encode()
				part, err := f.st.PutBlob(f.t.Context(), id, b)
				if err != nil {
					f.t.Fatal(err)
				}
				tell(pipeline.Checkpoint, "", 0, pipeline.Data{Snapshot: &pipeline.SnapshotRef{Covers: s.Seq, Size: int64(len(b)), Parts: []pipeline.Digest{part}}})
			}
			d := pipeline.Data{}
			if t.Def != nil {
				d.Kind = t.Def.Kind
			}
			switch {
			case t.Kind == pipeline.TaskFinish:
				tell(pipeline.RunFinished, "", 0, pipeline.Data{RunStatus: t.RunStatus})
			case t.Kind == pipeline.TaskClose:
				tell(pipeline.StepFinished, t.Path, 1, pipeline.Data{Status: t.Status, Output: t.Output})
			case t.Def.Loop != nil:
				d.Items = make([]any, 3)
				if t.Path != "outer" {
					d.Items = make([]any, inner)
				}
				tell(pipeline.StepStarted, t.Path, 1, d)
			default:
				tell(pipeline.StepStarted, t.Path, 1, d)
				tell(pipeline.StepFinished, t.Path, 1, pipeline.Data{Status: pipeline.StepCompleted, Output: fmt.Sprintf("of %s", t.Path)})
			}
		}
	}
	f.engine.add(id, gathered...)
	return id
}

// What viewers see does not depend on where the fold of a run begins: pages of
// steps from any place, and events after any.
func TestFoldsThatBeginWithASnapshotShowTheSame(t *testing.T) {
	f := start(t)
	id := f.long(1500, 3000, 8000)
	run, err := f.st.Run(t.Context(), id)
	if err != nil || run.Checkpoint < 8000 {
		t.Fatalf("%v %v", run, err)
	}
	late := newHub(f.st, f.srv.log, 1<<30, func(*pipeline.Event) {})
	late.plan = f.srv.planOf
	whole := newHub(f.st, f.srv.log, 1<<30, func(*pipeline.Event) {})
	read := func(h *hub, from, n int) (list []*orchestratorv1.Step, total int) {
		t.Helper()
		r, err := h.open(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer h.release(r)
		if err := r.catchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		total, err = r.steps(t.Context(), from, n, func(s *pipeline.Step) bool {
			list = append(list, fromStep(s))
			return len(list) < n
		})
		if err != nil {
			t.Fatal(err)
		}
		return list, total
	}
	before := f.st.events.Load()
	read(late, 0, 100)
	if n := f.st.events.Load() - before; n > 6500 {
		t.Errorf("%d records were read for the first page of a run with %d", n, run.Checkpoint)
	}
	for _, from := range []int{0, 2, 500, 1503, 1504, 3000, 3900, 4300, 4508, 9000, 1, 900} {
		got, n := read(late, from, 150)
		want, m := read(whole, from, 150)
		if n != m {
			t.Errorf("%d steps in all, want %d", n, m)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatalf("from step %d:\n%s", from, diff)
		}
	}
	events := func(h *hub, after int32) (list []*orchestratorv1.Event) {
		t.Helper()
		r, err := h.open(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer h.release(r)
		for len(list) < 700 {
			some, err := r.next(t.Context(), after, always)
			if err != nil {
				t.Fatal(err)
			}
			if len(some) == 0 {
				return list
			}
			list = append(list, some...)
			after = some[len(some)-1].GetSeq()
		}
		return list[:700]
	}
	for _, after := range []int32{0, 5000, 511, run.Checkpoint - 1, run.Checkpoint, run.Checkpoint + 5, 1500} {
		if diff := cmp.Diff(events(whole, after), events(late, after), protocmp.Transform()); diff != "" {
			t.Fatalf("after %d:\n%s", after, diff)
		}
	}
}

// A snapshot that cannot be read is done without.
func TestFoldsDoWithoutALostSnapshot(t *testing.T) {
	f := start(t)
	id := f.long(50, 200)
	f.srv.hub.plan = func(context.Context, pipeline.Digest) (*pipeline.Plan, error) {
		return nil, &pipeline.Error{Kind: pipeline.NotFound, Text: "no plan"}
	}
	f.st.Ring(store.Bell{All: true}) // what this process has kept of the run
	resp, err := f.runs().ListSteps(t.Context(), &orchestratorv1.ListStepsRequest{Id: string(id), PageSize: 10})
	if err != nil || len(resp.GetSteps()) != 10 || resp.GetSteps()[0].GetPath() != "first" {
		t.Errorf("%v, %v", resp, err)
	}
}
