package pipeline

import "maps"

// View folds a run's events into what its viewers see. It needs no plan, so
// that anyone who has the log can show the run. The zero View is not usable;
// start with NewView.
type View struct {
	Run   Run
	Steps []*Step // in the order of their first event
	Seq   int32   // of the newest event applied

	byPath map[Path]*Step
}

// NewView returns the view of a run before its first event. Of run, only the
// facts that never change are taken.
func NewView(run Run) *View {
	run.Status = RunQueued
	run.Reason = ""
	run.Outputs = nil
	run.Error = nil
	run.Usage = Usage{}
	run.StartedAt, run.FinishedAt = zeroTime, zeroTime
	return &View{Run: run, byPath: map[Path]*Step{}}
}

// Step returns the instance at path, or nil if it has not begun.
func (v *View) Step(path Path) *Step { return v.byPath[path] }

// Clone returns a copy that later events do not touch.
func (v *View) Clone() *View {
	c := &View{Run: v.Run, Seq: v.Seq, Steps: make([]*Step, len(v.Steps)), byPath: make(map[Path]*Step, len(v.Steps))}
	c.Run.Labels = maps.Clone(v.Run.Labels)
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
	switch e.Type {
	case RunCreated:
		v.Run.Status = RunQueued
	case RunStarted:
		v.Run.Status, v.Run.Reason = RunRunning, ""
		v.Run.StartedAt = e.At
	case RunResumed:
		v.Run.Status, v.Run.Reason = RunRunning, ""
	case RunIsWaiting:
		v.Run.Status, v.Run.Reason = RunWaiting, e.Data.Reason
	case RunIsPaused:
		v.Run.Status, v.Run.Reason = RunPaused, e.Data.Reason
	case RunFinished:
		v.Run.Status, v.Run.Reason = e.Data.RunStatus, e.Data.Reason
		v.Run.Error = e.Data.Error
		v.Run.Outputs = e.Data.Outputs
		v.Run.FinishedAt = e.At
	case SignalReceived:
		if e.Data.Signal == SignalCancel {
			v.Run.Reason = "cancelling"
		}
	case StepStarted, StepRetrying, StepIsWaiting, StepFinished, StepWasSkipped:
		return v.applyStep(e)
	case StateSet, EventLog:
	}
	return nil
}

func (v *View) applyStep(e *Event) *Step {
	s := v.byPath[e.Path]
	if s == nil {
		s = &Step{Path: e.Path, ID: e.Path.ID(), Kind: e.Data.Kind, Action: e.Data.Action, Status: StepPending}
		v.byPath[e.Path] = s
		v.Steps = append(v.Steps, s)
	}
	d := &e.Data
	switch e.Type {
	case StepStarted:
		s.Status, s.Reason = StepRunning, ""
		s.Attempt = e.Attempt
		s.Error = nil
		s.Worker = d.Worker
		if d.Parameters != nil {
			s.Parameters = d.Parameters
		}
		if s.StartedAt.IsZero() {
			s.StartedAt = e.At
		}
		if d.Items != nil {
			s.Children = int32(len(d.Items))
		}
	case StepRetrying:
		s.Status, s.Reason = StepWaiting, "retrying"
		s.Error = d.Error
	case StepIsWaiting:
		s.Status, s.Reason = StepWaiting, d.Reason
	case StepFinished:
		s.Status, s.Reason = d.Status, d.Reason
		s.Output, s.Error = d.Output, d.Error
		s.FinishedAt = e.At
		s.Model, s.CacheHit = d.Model, d.Cached
		if s.StartedAt.IsZero() { // pure steps that started and finished in one record
			s.StartedAt = e.At
			s.Attempt = e.Attempt
			s.Parameters = d.Parameters
		}
		if d.Usage != nil {
			s.Usage = *d.Usage
			v.Run.Usage.InputTokens += d.Usage.InputTokens
			v.Run.Usage.OutputTokens += d.Usage.OutputTokens
			v.Run.Usage.CostUSD += d.Usage.CostUSD
		}
		v.Run.Usage.Steps++
	case StepWasSkipped:
		s.Status, s.Reason = StepSkipped, d.Reason
		s.Error = d.Error
		s.FinishedAt = e.At
		v.Run.Usage.Steps++
	}
	return s
}
