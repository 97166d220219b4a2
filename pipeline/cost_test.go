package pipeline_test

import (
	"runtime"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// mill runs plans that only go well, and keeps nothing but what the machine
// does. Its work ends at once unless hold says how many steps run together.
type mill struct {
	m      *pipeline.Machine
	t      testing.TB
	items  []any
	log    func(e *pipeline.Event)
	passes func(done int) // called after each pass
	fails  func(path pipeline.Path) bool
	done   int
}

func newMill(t testing.TB, plan *pipeline.Plan, items int) *mill {
	t.Helper()
	w := &mill{m: pipeline.NewMachine(plan, pipeline.Run{ID: "r"}), t: t, items: make([]any, items)}
	return w
}

func (w *mill) apply(typ pipeline.EventType, path pipeline.Path, attempt int32, d pipeline.Data) {
	e := pipeline.Event{Seq: w.m.Seq + 1, Type: typ, Path: path, Attempt: attempt, Data: d}
	if w.log != nil {
		w.log(&e)
	}
	if err := w.m.Apply(&e); err != nil {
		w.t.Fatal(err)
	}
}

func (w *mill) run() {
	w.apply(pipeline.RunCreated, "", 0, pipeline.Data{})
	w.apply(pipeline.RunStarted, "", 0, pipeline.Data{})
	for !w.m.Run.Status.Final() {
		tasks := w.m.Next()
		if len(tasks) == 0 {
			w.t.Fatal("the run stands still")
		}
		var running []pipeline.Task
		for _, t := range tasks {
			switch {
			case !w.m.Stands(&t):
			case t.Kind == pipeline.TaskCollect:
				w.apply(pipeline.StateSet, t.PassPath(), 0, pipeline.Data{})
				if w.done++; w.passes != nil {
					w.passes(w.done)
				}
			case t.Kind == pipeline.TaskClose:
				w.apply(pipeline.StepFinished, t.Path, 1, pipeline.Data{Status: t.Status})
			case t.Kind == pipeline.TaskFinish:
				w.apply(pipeline.RunFinished, "", 0, pipeline.Data{RunStatus: t.RunStatus, Error: t.Failure})
			case t.Kind == pipeline.TaskSkip:
				w.apply(pipeline.StepWasSkipped, t.Path, 0, pipeline.Data{Reason: t.Reason})
			case t.Def.Loop != nil:
				w.apply(pipeline.StepStarted, t.Path, 1, pipeline.Data{Items: w.items})
			default:
				w.apply(pipeline.StepStarted, t.Path, 1, pipeline.Data{})
				if !t.Def.Block() {
					running = append(running, t)
				}
			}
		}
		for _, t := range running {
			status := pipeline.StepCompleted
			if w.fails != nil && w.fails(t.Path) {
				status = pipeline.StepFailed
			}
			w.apply(pipeline.StepFinished, t.Path, 1, pipeline.Data{Status: status})
		}
	}
	if w.m.Run.Status != pipeline.RunCompleted {
		w.t.Fatalf("the run is %s: %v", w.m.Run.Status, w.m.Run.Error)
	}
}

// wide is a loop over calls: what a pass opens and closes is a pipeline.
func wide(parallel int) *pipeline.Plan {
	sub := &pipeline.Unit{Root: sequence(act("a"), act("b"))}
	body := sequence(act("x"), call("c", 0))
	return planOf(graph(loop(pipeline.KindFor, "each", body, pipeline.Loop{Parallel: parallel, Collect: &pipeline.Template{}})), sub)
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// mallocs is how many objects are allocated while f runs.
func mallocs(f func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}

func TestALoopOver100000ItemsHoldsOnlyItsWindow(t *testing.T) {
	simple := loop(pipeline.KindFor, "each", graph(act("x")), pipeline.Loop{Parallel: -1, Collect: &pipeline.Template{}})
	for name, c := range map[string]struct {
		plan *pipeline.Plan
		n    int
	}{
		"in parallel":           {planOf(graph(simple)), 100_000},
		"one by one, with call": {wide(1), 10_000},
	} {
		w := newMill(t, c.plan, c.n)
		early := int64(0)
		w.passes = func(done int) {
			switch done {
			case c.n / 10:
				early = heap()
			case c.n - 2000:
				if grown := heap() - early; grown > 1<<20 {
					t.Errorf("%s: %d bytes more are held after %d passes than after %d", name, grown, done, c.n/10)
				}
				if w.m.Step("each[5]/x") != nil {
					t.Errorf("%s: a step of a pass that is over is held", name)
				}
			}
		}
		w.run()
	}
}

func TestFoldingALongLogHoldsOnlyTheState(t *testing.T) {
	const n = 20_000
	w := newMill(t, wide(4), n)
	again := pipeline.NewMachine(w.m.Plan, pipeline.Run{ID: "r"})
	early := int64(0)
	w.log = func(e *pipeline.Event) {
		if err := again.Apply(e); err != nil { // nobody asks it for tasks
			t.Fatal(err)
		}
	}
	w.passes = func(done int) {
		switch done {
		case n / 10:
			early = heap()
		case n - 100:
			if grown := heap() - early; grown > 2<<20 {
				t.Errorf("%d bytes more are held after %d passes than after %d", grown, done, n/10)
			}
		}
	}
	w.run()
}

func TestCostsGrowWithTheWork(t *testing.T) {
	for name, run := range map[string]func(n int){
		"items":            func(n int) { newMill(t, wide(1), n).run() },
		"items, parallel":  func(n int) { newMill(t, wide(-1), n).run() },
		"jumps back":       func(n int) { jumping(t, n).run() },
		"steps of a graph": func(n int) { newMill(t, planOf(layers(n)), 0).run() },
	} {
		t.Run(name, func(t *testing.T) {
			run(500) // what is allocated once
			small, large := mallocs(func() { run(2000) }), mallocs(func() { run(8000) })
			if large > 4.6*small {
				t.Errorf("four times the work costs %.1f times the objects", large/small)
			}
		})
	}
}

// jumping is a run that goes back n times.
func jumping(t testing.TB, n int) *mill {
	t.Helper()
	plan := planOf(sequence(act("a"), branches(pipeline.KindParallel, "p", graph(act("x"))), routed(act("b"), pipeline.Routes{Failure: new(0)}), act("c")))
	plan.Settings.MaxTransitions = n
	w := newMill(t, plan, 0)
	left := n
	w.fails = func(path pipeline.Path) bool {
		if path.ID() != "b" || left == 0 {
			return false
		}
		left--
		return true
	}
	return w
}

// layers is a graph of n steps, each of which depends on two before.
func layers(n int) pipeline.Body {
	b := graph()
	for i := range n {
		s := act("s" + item("", i)[1:len(item("", i))-1])
		for _, on := range []int{i - 1, i - 7} {
			if on >= 0 {
				dependsOn(s, on)
			}
		}
		b.Steps = append(b.Steps, s)
	}
	return b
}

func benchmark(b *testing.B, n int, w func() *mill) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		w().run()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/item")
}

// The time of an item stays the same however many there are.
func BenchmarkFor1000(b *testing.B) {
	benchmark(b, 1000, func() *mill { return newMill(b, wide(1), 1000) })
}

func BenchmarkFor100000(b *testing.B) {
	benchmark(b, 100_000, func() *mill { return newMill(b, wide(1), 100_000) })
}

func BenchmarkFor100000Parallel(b *testing.B) {
	benchmark(b, 100_000, func() *mill { return newMill(b, wide(-1), 100_000) })
}

func BenchmarkJumpBack1000(b *testing.B) {
	benchmark(b, 1000, func() *mill { return jumping(b, 1000) })
}

func BenchmarkJumpBack100000(b *testing.B) {
	benchmark(b, 100_000, func() *mill { return jumping(b, 100_000) })
}
