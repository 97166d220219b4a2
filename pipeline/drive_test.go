package pipeline_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// choose decides what a template, a step or the world would have said: one of n
// answers to a question at a path. 0 is the answer of a world without trouble.
type choose func(what string, path pipeline.Path, n int) int

// driver answers a machine's tasks as an executor would, without templates.
type driver struct {
	t      testingT
	plan   *pipeline.Plan
	m      *pipeline.Machine
	view   *pipeline.View
	events []pipeline.Event
	choose choose
	tasks  []pipeline.Task                 // given, not answered
	held   []pipeline.Task                 // whose time has not come
	run    map[pipeline.Path]pipeline.Task // leaves that run
	begun  map[pipeline.Path]int32         // the newest attempt
	looped map[pipeline.Path]bool          // while loops whose end is not recorded yet
	bodies map[*pipeline.StepDef]*pipeline.Body
	after  func(d *driver)   // called after every event
	twin   *pipeline.Machine // restored from a snapshot, and told the same since
	kept   []byte            // a snapshot of some time ago, which a new process may begin with
	keptAt int               // how many events it knows
	late   int               // the task during whose answer the run is cancelled; 0: none
}

type testingT interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newDriver(t testingT, plan *pipeline.Plan, choose choose) *driver {
	t.Helper()
	d := fresh(t, plan, choose)
	d.record(pipeline.RunCreated, "", 0, pipeline.Data{})
	d.record(pipeline.RunStarted, "", 0, pipeline.Data{})
	return d
}

func fresh(t testingT, plan *pipeline.Plan, choose choose) *driver {
	run := pipeline.Run{ID: "r"}
	d := &driver{
		t: t, plan: plan, m: pipeline.NewMachine(plan, run), view: pipeline.NewView(run), choose: choose,
		run: map[pipeline.Path]pipeline.Task{}, begun: map[pipeline.Path]int32{}, looped: map[pipeline.Path]bool{},
		bodies: map[*pipeline.StepDef]*pipeline.Body{},
	}
	eachBody(plan, func(b *pipeline.Body) {
		for _, s := range b.Steps {
			d.bodies[s] = b
		}
	})
	return d
}

// eachBody visits all bodies of a plan.
func eachBody(plan *pipeline.Plan, visit func(b *pipeline.Body)) {
	var walk func(b *pipeline.Body)
	walk = func(b *pipeline.Body) {
		visit(b)
		for _, s := range b.Steps {
			if s.Loop != nil {
				walk(&s.Loop.Body)
			}
			for i := range s.Branches {
				walk(&s.Branches[i].Body)
			}
		}
	}
	for _, u := range append([]*pipeline.Unit{&plan.Unit}, plan.Units...) {
		walk(&u.Root)
		walk(&u.Finally)
	}
}

func (d *driver) record(typ pipeline.EventType, path pipeline.Path, attempt int32, data pipeline.Data) {
	d.t.Helper()
	d.apply(pipeline.Event{Seq: d.m.Seq + 1, Type: typ, Path: path, Attempt: attempt, At: time.Unix(int64(d.m.Seq), 0).UTC(), Data: data})
	if d.after != nil {
		d.after(d)
	}
}

func (d *driver) apply(e pipeline.Event) {
	d.t.Helper()
	if s := d.view.Step(e.Path); e.Path != "" && e.Type != pipeline.StateSet && e.Type != pipeline.AutoResolved && s != nil && s.Status.Final() {
		d.t.Fatalf("%s at %s, which has ended", e.Type, e.Path)
	}
	if err := d.m.Apply(&e); err != nil {
		d.t.Fatalf("apply: %v", err)
	}
	if d.twin != nil {
		if err := d.twin.Apply(&e); err != nil {
			d.t.Fatalf("apply to the restored machine: %v", err)
		}
	}
	d.view.Apply(&e)
	d.events = append(d.events, e)
}

// pump answers all tasks; leaves stay running until end ends one, and what
// waits waits.
func (d *driver) pump() {
	d.t.Helper()
	for d.answerOne() {
	}
}

