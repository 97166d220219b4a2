package executor

import (
	"fmt"
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// What a step waits for, besides pipeline.WaitRetry.
const (
	waitTimer    = "timer"
	waitSignal   = "signal"
	waitFiles    = "files"
	waitApproval = "approval"
)

// defaultPoll is how often files are looked for.
const defaultPoll = 500 * time.Millisecond

// answerWait begins a wait, or ends it where what it waits for is already there.
func (r *runState) answerWait(t *pipeline.Task, ev evaluation) func() {
	now := r.lane.ex.cfg.Now().UTC()
	w, given := t.Def.Wait, pipeline.Waiting{}
	if t.Def.Timeout > 0 {
		given.Due = now.Add(t.Def.Timeout)
	}
	reason := ""
	params, fail := r.asked(t, ev)
	if fail != nil {
		return r.refused(t, fail, nil)
	}
	if f := r.recall(t, &offer{params: params}); f != nil {
		return f
	}
	switch {
	case w.For != nil || w.Until != nil:
		var end time.Time
		given.For = waitTimer
		if end, fail = timerEnd(w, ev, now); fail != nil {
			break
		}
		if !end.After(now) {
			return r.completed(t, params, nil)
		}
		if limit := given.Due; !limit.IsZero() && limit.Before(end) {
			reason = pipeline.ReasonTimeout // what comes first is the step's own limit
		} else {
			given.Due = end
		}
	case w.Signal != nil:
		given.For = waitSignal
		if given.Signal, fail = ev.text(w.Signal, "wait.signal"); fail != nil {
			break
		}
		if v, ok := r.m.Signal(given.Signal); ok {
			d := r.withState(t, pipeline.Data{Kind: t.Def.Kind, Status: pipeline.StepCompleted, Parameters: params, Output: v, Signal: given.Signal})
			return func() { r.record(pipeline.StepFinished, t.Path, t.Attempt, d) }
		}
	default:
		given.For, given.Count, given.Poll = waitFiles, max(w.Count, 1), w.Poll
		if given.Poll <= 0 {
			given.Poll = defaultPoll
		}
		if given.Files, fail = ev.text(w.Files, "wait.files"); fail != nil {
			break
		}
		var files []string
		if files, fail = listFor(r.workspace, given.Files); fail == nil && len(files) >= given.Count {
			return r.completed(t, params, anyList(files))
		}
	}
	if fail != nil {
		return r.refused(t, fail, nil)
	}
	return func() {
		r.record(pipeline.StepIsWaiting, t.Path, t.Attempt, pipeline.Data{Kind: t.Def.Kind, Reason: reason, Parameters: params, Waiting: &given})
		r.await(t.Path, t.Def)
	}
}

// timerEnd is when a wait for a time is over.
func timerEnd(w *pipeline.Wait, ev evaluation, now time.Time) (time.Time, *pipeline.Failure) {
	if w.For != nil {
		v, fail := ev.field(w.For, "wait.for")
		if fail != nil {
			return time.Time{}, fail
		}
		d, ok := spec.Duration(v)
		if !ok {
			return time.Time{}, pipeline.Failuref(pipeline.CategoryValidation,
				"wait.for is %s; it must be a duration: a number of seconds, or a text such as 90s, 5m or 1h30m", pipeline.EncodeValue(v))
		}
		return now.Add(d), nil
	}
	text, fail := ev.text(w.Until, "wait.until")
	if fail != nil {
		return time.Time{}, fail
	}
	end, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, pipeline.Failuref(pipeline.CategoryValidation, "wait.until is %q; it must be a time such as 2026-01-31T06:00:00Z", text)
	}
	return end.UTC().Truncate(time.Microsecond), nil
}

// text evaluates a field that must be a text with something in it.
func (ev evaluation) text(f *pipeline.Field, what string) (string, *pipeline.Failure) {
	v, fail := ev.field(f, what)
	if fail != nil {
		return "", fail
	}
	s, ok := v.(string)
	if !ok || s == "" {
		return "", pipeline.Failuref(pipeline.CategoryValidation, "%s is %s; it must be a text that is not empty", what, pipeline.EncodeValue(v))
	}
	return s, nil
}

