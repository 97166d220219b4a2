package pipeline_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func waitFor(id string, on ...int) *pipeline.StepDef {
	return with(kind(pipeline.KindWait, id, on...), func(s *pipeline.StepDef) { s.Wait = &pipeline.Wait{Signal: &pipeline.Field{Const: "s"}} })
}

func (d *driver) waits() []string {
	var out []string
	for _, w := range d.m.Waits() {
		out = append(out, string(w.Path)+" "+w.Waiting.For)
	}
	return out
}

func TestARunWaits(t *testing.T) {
	d := started(t, planOf(graph(act("a"), kind(pipeline.KindWait, "timer"), waitFor("signal", 1), kind(pipeline.KindAsk, "ask"))), nil)
	equalValue(t, any(d.waits()), any([]string{"timer timer", "ask approval"}))
	if d.m.Idle() {
		t.Error("a step runs and the run is idle")
	}
	if s := d.view.Step("ask"); s.Status != pipeline.StepWaiting || s.Reason != "approval" || s.Waiting.Approval != "ask" {
		t.Errorf("viewers see %+v", s)
	}
	d.endLeaf("a")
	if !d.m.Idle() {
		t.Error("all wait and the run is not idle")
	}
	if w := d.m.Waits()[0]; w.Due.IsZero() || w.Def.ID != "timer" || !w.Due.Equal(w.Waiting.Due) {
		t.Errorf("the timer waits as %+v", w)
	}
	d.endWait(d.m.Waits()[0])
	if d.m.Idle() {
		t.Error("a step may begin and the run is idle")
	}
	d.pump()
	equalValue(t, any(d.waits()), any([]string{"ask approval", "signal signal"}))
	d.finishRun()
	if s := d.view.Step("ask"); s.Waiting != nil || s.Status != pipeline.StepCompleted {
		t.Errorf("viewers see %+v", s)
	}
}

func TestARunIsNotIdleBeforeItStartsOrOnceItEnds(t *testing.T) {
	plan := planOf(graph(kind(pipeline.KindSet, "a")))
	d := fresh(t, plan, script{}.choose)
	if d.m.Idle() {
		t.Error("it has not started")
	}
	d.record(pipeline.RunCreated, "", 0, pipeline.Data{})
	d.record(pipeline.RunStarted, "", 0, pipeline.Data{})
	d.answerOne()
	if d.m.Idle() {
		t.Error("its end is not recorded yet")
	}
	d.finishRun()
	if d.m.Idle() || len(d.m.Waits()) > 0 {
		t.Error("it has ended")
	}
}

func TestSignalsAreKeptUntilAWaitTakesThem(t *testing.T) {
	d := started(t, planOf(sequence(act("a"), waitFor("one"), waitFor("two"), waitFor("three"))), nil)
	for _, v := range []any{int64(1), "x"} {
		d.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: "s", Value: v})
	}
	d.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: "other", Value: true})
	d.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: pipeline.SignalHandedOver})
	d = d.crash()
	d.pump()
	d.endLeaf("a")
	d.pump()
	equalValue(t, d.output("one"), any(int64(1)))
	equalValue(t, d.output("two"), any("x"))
	equalValue(t, any(d.waits()), any([]string{"three signal"}))
	if _, ok := d.m.Signal("s"); ok {
		t.Error("a signal is taken twice")
	}
	if v, ok := d.m.Signal("other"); !ok || v != true {
		t.Error("a signal of another name is gone")
	}
	if _, ok := d.m.Signal(pipeline.SignalHandedOver); ok {
		t.Error("what owners say to each other is a signal to steps")
	}
}

func TestAnAttemptThatWaitsForItsTimeIsAWait(t *testing.T) {
	d := started(t, planOf(graph(act("a"))), script{"fails a": fails, "retries a": 2})
	d.end()
	d.pump()
	if !d.m.Idle() {
		t.Error("only a delay is left and the run is not idle")
	}
	w := d.m.Waits()
	if len(w) != 1 || w[0].Waiting.For != pipeline.WaitRetry || w[0].Due.IsZero() {
		t.Fatalf("it waits as %+v", w)
	}
	due := w[0].Due
	d = d.park()
	tasks := d.m.Next()
	if len(tasks) != 1 || tasks[0].Attempt != 2 || tasks[0].Interrupted || !tasks[0].Due.Equal(due) {
		t.Fatalf("after it was woken it has to do %+v", tasks)
	}
	d.begin(&tasks[0])
	if d.m.Idle() || len(d.m.Waits()) > 0 {
		t.Error("the attempt has begun and the run waits still")
	}
	d.finishRun()
}

