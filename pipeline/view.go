package pipeline

import (
	"maps"
	"slices"
)

// View folds a run's events into what its viewers see. It needs no plan, so
// that anyone who has the log can show the run. The zero View is not usable;
// start with NewView.
type View struct {
	Run   Run
	Steps []*Step // in the order of their first event
	Seq   int32   // of the newest event applied

	byPath map[Path]*Step
	// early is what <AUTO> tags have cost of steps that have not begun.
	early map[Path]Usage
}

// NewView returns the view of a run before its first event. Of run, only the
// facts that never change are taken.
func NewView(run Run) *View {
	return &View{Run: run.fresh(), byPath: map[Path]*Step{}}
}

// Step returns the instance at path, or nil if it has not begun.
func (v *View) Step(path Path) *Step { return v.byPath[path] }

// Clone returns a copy that later events do not touch.
func (v *View) Clone() *View {
	c := &View{Run: v.Run, Seq: v.Seq, Steps: make([]*Step, len(v.Steps)), byPath: make(map[Path]*Step, len(v.Steps))}
	c.Run.Labels, c.early = maps.Clone(v.Run.Labels), maps.Clone(v.early)
	for i, s := range v.Steps {
		step := *s
		c.Steps[i] = &step
		c.byPath[step.Path] = &step
	}
	return c
}

// Apply folds one event and returns the step that it touched, or nil. Events
// must come in order of Seq; one that was applied before changes nothing.
func (v *View) Apply(e *Event) *Step {
	if e.Seq <= v.Seq {
		return v.byPath[e.Path]
	}
	v.Seq = e.Seq
	v.Run.apply(e)
	s := v.byPath[e.Path]
	if e.Type == ModelCalled || e.Type == ToolCalled {
		if s != nil {
			s.apply(e)
		} else {
			v.before(e.Path, e.Data.Usage)
		}
		return s
	}
	if !e.Type.ofStep() {
		return nil
	}
	if s == nil {
		early, called := v.early[e.Path]
		s = &Step{Path: e.Path, ID: e.Path.ID(), Status: StepPending, Usage: early, Called: called}
		delete(v.early, e.Path)
		v.byPath[e.Path] = s
		v.Steps = append(v.Steps, s)
	}
	s.apply(e)
	return s
}

// before adds to what a step that has not begun has cost by its calls.
func (v *View) before(path Path, more *Usage) {
	u := v.early[path]
	u.Add(more)
	if v.early == nil {
		v.early = map[Path]Usage{}
	}
	v.early[path] = u
}

// Unfinished is the view without the steps that have ended: all that later events
// of the run need.
func (v *View) Unfinished() *View {
	c := &View{Run: v.Run, Seq: v.Seq, byPath: map[Path]*Step{}, early: maps.Clone(v.early)}
	for _, s := range v.Steps {
		if !s.Status.Final() {
			step := *s
			c.Steps = append(c.Steps, &step)
			c.byPath[step.Path] = &step
		}
	}
	return c
}

// Prune drops the steps that have ended. Later events of the run do not need them.
func (v *View) Prune() {
	v.Steps = slices.DeleteFunc(v.Steps, func(s *Step) bool {
		if s.Status.Final() {
			delete(v.byPath, s.Path)
		}
		return s.Status.Final()
	})
}

// ofStep reports whether events of this type change a step instance.
func (t EventType) ofStep() bool {
	switch t {
	case StepStarted, StepRetrying, StepIsWaiting, StepFinished, StepWasSkipped:
		return true
	}
	return false
}

// fresh is the run as it was created: without what its events tell.
func (r Run) fresh() Run {
	r.Status, r.Reason = RunQueued, ""
	r.Outputs, r.Error, r.Usage = nil, nil, Usage{}
	r.StartedAt, r.FinishedAt = zeroTime, zeroTime
	return r
}

// apply folds an event into the run.
func (r *Run) apply(e *Event) {
	d := &e.Data
	switch e.Type {
	case RunStarted:
		r.Status, r.Reason = RunRunning, ""
		r.StartedAt = e.At
	case RunResumed:
		if r.Status == RunPaused && d.Reason != ReasonUnpaused {
			break // another owner changes nothing about that
		}
		if r.Status != RunRunning { // why it waited is over; why it ends is not
			r.Status, r.Reason = RunRunning, ""
		}
	case RunIsWaiting:
		r.Status, r.Reason = RunWaiting, d.Reason
	case RunIsPaused:
		r.Status, r.Reason = RunPaused, d.Reason
	case RunFinished:
		r.Status, r.Reason, r.Error = d.RunStatus, d.Reason, d.Error
		r.Outputs = d.Outputs
		r.FinishedAt = e.At
	case SignalReceived:
		if d.Signal == SignalCancel {
			r.Reason = "cancelling"
			if r.Status == RunPaused { // what is cancelled is not paused any more
				r.Status = RunRunning
			}
		}
	case StepFinished, StepWasSkipped:
		r.Usage.Steps++
		r.Usage.Add(d.Usage)
	case ModelCalled:
		r.Usage.Add(d.Usage)
	}
}

// apply folds an event into the step that it names.
func (s *Step) apply(e *Event) {
	d := &e.Data
	if d.Kind != "" {
		s.Kind, s.Action = d.Kind, d.Action
	}
	if e.Type == ModelCalled {
		s.Usage.Add(d.Usage)
	}
	if e.Type == ModelCalled || e.Type == ToolCalled {
		s.Called = true
		return
	}
	s.Waiting, s.Lost = nil, ""
	switch e.Type {
	case StepStarted:
		s.Status, s.Reason, s.Error = StepRunning, "", nil
		s.Attempt, s.Worker, s.Remote = e.Attempt, d.Worker, d.Remote
		if d.Parameters != nil {
			s.Parameters = d.Parameters
		}
		if s.StartedAt.IsZero() {
			s.StartedAt = e.At
		}
		if d.Items != nil {
			s.Children = int32(min(len(d.Items), 1<<31-1))
			s.Parameters = map[string]any{"items": d.Items}
		}
	case StepRetrying:
		s.Status, s.Reason, s.Error = StepWaiting, "retrying", d.Error
		s.Waiting = &Waiting{For: WaitRetry, Due: d.Due}
	case StepIsWaiting:
		s.Status, s.Reason, s.Error = StepWaiting, d.Reason, nil
		s.Waiting = d.Waiting
		if s.Waiting != nil && s.Reason == "" {
			s.Reason = s.Waiting.For
		}
		s.Attempt = max(s.Attempt, e.Attempt)
		if d.Parameters != nil {
			s.Parameters = d.Parameters
		}
		if s.StartedAt.IsZero() {
			s.StartedAt = e.At
		}
	case StepFinished:
		if s.StartedAt.IsZero() { // started and finished in one record
			s.StartedAt, s.Attempt, s.Parameters = e.At, e.Attempt, d.Parameters
		}
		s.Status, s.Reason, s.Error = d.Status, d.Reason, d.Error
		s.Output, s.FinishedAt, s.Artifacts = d.Output, e.At, d.Published
		s.Model, s.CacheHit = d.Model, d.Cached
		if d.Reused != nil {
			s.ReusedFrom = d.Reused.Run
		}
		s.Usage.Add(d.Usage)
	case StepWasSkipped:
		s.Status, s.Reason, s.Error = StepSkipped, d.Reason, d.Error
		s.FinishedAt = e.At
	}
}