// answerOne answers the next task.
func (d *driver) answerOne() bool {
	d.t.Helper()
	d.tasks = append(d.tasks, d.next()...)
	if len(d.tasks) == 0 {
		return false
	}
	t := d.tasks[0]
	d.tasks = d.tasks[1:]
	switch {
	case !d.m.Stands(&t):
	case t.Kind == pipeline.TaskBegin && !t.Due.IsZero():
		d.held = append(d.held, t)
	default:
		d.answer(&t)
	}
	return true
}

func (d *driver) answer(t *pipeline.Task) {
	d.t.Helper()
	if d.late--; d.late == 0 && t.Kind != pipeline.TaskFinish { // it takes a while to evaluate
		check := d.after // which would miss the task in hand
		d.after = nil
		d.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: pipeline.SignalCancel})
		d.after = check
	}
	switch t.Kind {
	case pipeline.TaskSkip:
		d.record(pipeline.StepWasSkipped, t.Path, 0, d.named(t, pipeline.Data{Reason: t.Reason}))
	case pipeline.TaskPass:
		switch d.choose("pass", t.PassPath(), 4) {
		case 3:
			d.finish(t, pipeline.Failuref("validation", "the condition of %s is broken", t.Path))
		case 2:
			d.looped[t.Path] = true
			d.m.EndLoop(t.Path)
			if d.twin != nil {
				d.twin.EndLoop(t.Path)
			}
		default:
			d.record(pipeline.StateSet, t.PassPath(), 0, pipeline.Data{Pass: true})
		}
	case pipeline.TaskCollect:
		data := pipeline.Data{Collected: int64(t.Index), Done: d.choose("until", t.PassPath(), 3) == 2}
		if d.choose("collect fails", t.PassPath(), 10) == 9 {
			data = pipeline.Data{Error: pipeline.Failuref("validation", "collect of %s is broken", t.Path)}
		}
		d.record(pipeline.StateSet, t.PassPath(), 0, data)
	case pipeline.TaskClose:
		delete(d.looped, t.Path)
		if t.Status == pipeline.StepFailed {
			data := d.failed(t, t.Failure)
			if data.Output == nil {
				data.Output = t.Output
			}
			d.record(pipeline.StepFinished, t.Path, 1, data)
			return
		}
		out := t.Output
		if t.Exhausted {
			out = "exhausted"
		}
		d.record(pipeline.StepFinished, t.Path, 1, pipeline.Data{Status: t.Status, Output: out, Reason: t.Reason})
	case pipeline.TaskFinish:
		d.record(pipeline.RunFinished, "", 0, pipeline.Data{RunStatus: t.RunStatus, Reason: t.Reason, Error: t.Failure})
	case pipeline.TaskBegin:
		d.begin(t)
	}
}

// named adds what the log says of a step that it names for the first time.
func (d *driver) named(t *pipeline.Task, data pipeline.Data) pipeline.Data {
	data.Kind, data.Action = t.Def.Kind, t.Def.Action
	return data
}

// failed is the end of a step that is not tried again.
func (d *driver) failed(t *pipeline.Task, why *pipeline.Failure) pipeline.Data {
	data := d.named(t, pipeline.Data{Status: pipeline.StepFailed, Error: why})
	if i := pipeline.RuleOf(t.Def, why); i >= 0 {
		switch rule := t.Def.OnError[i]; rule.Do {
		case "fallback":
			data.Rule = int32(i + 1)
			if rule.Value != nil {
				data.Output = rule.Value.Const
			}
			return data
		case "goto":
			data.Rule = int32(i + 1)
			return data
		}
	}
	if t.Def.OnFailure == "skip" {
		data.Status, data.Reason = pipeline.StepSkipped, pipeline.ReasonFailed
	}
	return data
}

// finish ends a step that failed before or outside an attempt.
func (d *driver) finish(t *pipeline.Task, why *pipeline.Failure) {
	d.t.Helper()
	d.record(pipeline.StepFinished, t.Path, max(t.Attempt, 1), d.failed(t, why))
}