func anyList(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// await sees to it that a step which waits goes on: with its time, and with its
// files. Signals and decisions come as messages.
func (r *runState) await(path pipeline.Path, def *pipeline.StepDef) {
	s := r.m.Step(path)
	if s == nil || s.Status != pipeline.StepWaiting || s.Waiting == nil || s.Waiting.For == pipeline.WaitRetry {
		return // a delay before the next attempt is the begin task's
	}
	if due := s.Waiting.Due; !due.IsZero() {
		r.after(due.Sub(r.lane.ex.cfg.Now()), func() { r.due(path, def) })
	}
	if s.Waiting.For == waitFiles {
		r.lane.ex.watch.add(r, path, s.Waiting)
	}
}

// awaitAgain does so for a run that was taken over, and sees what came while
// nobody had it: files, or what its former owner recorded and did not carry out.
func (r *runState) awaitAgain(w *pipeline.Waiter) {
	if w.Waiting.For == pipeline.WaitWorker {
		r.awaitWorker(w.Path, w.Def)
		return
	}
	r.await(w.Path, w.Def)
	path, def := w.Path, w.Def
	switch w.Waiting.For {
	case waitFiles:
		r.look(path, def)
	case waitSignal:
		r.do(func() { r.takeSignal(path, def) })
	case waitApproval:
		if list := w.Waiting.Approvals; len(list) > 0 {
			if len(r.m.Open(path)) < len(list) {
				r.do(func() { r.comeBack(path) })
			}
			return
		}
		if d := r.m.Decision(path); d != nil && d.Approval == w.Waiting.Approval {
			r.do(func() {
				if t, _ := r.waiter(path, def, waitApproval); t != nil {
					r.obey(t, d)
				}
			})
		}
	}
}

// waiter returns the task and the wait of a step that waits for that, and that
// is not about to be skipped; else nil.
func (r *runState) waiter(path pipeline.Path, def *pipeline.StepDef, what string) (*pipeline.Task, *pipeline.Waiting) {
	s := r.m.Step(path)
	if r.over() || r.m.Paused() || s == nil || s.Status != pipeline.StepWaiting || s.Waiting == nil || s.Waiting.For != what {
		return nil, nil
	}
	if r.m.Stands(&pipeline.Task{Kind: pipeline.TaskSkip, Path: path}) {
		return nil, nil
	}
	return &pipeline.Task{Kind: pipeline.TaskBegin, Path: path, Def: def, Attempt: max(s.Attempt, 1)}, s.Waiting
}

// waited ends a wait: f evaluates how.
func (r *runState) waited(t *pipeline.Task, f func() pipeline.Data) {
	r.aside(t.Def, func() func() {
		d := f()
		return func() {
			if s := r.m.Step(t.Path); !r.over() && s != nil && s.Status == pipeline.StepWaiting {
				r.record(pipeline.StepFinished, t.Path, t.Attempt, d)
			}
		}
	})
}

// due ends a wait whose time has come.
func (r *runState) due(path pipeline.Path, def *pipeline.StepDef) {
	s := r.m.Step(path)
	if s == nil || s.Waiting == nil {
		return
	}
	t, w := r.waiter(path, def, s.Waiting.For)
	if t == nil {
		return
	}
	if left := w.Due.Sub(r.lane.ex.cfg.Now()); left > 0 {
		r.after(left, func() { r.due(path, def) })
		return
	}
	switch {
	case w.For == waitApproval && len(w.Approvals) > 0:
		for _, id := range w.Approvals {
			r.expire(id)
		}
		r.after(time.Second, func() { r.due(path, def) })
	case w.For == waitApproval:
		r.expire(w.Approval)
	case w.For == waitTimer && s.Reason != pipeline.ReasonTimeout:
		r.waited(t, func() pipeline.Data {
			return r.withState(t, pipeline.Data{Kind: t.Def.Kind, Status: pipeline.StepCompleted})
		})
	default:
		r.lane.ex.watch.drop(r.run.ID, path)
		r.finish(t, &pipeline.Failure{
			Kind: pipeline.CategoryTimeout, Reason: pipeline.ReasonTimeout,
			Message: fmt.Sprintf("waited %s in vain for %s", t.Def.Timeout, wanted(w)),
		}, nil)
	}
	r.pump()
}

// wanted names what a step waits for.
func wanted(w *pipeline.Waiting) string {
	switch w.For {
	case waitSignal:
		return fmt.Sprintf("the signal %q", w.Signal)
	case waitFiles:
		return fmt.Sprintf("%d files as in %s", w.Count, w.Files)
	}
	return "its time"
}

// takeSignal ends a wait with the signal that it waits for, if that has come.
func (r *runState) takeSignal(path pipeline.Path, def *pipeline.StepDef) {
	t, w := r.waiter(path, def, waitSignal)
	if t == nil {
		return
	}
	v, ok := r.m.Signal(w.Signal)
	if !ok {
		return
	}
	r.waited(t, func() pipeline.Data {
		return r.withState(t, pipeline.Data{Kind: t.Def.Kind, Status: pipeline.StepCompleted, Output: v, Signal: w.Signal})
	})
}

// systemSignals are said by the engine itself.
var systemSignals = []string{pipeline.SignalCancel, pipeline.SignalTimeout, pipeline.SignalHandedOver}

// signalOf reads the body of a signal's message.
func signalOf(body []byte) (name string, data any, err error) {
	v, err := pipeline.DecodeValue(body)
	if err != nil {
		return "", nil, err
	}
	m, _ := v.(map[string]any)
	if name, _ = m["name"].(string); name == "" {
		return "", nil, fmt.Errorf("the signal has no name")
	}
	if slices.Contains(systemSignals, name) {
		return "", nil, fmt.Errorf("the signal %q can only be given by the engine", name)
	}
	return name, m["data"], nil
}

// look looks for files that a step waits for, elsewhere. While there are too few
// of them, the watcher goes on looking.
func (r *runState) look(path pipeline.Path, def *pipeline.StepDef) {
	t, w := r.waiter(path, def, waitFiles)
	if t == nil {
		return
	}
	pattern, dir := w.Files, r.workspace
	r.looking++
	r.lane.ex.tasks.Go(func() {
		files, fail := listFor(dir, pattern)
		r.lane.post(func() {
			r.looking--
			if r.gone {
				return
			}
			r.do(func() {
				r.found(path, def, files, fail)
				r.pump()
			})
		})
	})
}

func (r *runState) found(path pipeline.Path, def *pipeline.StepDef, files []string, fail *pipeline.Failure) {
	t, w := r.waiter(path, def, waitFiles)
	switch {
	case t == nil:
	case fail != nil:
		r.finish(t, fail, nil)
	case len(files) < w.Count:
		r.lane.ex.watch.add(r, path, w)
	default:
		r.waited(t, func() pipeline.Data {
			return r.withState(t, pipeline.Data{Kind: t.Def.Kind, Status: pipeline.StepCompleted, Output: anyList(files)})
		})
	}
}
