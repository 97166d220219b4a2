package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// driver answers a machine's tasks as an executor would, without templates:
// choose decides what a template would have said.
type driver struct {
	t      testingT
	plan   *pipeline.Plan
	m      *pipeline.Machine
	events []pipeline.Event
	choose func(what string, n int) int
	// running leaves, by path
	running map[pipeline.Path]pipeline.Task
	begun   map[pipeline.Path]int
	ended   map[pipeline.Path]bool
}

type testingT interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newDriver(t testingT, plan *pipeline.Plan, choose func(string, int) int) *driver {
	d := &driver{
		t: t, plan: plan, m: pipeline.NewMachine(plan, pipeline.Run{ID: "r"}), choose: choose,
		running: map[pipeline.Path]pipeline.Task{}, begun: map[pipeline.Path]int{}, ended: map[pipeline.Path]bool{},
	}
	d.record(pipeline.RunCreated, "", 0, pipeline.Data{})
	d.record(pipeline.RunStarted, "", 0, pipeline.Data{})
	return d
}

func (d *driver) record(typ pipeline.EventType, path pipeline.Path, attempt int32, data pipeline.Data) {
	d.t.Helper()
	e := pipeline.Event{Seq: d.m.Seq + 1, Type: typ, Path: path, Attempt: attempt, At: time.Unix(int64(d.m.Seq), 0).UTC(), Data: data}
	if typ == pipeline.StepFinished || typ == pipeline.StepWasSkipped {
		if d.ended[path] {
			d.t.Fatalf("step %s ends twice", path)
		}
		d.ended[path] = true
	}
	if err := d.m.Apply(&e); err != nil {
		d.t.Fatalf("apply: %v", err)
	}
	d.events = append(d.events, e)
}

// pump answers all tasks; leaves stay running until step ends one.
func (d *driver) pump() {
	for {
		tasks := d.m.Next()
		if len(tasks) == 0 {
			return
		}
		for i := range tasks {
			if t := &tasks[i]; d.m.Stands(t) {
				d.answer(t)
			}
		}
	}
}

func (d *driver) answer(t *pipeline.Task) {
	switch t.Kind {
	case pipeline.TaskSkip:
		d.record(pipeline.StepWasSkipped, t.Path, 0, pipeline.Data{Kind: t.Def.Kind, Reason: t.Reason})
	case pipeline.TaskPass:
		if d.choose("pass", 3) > 0 {
			d.record(pipeline.StateSet, t.PassPath(), 0, pipeline.Data{Pass: true})
		} else {
			d.m.EndLoop(t.Path)
		}
	case pipeline.TaskCollect:
		d.record(pipeline.StateSet, t.PassPath(), 0, pipeline.Data{Collected: int64(t.Index)})
	case pipeline.TaskClose:
		d.record(pipeline.StepFinished, t.Path, 1, pipeline.Data{Status: t.Status, Output: t.Output, Error: t.Failure, Reason: t.Reason})
	case pipeline.TaskFinish:
		d.record(pipeline.RunFinished, "", 0, pipeline.Data{RunStatus: t.RunStatus, Reason: t.Reason, Error: t.Failure})
	case pipeline.TaskBegin:
		d.begin(t)
	}
}

func (d *driver) begin(t *pipeline.Task) {
	data := pipeline.Data{Kind: t.Def.Kind}
	if d.m.Step(t.Path).Status == pipeline.StepPending && d.choose("condition", 8) == 0 {
		d.record(pipeline.StepWasSkipped, t.Path, 0, pipeline.Data{Kind: t.Def.Kind, Reason: pipeline.ReasonCondition})
		return
	}
	switch t.Def.Kind {
	case pipeline.KindSet:
		d.record(pipeline.StepFinished, t.Path, t.Attempt, pipeline.Data{Kind: t.Def.Kind, Status: pipeline.StepCompleted})
		return
	case pipeline.KindFor:
		data.Items = make([]any, d.choose("items", 5))
	case pipeline.KindIf:
		arm := d.choose("branch", len(t.Def.Branches)+1) - 1
		data.Branch = &arm
	case pipeline.KindAction, pipeline.KindCommand:
		if int32(d.begun[t.Path]) >= t.Attempt {
			d.t.Fatalf("attempt %d of %s begins twice", t.Attempt, t.Path)
		}
		d.begun[t.Path] = int(t.Attempt)
		d.running[t.Path] = *t
	case pipeline.KindWhile:
	}
	d.record(pipeline.StepStarted, t.Path, t.Attempt, data)
}