func (d *driver) begin(t *pipeline.Task) {
	d.t.Helper()
	d.checkOrder(t)
	if d.m.Step(t.Path).Status == pipeline.StepPending && d.choose("condition", t.Path, 8) == 7 {
		d.record(pipeline.StepWasSkipped, t.Path, 0, d.named(t, pipeline.Data{Reason: pipeline.ReasonCondition}))
		return
	}
	data := d.named(t, pipeline.Data{})
	switch t.Def.Kind {
	case pipeline.KindSet, pipeline.KindAssert:
		data.Status = pipeline.StepCompleted
		d.record(pipeline.StepFinished, t.Path, t.Attempt, data)
		return
	case pipeline.KindWait, pipeline.KindAsk:
		d.wait(t, data)
		return
	case pipeline.KindFor, pipeline.KindQueue:
		data.Items = make([]any, d.choose("items", t.Path, 5))
	case pipeline.KindIf, pipeline.KindMatch:
		arm := d.choose("branch", t.Path, len(t.Def.Branches)+1)
		if arm == len(t.Def.Branches) {
			arm = -1
		}
		data.Branch = &arm
	case pipeline.KindCall:
		data.Parameters = map[string]any{"at": string(t.Path)}
		data.Vars = map[string]any{"of": string(t.Path)}
	case pipeline.KindAction, pipeline.KindCommand, pipeline.KindSkill, pipeline.KindAgent:
		if d.begun[t.Path] >= t.Attempt {
			d.t.Fatalf("attempt %d of %s begins twice", t.Attempt, t.Path)
		}
		d.begun[t.Path] = t.Attempt
		d.run[t.Path] = *t
	case pipeline.KindWhile, pipeline.KindRepeat, pipeline.KindParallel, pipeline.KindCompete:
	}
	d.record(pipeline.StepStarted, t.Path, t.Attempt, data)
}

// wait lets a step wait, unless that for which it would is already there.
func (d *driver) wait(t *pipeline.Task, data pipeline.Data) {
	d.t.Helper()
	data.Waiting = &pipeline.Waiting{For: "timer", Due: time.Unix(int64(d.m.Seq)+60, 0).UTC()}
	switch {
	case t.Def.Kind == pipeline.KindAsk:
		data.Waiting = &pipeline.Waiting{For: "approval", Approval: pipeline.ApprovalID(t.Path)}
	case t.Def.Wait != nil && t.Def.Wait.Signal != nil:
		data.Waiting = &pipeline.Waiting{For: "signal", Signal: "s"}
		if v, ok := d.m.Signal("s"); ok {
			data.Waiting, data.Status, data.Output, data.Signal = nil, pipeline.StepCompleted, v, "s"
			d.record(pipeline.StepFinished, t.Path, t.Attempt, data)
			return
		}
	}
	d.record(pipeline.StepIsWaiting, t.Path, t.Attempt, data)
}

// end lets something happen that the run depends on: a leaf ends, a wait is
// over, the time of an attempt has come. It reports false where nothing can.
func (d *driver) end() bool {
	d.t.Helper()
	paths := slices.Sorted(maps.Keys(d.run))
	waits := d.m.Waits()
	n := len(paths) + len(waits)
	if n == 0 {
		return false
	}
	i := d.choose("which", "", n)
	if i < len(paths) {
		d.endLeaf(paths[i])
		return true
	}
	w := waits[i-len(paths)]
	if w.Waiting.For == pipeline.WaitRetry {
		for k, t := range d.held {
			if t.Path == w.Path && d.m.Stands(&t) {
				d.held = slices.Delete(d.held, k, k+1)
				d.begin(&t)
				return true
			}
		}
		d.t.Fatalf("%s waits for an attempt that nobody was asked for", w.Path)
	}
	d.endWait(w)
	return true
}

func (d *driver) endWait(w pipeline.Waiter) {
	d.t.Helper()
	t := &pipeline.Task{Path: w.Path, Def: w.Def}
	switch {
	case d.choose("fails", w.Path, 5) == 4:
		d.finish(t, pipeline.Failuref("timeout", "nobody came to %s", w.Path))
	case w.Waiting.For == "signal":
		d.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: w.Waiting.Signal, Value: int64(len(d.events))})
		v, ok := d.m.Signal(w.Waiting.Signal)
		if !ok {
			d.t.Fatalf("the signal that has just come is gone")
		}
		d.record(pipeline.StepFinished, w.Path, 1, pipeline.Data{Status: pipeline.StepCompleted, Output: v, Signal: w.Waiting.Signal})
	default:
		d.record(pipeline.StepFinished, w.Path, 1, pipeline.Data{Status: pipeline.StepCompleted, Output: string(w.Path)})
	}
}