func TestWakingAsksForNothing(t *testing.T) {
	d := started(t, planOf(graph(kind(pipeline.KindAsk, "ask"), act("b", 0))), nil)
	d = d.park()
	if d.m.Run.Status != pipeline.RunRunning || d.m.Run.Reason != "" {
		t.Errorf("the run is %s %s", d.m.Run.Status, d.m.Run.Reason)
	}
	if tasks := d.m.Next(); len(tasks) > 0 {
		t.Errorf("it has to do %+v", tasks)
	}
	d.finishRun()
	if s := d.view.Step("b"); s.Attempt != 1 {
		t.Errorf("b ran as attempt %d", s.Attempt)
	}
}

func TestWhatWaitsIsSkippedWhenTheRunStops(t *testing.T) {
	plan := planOf(graph(kind(pipeline.KindAsk, "ask"), act("a"), act("b")))
	d := ran(t, plan, script{"fails a": fails, "which": 0})
	d.tells(t, "a FAILED\nask SKIPPED run_stopped\nb COMPLETED\nrun FAILED step_failed")

	// A failed attempt is not repeated once nothing new may start.
	plan = planOf(graph(act("a"), act("b")))
	ran(t, plan, script{"fails a": fails, "fails b": fails, "retries b": 2}).tells(t, "a FAILED\nb SKIPPED run_stopped\nrun FAILED step_failed")
}

func TestAnswersAreKeptWithTheirInstance(t *testing.T) {
	each := loop(pipeline.KindFor, "each", graph(act("x")), pipeline.Loop{})
	d := fresh(t, planOf(graph(act("a"), each)), script{"items each": 2}.choose)
	d.record(pipeline.RunCreated, "", 0, pipeline.Data{Answers: map[string]any{"a.style": "terse"}})
	d.record(pipeline.RunStarted, "", 0, pipeline.Data{})
	equalValue(t, any(d.m.Answers()), any(map[string]any{"a.style": "terse"}))
	d.record(pipeline.AutoResolved, "a", 0, pipeline.Data{Auto: &pipeline.Answer{Key: "style", Value: "terse", From: "answer"}})
	d.record(pipeline.AutoResolved, "a", 0, pipeline.Data{Auto: &pipeline.Answer{Key: "style#2", Value: int64(3), From: "fallback"}})
	d.pump()
	d.record(pipeline.AutoResolved, "each[0]/x", 0, pipeline.Data{Auto: &pipeline.Answer{Key: "n", Value: int64(1)}})
	d = d.crash()
	for key, want := range map[string]any{"style": "terse", "style#2": int64(3)} {
		if a := d.m.Answer("a", key); a == nil || a.Value != want {
			t.Errorf("%s is %+v", key, a)
		}
	}
	if a := d.m.Answer("each[0]/x", "n"); a == nil || a.Value != int64(1) {
		t.Errorf("the pass has %+v", a)
	}
	d.finishRun()
	if d.m.Answer("each[0]/x", "n") != nil {
		t.Error("the pass is over and its answers are kept")
	}
	if d.m.Answer("b", "style") != nil || d.m.Answer("a", "other") != nil {
		t.Error("there are answers that nobody gave")
	}
}

func TestArtifacts(t *testing.T) {
	sub := &pipeline.Unit{Root: graph(act("in"))}
	plan := planOf(sequence(act("make"), loop(pipeline.KindFor, "each", graph(act("use")), pipeline.Loop{}), call("sub", 0)), sub)
	d := started(t, plan, script{"items each": 2})
	one := pipeline.Version{Artifact: "report", Version: 1, Producer: "make", Value: "out/a.md"}
	delete(d.run, "make")
	d.record(pipeline.StepFinished, "make", 1, pipeline.Data{Status: pipeline.StepCompleted, Published: []pipeline.Version{one}})
	equalValue(t, any(d.view.Step("make").Artifacts), any([]pipeline.Version{one}))
	v, _ := d.m.Scope("each").Lookup("make")
	attr, _ := v.(interface{ Attr(string) (any, bool) }).Attr("artifacts")
	equalValue(t, attr, any([]any{map[string]any{"artifact": "report", "version": int64(1), "value": "out/a.md"}}))
	d.pump()

	use := pipeline.Path("each[0]/use")
	equalValue(t, any(d.m.Versions(use, "report")), any([]pipeline.Version{one}))
	if n := d.m.ConsumedBy(use, "report"); n != 0 {
		t.Errorf("version %d was consumed before anything was", n)
	}
	delete(d.run, use)
	consumed := pipeline.Data{Consumed: []pipeline.Version{one}}
	d.record(pipeline.StepRetrying, use, 1, pipeline.Data{Error: pipeline.Failuref("system", "x")})
	for attempt := range int32(2) { // what an attempt was handed is not stale to the next one
		d.m.Next()
		d.record(pipeline.StepStarted, use, attempt+2, consumed)
		if n := d.m.ConsumedBy(use, "report"); n != 0 {
			t.Errorf("in attempt %d version %d is said to be consumed before", attempt+2, n)
		}
		if attempt == 0 {
			d.record(pipeline.StepRetrying, use, attempt+2, pipeline.Data{Error: pipeline.Failuref("system", "x")})
		}
	}
	d.record(pipeline.StepFinished, use, 3, pipeline.Data{Status: pipeline.StepCompleted})
	d.pump()
	d = d.crash()
	d.pump()
	if n := d.m.ConsumedBy("each[1]/use", "report"); n != 1 {
		t.Errorf("the next instance is told of version %d", n)
	}
	d.endLeaf("each[1]/use")
	d.pump()
	if v := d.m.Versions("sub/in", "report"); len(v) > 0 {
		t.Errorf("a called pipeline sees %v", v)
	}
	if d.m.ConsumedBy("nowhere", "report") != 0 {
		t.Error("a step that is not there has consumed something")
	}
}