// end ends one running leaf, chosen; it reports false when none runs.
func (d *driver) end() bool {
	if len(d.running) == 0 {
		return false
	}
	paths := make([]string, 0, len(d.running))
	for p := range d.running {
		paths = append(paths, string(p))
	}
	sortStrings(paths)
	p := pipeline.Path(paths[d.choose("which", len(paths))])
	t := d.running[p]
	delete(d.running, p)
	if d.m.Step(p) == nil || d.m.Step(p).Status != pipeline.StepRunning {
		d.t.Fatalf("running step %s is %v", p, d.m.Step(p))
	}
	switch {
	case d.m.Aborting():
		d.record(pipeline.StepFinished, p, t.Attempt, pipeline.Data{Status: pipeline.StepCancelled, Reason: pipeline.ReasonCancelled})
	case d.choose("fails", 5) > 0:
		d.record(pipeline.StepFinished, p, t.Attempt, pipeline.Data{Status: pipeline.StepCompleted, Output: string(p)})
	case d.choose("retries", 2) == 0 && d.m.Tries(p) < 2:
		d.record(pipeline.StepRetrying, p, t.Attempt, pipeline.Data{Error: pipeline.Failuref("system", "x")})
	case t.Def.OnFailure == "skip":
		d.record(pipeline.StepFinished, p, t.Attempt, pipeline.Data{Status: pipeline.StepSkipped, Reason: pipeline.ReasonFailed})
	default:
		d.record(pipeline.StepFinished, p, t.Attempt, pipeline.Data{Status: pipeline.StepFailed, Error: pipeline.Failuref("failed", "x")})
	}
	return true
}

func sortStrings(s []string) {
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
}

// randomBody draws a body with edges to earlier steps only.
func randomBody(t *rapid.T, depth int, next *int) pipeline.Body {
	n := rapid.IntRange(1, 4).Draw(t, "steps")
	b := pipeline.Body{Order: "graph"}
	for i := range n {
		*next++
		s := &pipeline.StepDef{ID: fmt.Sprintf("s%d", *next)}
		kinds := []pipeline.Kind{pipeline.KindAction, pipeline.KindAction, pipeline.KindCommand, pipeline.KindSet}
		if depth > 0 {
			kinds = append(kinds, pipeline.KindFor, pipeline.KindWhile, pipeline.KindIf)
		}
		s.Kind = rapid.SampledFrom(kinds).Draw(t, "kind")
		s.OnFailure = rapid.SampledFrom([]string{"", "", "continue", "skip"}).Draw(t, "on_failure")
		for j := range i {
			if rapid.IntRange(0, 2).Draw(t, "edge") == 0 {
				s.Deps = append(s.Deps, pipeline.Dep{On: j, Cause: "declared"})
			}
		}
		switch s.Kind {
		case pipeline.KindFor, pipeline.KindWhile:
			s.Loop = &pipeline.Loop{
				Parallel:    rapid.SampledFrom([]int{0, 1, 2, -1}).Draw(t, "parallel"),
				OnItemError: rapid.SampledFrom([]string{"", "continue"}).Draw(t, "on_item_error"), Max: 3,
			}
			if s.Kind == pipeline.KindFor && rapid.Bool().Draw(t, "collect") {
				s.Loop.Collect = &pipeline.Template{}
			}
			if rapid.IntRange(0, 2).Draw(t, "single") == 0 {
				s.Loop.Single = true
				s.Loop.Body = pipeline.Body{Steps: []*pipeline.StepDef{{Kind: pipeline.KindAction}}}
			} else {
				s.Loop.Body = randomBody(t, depth-1, next)
			}
		case pipeline.KindIf:
			for range rapid.IntRange(1, 2).Draw(t, "branches") {
				s.Branches = append(s.Branches, pipeline.Branch{Body: randomBody(t, depth-1, next)})
			}
		}
		b.Steps = append(b.Steps, s)
	}
	return b
}

func randomPlan(t *rapid.T) *pipeline.Plan {
	next := 0
	p := &pipeline.Plan{Unit: pipeline.Unit{Root: randomBody(t, 2, &next)}}
	p.Settings.OnError = rapid.SampledFrom([]string{"", "stop", "abort", "continue"}).Draw(t, "on_error")
	if rapid.Bool().Draw(t, "has_finally") {
		p.Finally = randomBody(t, 1, &next)
	}
	return p
}