func (d *driver) endLeaf(p pipeline.Path) {
	d.t.Helper()
	t := d.run[p]
	delete(d.run, p)
	if s := d.m.Step(p); s == nil || s.Status != pipeline.StepRunning {
		d.t.Fatalf("running step %s is %v", p, s)
	}
	if d.m.Cancels(p) {
		d.record(pipeline.StepFinished, p, t.Attempt, pipeline.Data{Status: pipeline.StepCancelled, Reason: pipeline.ReasonCancelled})
		return
	}
	if d.choose("fails", p, 5) < 4 {
		d.record(pipeline.StepFinished, p, t.Attempt, pipeline.Data{Status: pipeline.StepCompleted, Output: string(p)})
		return
	}
	why := pipeline.Failuref([]string{"failed", "system", "tool"}[d.choose("category", p, 3)], "%s broke", p)
	rule := pipeline.RuleOf(t.Def, why)
	if rule >= 0 && t.Def.OnError[rule].Do != "retry" {
		rule = -1
	}
	if d.m.Tries(p) < 2 && (rule >= 0 || d.choose("retries", p, 3) == 2) {
		data := pipeline.Data{Error: why, Rule: int32(rule + 1)}
		if d.choose("delay", p, 2) == 0 {
			data.Due = time.Unix(int64(d.m.Seq)+60, 0).UTC()
		}
		d.record(pipeline.StepRetrying, p, t.Attempt, data)
		return
	}
	d.record(pipeline.StepFinished, p, t.Attempt, d.failed(&t, why))
}

// live is the instance of a step beside the one at path that counts now.
func (d *driver) live(path pipeline.Path, id string) *pipeline.Step {
	prefix := path[:strings.LastIndexByte(string(path), '/')+1]
	for v := 1; v < 60; v++ {
		p := prefix + pipeline.Path(id)
		if v > 1 {
			p += pipeline.Path(fmt.Sprintf("~%d", v))
		}
		if s := d.m.Step(p); s != nil {
			return s
		}
	}
	return nil
}

// checkOrder proves that what a step depends on has ended.
func (d *driver) checkOrder(t *pipeline.Task) {
	d.t.Helper()
	for _, dep := range t.Def.Deps {
		on := d.bodies[t.Def].Steps[dep.On]
		if s := d.live(t.Path, on.ID); on.ID != twin && (s == nil || !s.Status.Final()) {
			d.t.Fatalf("%s begins before %s has ended: %+v", t.Path, on.ID, s)
		}
	}
}

// twin is the id of steps that stand more than once in a space of paths.
const twin = "twin"

// refold loses the process: what it held is gone, the log is folded anew. lost
// is how many records at its end had not become durable.
func (d *driver) refold(lost int) *driver {
	d.t.Helper()
	again := fresh(d.t, d.plan, d.choose)
	known := again.restored(d, len(d.events)-lost)
	for _, e := range d.events[known : len(d.events)-lost] {
		data, err := pipeline.DecodeData(pipeline.AppendData(nil, &e.Data))
		if err != nil {
			d.t.Fatalf("decode: %v", err)
		}
		e.Data = data
		again.apply(e)
	}
	again.after, again.late = d.after, d.late
	return again
}

// crash loses the process in the middle of its work.
func (d *driver) crash() *driver {
	d.t.Helper()
	// A leaf begins when what it depends on is durable, but its own start may
	// not have been.
	lost := 0
	for n := len(d.events) - 1; d.events[n-lost].Type == pipeline.StepStarted && d.run[d.events[n-lost].Path].Def != nil && d.choose("lost", "", 2) == 1; {
		lost++
	}
	again := d.refold(lost)
	// Attempts whose start was lost may have run all the same.
	for p, n := range d.begun {
		if again.m.Step(p) != nil {
			again.begun[p] = n
		}
	}
	again.record(pipeline.RunResumed, "", 0, pipeline.Data{Reason: pipeline.ReasonOwnerDied})
	return again
}

