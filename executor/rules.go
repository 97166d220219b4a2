package executor

import (
	"math/rand/v2"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// What on_error rules do.
const (
	doRetry       = "retry"
	doFallback    = "fallback"
	doSwitchModel = "switch_model"
	doGoto        = "goto"
)

// ruleFor is the on_error rule for a failure with its number, from 1; 0: none.
func ruleFor(def *pipeline.StepDef, fail *pipeline.Failure) (*pipeline.Rule, int32) {
	i := pipeline.RuleOf(def, fail)
	if i < 0 {
		return nil, 0
	}
	return &def.OnError[i], int32(i + 1) //nolint:gosec // rules of one step, a few
}

// ended records what came of an attempt.
func (r *runState) ended(t *pipeline.Task, a *attempt, out Output, state map[string]any, fail *pipeline.Failure) {
	if r.gone || r.m.Step(t.Path) == nil || r.m.Step(t.Path).Status != pipeline.StepRunning {
		return
	}
	if fail == nil {
		r.record(pipeline.StepFinished, t.Path, t.Attempt, pipeline.Data{
			Status: pipeline.StepCompleted, Output: out.Value, State: state, Model: out.Model, Usage: out.Usage,
			Published: r.numbered(a.published), Adopted: a.adopted,
		})
		return
	}
	if fail.Kind == pipeline.CategoryCancelled {
		r.record(pipeline.StepFinished, t.Path, t.Attempt, pipeline.Data{
			Status: pipeline.StepCancelled, Reason: pipeline.ReasonCancelled, Error: fail,
		})
		return
	}
	if d, ok := r.again(t, a, fail); ok {
		d.Adopted = a.adopted
		r.record(pipeline.StepRetrying, t.Path, t.Attempt, d)
		return
	}
	r.conclude(t, fail, pipeline.Data{Output: out.Value, Model: out.Model, Usage: out.Usage, Adopted: a.adopted})
}

// again says whether and when a failed attempt is repeated: as the rule for the
// failure says, else as the step's own policy does.
func (r *runState) again(t *pipeline.Task, a *attempt, fail *pipeline.Failure) (pipeline.Data, bool) {
	if r.m.Cancels(t.Path) {
		return pipeline.Data{}, false
	}
	policy := r.m.RetryOf(t.Def, a.effect)
	d := pipeline.Data{Error: fail}
	if rule, n := ruleFor(t.Def, fail); rule != nil {
		switch rule.Do {
		case doRetry:
			p := pipeline.Retry{MaxAttempts: 3}
			if rule.Retry != nil {
				p = *rule.Retry
			}
			p.On, p.Reported = []string{fail.Kind}, true // the rule has said which failures
			policy, d.Rule = &p, n
		case doSwitchModel:
			d.Rule = n
			if r.m.Rule(t.Path) != rule { // the other model has not been asked yet
				d.Due = r.lane.ex.cfg.Now().UTC()
				return d, true
			}
		}
	}
	delay, ok := policy.Delay(fail, r.m.Tries(t.Path)+1, rand.Float64()) //nolint:gosec // jitter
	d.Due = r.lane.ex.cfg.Now().Add(delay).UTC()
	return d, ok
}

// finish ends a step that failed before or outside an attempt.
func (r *runState) finish(t *pipeline.Task, fail *pipeline.Failure, params any) {
	r.conclude(t, fail, pipeline.Data{Kind: t.Def.Kind, Action: t.Def.Action, Parameters: params})
}

// conclude ends a step that has failed for good.
func (r *runState) conclude(t *pipeline.Task, fail *pipeline.Failure, d pipeline.Data) {
	if rule, _ := ruleFor(t.Def, fail); rule == nil || rule.Do != doFallback {
		r.record(pipeline.StepFinished, t.Path, max(t.Attempt, 1), r.failed(t, fail, d))
		return
	}
	task := *t
	r.aside(t.Def, func() func() {
		d := r.failed(&task, fail, d)
		return func() {
			if r.over() || !r.unfinished(task.Path) {
				return
			}
			r.record(pipeline.StepFinished, task.Path, max(task.Attempt, 1), d)
		}
	})
}

func (r *runState) unfinished(path pipeline.Path) bool {
	s := r.m.Step(path)
	return s != nil && !s.Status.Final()
}

// failed completes d to the end of a step that failed for good: by the rule for
// the failure that still has something to do, else by its on_failure. It evaluates a fallback, which takes the
// place of the output.
func (r *runState) failed(t *pipeline.Task, fail *pipeline.Failure, d pipeline.Data) pipeline.Data {
	d.Status, d.Error = pipeline.StepFailed, fail
	if fail.Step == "" {
		d.Reason = fail.Reason
	}
	rule, n := ruleFor(t.Def, fail)
	if rule == nil || rule.Do == doRetry || rule.Do == doSwitchModel { // which are used up
		if t.Def.OnFailure == "skip" {
			d.Status, d.Reason, d.Output = pipeline.StepSkipped, pipeline.ReasonFailed, nil
		}
		return tolerated(t.Def, d)
	}
	d.Rule = n
	switch rule.Do {
	case doFallback:
	case doGoto:
		return d
	default:
		return tolerated(t.Def, d)
	}
	d.Output = nil
	if rule.Value != nil {
		v, wrong := r.evaluation(r.m.Scope(t.Path)).field(rule.Value, "on_error.value")
		if wrong != nil { // a fallback that cannot be given handles nothing
			d.Rule, d.Error, d.Reason = 0, wrong, wrong.Reason
			return d
		}
		d.Output = v
	}
	return d
}

// tolerated takes the output from a step whose failure leads nowhere else: what
// depends on it goes on with null, whatever it gave before it failed, which its
// log keeps. What people answered stays an answer.
func tolerated(def *pipeline.StepDef, d pipeline.Data) pipeline.Data {
	routed := def.Routes != nil && (def.Routes.Failure != nil || def.Routes.Always != nil)
	if def.OnFailure == "continue" && !routed && def.Kind != pipeline.KindAsk {
		d.Output = nil
	}
	return d
}