func TestViewersSeeARunWait(t *testing.T) {
	v := pipeline.NewView(pipeline.Run{ID: "r"})
	seq := int32(0)
	apply := func(typ pipeline.EventType, path pipeline.Path, d pipeline.Data) {
		seq++
		v.Apply(&pipeline.Event{Seq: seq, Type: typ, Path: path, Attempt: 1, At: time.Unix(int64(seq), 0).UTC(), Data: d})
	}
	apply(pipeline.RunCreated, "", pipeline.Data{})
	apply(pipeline.RunStarted, "", pipeline.Data{})
	w := &pipeline.Waiting{For: "approval", Approval: "a1"}
	apply(pipeline.StepIsWaiting, "ask", pipeline.Data{Kind: pipeline.KindAsk, Waiting: w, Parameters: map[string]any{"question": "why?"}})
	apply(pipeline.RunIsWaiting, "", pipeline.Data{Reason: "approval"})
	if v.Run.Status != pipeline.RunWaiting || v.Run.Reason != "approval" {
		t.Errorf("the run is %s %s", v.Run.Status, v.Run.Reason)
	}
	want := pipeline.Step{
		Path: "ask", ID: "ask", Kind: pipeline.KindAsk, Status: pipeline.StepWaiting, Reason: "approval", Attempt: 1, Waiting: w,
		Parameters: map[string]any{"question": "why?"}, StartedAt: time.Unix(3, 0).UTC(),
	}
	if diff := cmp.Diff(&want, v.Step("ask")); diff != "" {
		t.Error(diff)
	}
	copied := v.Clone()
	apply(pipeline.RunResumed, "", pipeline.Data{Reason: pipeline.ReasonWoken})
	apply(pipeline.StepFinished, "ask", pipeline.Data{Status: pipeline.StepCompleted, Output: "so"})
	if s := v.Step("ask"); s.Waiting != nil || s.Reason != "" || s.Output != "so" || !s.StartedAt.Equal(time.Unix(3, 0)) {
		t.Errorf("the step is %+v", s)
	}
	if v.Run.Status != pipeline.RunRunning || v.Run.Reason != "" {
		t.Errorf("the run is %s %s", v.Run.Status, v.Run.Reason)
	}
	if s := copied.Step("ask"); s.Waiting == nil || copied.Run.Status != pipeline.RunWaiting {
		t.Error("the copy has changed too")
	}
	apply(pipeline.SignalReceived, "", pipeline.Data{Signal: pipeline.SignalCancel})
	apply(pipeline.RunResumed, "", pipeline.Data{Reason: pipeline.ReasonOwnerDied})
	if v.Run.Reason != "cancelling" {
		t.Errorf("a run that is being cancelled says %q after its owner died", v.Run.Reason)
	}
}

func TestWhatBeginsWhileTheRunIsBeingCancelledIsStoppedToo(t *testing.T) {
	d := newDriver(t, planOf(graph(kind(pipeline.KindAsk, "ask"), loop(pipeline.KindFor, "each", graph(act("x")), pipeline.Loop{}))), script{"items each": 2}.choose)
	tasks := d.m.Next()
	d.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: pipeline.SignalCancel})
	for i := range tasks { // their drivers were at it
		d.begin(&tasks[i])
	}
	if w := d.m.Waits(); len(w) > 0 {
		t.Errorf("%s waits", w[0].Path)
	}
	d.finishRun()
	d.tells(t, "ask SKIPPED cancelled\neach[0]/x SKIPPED cancelled\neach CANCELLED cancelled\nrun CANCELLED cancelled")
}