// park lets go of a run that only waits, and takes it up again.
func (d *driver) park() *driver {
	d.t.Helper()
	d.record(pipeline.RunIsWaiting, "", 0, pipeline.Data{Reason: "signal"})
	again := d.refold(0)
	if !again.m.Idle() {
		d.t.Fatalf("a parked run has something to do besides waiting")
	}
	again.record(pipeline.RunResumed, "", 0, pipeline.Data{Reason: pipeline.ReasonWoken})
	maps.Copy(again.begun, d.begun)
	return again
}

// checkTwins proves that folding the log again gives the same machine: the same
// steps, the same waits, and the tasks that nobody has answered.
func (d *driver) checkTwins() {
	d.t.Helper()
	for p := range d.looped {
		if d.m.Step(p) != nil {
			return // an end that is known here and not recorded yet
		}
	}
	kept := d.kept
	d.kept = nil
	again := d.refold(0)
	d.kept = kept
	d.tasks = append(d.tasks, d.next()...)
	d.equals(again.m, "folded")
}

// equals proves that another machine of the run stands where this one does.
func (d *driver) equals(again *pipeline.Machine, how string) {
	d.t.Helper()
	open := func(m *pipeline.Machine, lists ...[]pipeline.Task) []string {
		var out []string
		for _, list := range lists {
			for _, t := range list {
				if m.Stands(&t) {
					out = append(out, fmt.Sprintf("%d %s[%d] #%d %v %s %s", t.Kind, t.Path, t.Index, t.Attempt, t.Due, t.Reason, t.Status))
				}
			}
		}
		slices.Sort(out)
		return slices.Compact(out) // a skip may be asked for twice
	}
	if diff := cmp.Diff(open(d.m, d.tasks, d.held), open(again, again.Next())); diff != "" {
		d.t.Fatalf("the %s machine has other tasks:\n%s\n%s", how, diff, d.dump())
	}
	if a, b := d.m.Idle(), again.Idle(); a != b {
		d.t.Fatalf("idle is %v, of the %s machine %v", a, how, b)
	}
	if diff := cmp.Diff(d.m.Waits(), again.Waits()); diff != "" {
		d.t.Fatalf("the %s machine waits for something else:\n%s", how, diff)
	}
	if diff := cmp.Diff(d.m.Run, again.Run); diff != "" {
		d.t.Fatalf("the %s machine has another run:\n%s", how, diff)
	}
	for _, s := range d.view.Steps {
		if diff := cmp.Diff(d.m.Step(s.Path), again.Step(s.Path)); diff != "" {
			d.t.Fatalf("the %s machine has another step %s:\n%s", how, s.Path, diff)
		}
	}
}

// checkView proves that viewers see what the machine knows.
func (d *driver) checkView() {
	d.t.Helper()
	if diff := cmp.Diff(d.m.Run, d.view.Run); diff != "" {
		d.t.Fatalf("the view has another run:\n%s", diff)
	}
	waiting := 0
	for _, s := range d.view.Steps {
		live := d.m.Step(s.Path)
		if s.Status == pipeline.StepWaiting && live == nil && !d.m.Run.Status.Final() {
			d.t.Fatalf("%s waits and nobody knows it", s.Path)
		}
		if live == nil {
			continue
		}
		if diff := cmp.Diff(live, s); diff != "" {
			d.t.Fatalf("the view has another step %s:\n%s", s.Path, diff)
		}
		if s.Status == pipeline.StepWaiting {
			waiting++
		}
	}
	if n := len(d.m.Waits()); n > waiting {
		d.t.Fatalf("%d steps wait, %d are listed", waiting, n)
	}
}

// finishRun lets everything end, in the order of the paths.
func (d *driver) finishRun() {
	d.t.Helper()
	for n := 0; !d.m.Run.Status.Final(); n++ {
		d.pump()
		if d.m.Run.Status.Final() {
			return
		}
		if !d.end() || n > 10000 {
			d.t.Fatalf("the run stands still with status %s after %d events", d.m.Run.Status, len(d.events))
		}
	}
}

var _ testingT = (*testing.T)(nil)

func (d *driver) dump() string {
	var b strings.Builder
	for _, e := range d.events {
		fmt.Fprintf(&b, "%d %s %s #%d %s %s rule %d\n", e.Seq, e.Type, e.Path, e.Attempt, e.Data.Status, e.Data.Reason, e.Data.Rule)
	}
	return b.String()
}