// Whatever the plan and the outcomes, a run ends, no step ends twice or begins
// before what it depends on, and the log alone tells the same story: folding
// any prefix of it and going on as a new owner also ends the run.
func TestMachineAlwaysEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := randomPlan(t)
		choose := func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) }
		d := newDriver(t, plan, choose)
		cancelAt := rapid.IntRange(0, 60).Draw(t, "cancel_at")
		crashes := rapid.IntRange(0, 5).Draw(t, "crashes")
		for n := 0; !d.m.Run.Status.Final(); n++ {
			d.pump()
			if d.m.Run.Status.Final() {
				break
			}
			if n == cancelAt {
				d.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: pipeline.SignalCancel})
				continue
			}
			if crashes > 0 && choose("crash", 6) == 0 {
				crashes--
				d = d.crash()
				continue
			}
			if !d.end() {
				t.Fatalf("the run stands still with status %s after %d events", d.m.Run.Status, len(d.events))
			}
			if n > 100000 {
				t.Fatalf("the run does not end")
			}
		}
		checkOrder(t, plan, d.events)
	})
}

// crash loses the process: the log is folded anew and the run resumed.
func (d *driver) crash() *driver {
	// A leaf begins when what it depends on is durable, but its own start may
	// not have been.
	keep := len(d.events)
	for d.events[keep-1].Type == pipeline.StepStarted && d.running[d.events[keep-1].Path].Def != nil && d.choose("lost", 2) == 0 {
		keep--
	}
	again := &driver{
		t: d.t, plan: d.plan, m: pipeline.NewMachine(d.plan, pipeline.Run{ID: "r"}), choose: d.choose,
		running: map[pipeline.Path]pipeline.Task{}, begun: map[pipeline.Path]int{}, ended: map[pipeline.Path]bool{},
	}
	for _, e := range d.events[:keep] {
		if e.Type == pipeline.StepFinished || e.Type == pipeline.StepWasSkipped {
			again.ended[e.Path] = true
		}
		text := pipeline.AppendData(nil, &e.Data)
		data, err := pipeline.DecodeData(text)
		if err != nil {
			d.t.Fatalf("decode: %v", err)
		}
		e.Data = data
		if err := again.m.Apply(&e); err != nil {
			d.t.Fatalf("fold: %v", err)
		}
		again.events = append(again.events, e)
	}
	// Attempts whose start was lost may have run all the same.
	for p, n := range d.begun {
		if again.m.Step(p) != nil {
			again.begun[p] = n
		}
	}
	again.record(pipeline.RunResumed, "", 0, pipeline.Data{Reason: pipeline.ReasonOwnerDied})
	return again
}

// checkOrder proves from the log that no root step began before the steps it
// depends on had ended.
func checkOrder(t testingT, plan *pipeline.Plan, events []pipeline.Event) {
	ended := map[pipeline.Path]bool{}
	byID := map[pipeline.Path]*pipeline.StepDef{}
	for _, s := range plan.Root.Steps {
		byID[pipeline.Path(s.ID)] = s
	}
	for _, e := range events {
		switch e.Type {
		case pipeline.StepStarted:
			if s := byID[e.Path]; s != nil {
				for _, dep := range s.Deps {
					if on := plan.Root.Steps[dep.On]; !ended[pipeline.Path(on.ID)] {
						t.Fatalf("%s began before %s ended", s.ID, on.ID)
					}
				}
			}
		case pipeline.StepFinished, pipeline.StepWasSkipped:
			ended[e.Path] = true
		}
	}
}

func TestRetryDelays(t *testing.T) {
	r := &pipeline.Retry{MaxAttempts: 3, Initial: time.Second, Jitter: "none"}
	for failed, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second} {
		if got, ok := r.Delay(pipeline.Failuref(pipeline.CategorySystem, "x"), failed, 0.5); !ok || got != want {
			t.Errorf("after %d failures: %v %v, want %v", failed, got, ok, want)
		}
	}
	if _, ok := r.Delay(pipeline.Failuref(pipeline.CategorySystem, "x"), 3, 0); ok {
		t.Error("the third failure of three attempts is repeated")
	}
	if _, ok := r.Delay(pipeline.Failuref(pipeline.CategoryFailed, "x"), 1, 0); ok {
		t.Error("a reported failure is repeated without being asked for")
	}
	f := pipeline.Failuref(pipeline.CategoryRateLimit, "x")
	f.RetryAfter = 7
	if got, ok := r.Delay(f, 1, 0); !ok || got != 7*time.Second {
		t.Errorf("Retry-After is not honoured: %v", got)
	}
}
