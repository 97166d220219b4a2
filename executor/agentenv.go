package executor

import (
	"maps"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// AgentEnv is what an agent works with that is no program. Its functions may be
// called concurrently, and from within the attempt alone; they fail with
// ErrJournal once the run has another owner.
type AgentEnv struct {
	Agent        *pipeline.Agent
	Unit         *pipeline.Unit // that the step stands in
	Prompt       string         // with all that the step hands over
	Instructions string
	Model        string          // that the step asks for; empty: any
	Needs        *pipeline.Needs // what it must be able to do; nil: nothing is said
	Schema       map[string]any  // JSON Schema of what the step promises of the model; nil: nothing
	// Text evaluates a field of the plan in the step's scope, with more names. The
	// error is a *pipeline.Failure.
	Text func(f *pipeline.Field, more map[string]any) (any, error)
	// Test does the same with a condition.
	Test func(t *pipeline.Template, more map[string]any) (bool, error)
	// Approved tells who has approved all calls of that scope for the rest of the run,
	// if anybody has.
	Approved func(scope string) (by string, ok bool, err error)
	// Secret finds a secret by its name.
	Secret func(name string) (string, bool)
}

// composeLoop prepares an agent that is a model with tools.
func (r *runState) composeLoop(ev evaluation, t *pipeline.Task, w *work, model any) *pipeline.Failure {
	def, agent := t.Def, t.Def.Agent
	action := &r.lane.ex.cfg.Agent
	if action.Bind == nil {
		return pipeline.Failuref(pipeline.CategorySystem, "this server cannot run the agent %s: it is not a program", agent.Name)
	}
	a := &AgentEnv{Agent: agent, Unit: r.m.Unit(t.Path), Needs: def.Needs, Secret: r.lane.ex.cfg.Secret}
	a.Model, _ = model.(string)
	shown := map[string]any{}
	if agent.Instructions != nil {
		v, fail := ev.field(agent.Instructions, "instructions")
		if fail != nil {
			return fail
		}
		a.Instructions = strings.TrimSpace(word(v))
		shown["instructions"] = a.Instructions
	}
	prompt := ""
	if def.Prompt != nil {
		v, fail := ev.field(def.Prompt, "prompt")
		if fail != nil {
			return fail
		}
		prompt = strings.TrimSpace(word(v))
	}
	var fail *pipeline.Failure
	if a.Prompt, fail = r.surround(ev, t, w, prompt, true); fail != nil {
		return fail
	}
	if c := def.Returns; c != nil && (c.From == fromModel || c.From == fromStdout) {
		a.Schema = spec.AnswerSchema(&c.Type)
	}
	path := t.Path
	a.Text = func(f *pipeline.Field, more map[string]any) (any, error) {
		v, fail, err := onLane(r, path, func(ev evaluation) (any, *pipeline.Failure) { return ev.and(more).field(f, "a tool's field") })
		return v, either(fail, err)
	}
	a.Test = func(t *pipeline.Template, more map[string]any) (bool, error) {
		ok, fail, err := onLane(r, path, func(ev evaluation) (bool, *pipeline.Failure) { return ev.and(more).test(t, "approval") })
		return ok, either(fail, err)
	}
	a.Approved = func(scope string) (string, bool, error) {
		by, _, err := onLane(r, path, func(evaluation) (string, *pipeline.Failure) { return r.m.Approved(scope), nil })
		return by, by != "", err
	}
	shown["prompt"] = a.Prompt
	if a.Model != "" {
		shown["model"] = a.Model
	}
	if len(w.files) > 0 {
		shown["files"] = w.files
	}
	w.action, w.key, w.params, w.shown, w.agent = action, pipeline.AgentAction, map[string]any{}, shown, a
	return nil
}

func either(fail *pipeline.Failure, err error) error {
	if fail != nil {
		return fail
	}
	return err
}

// and is the evaluation with more names.
func (ev evaluation) and(more map[string]any) evaluation {
	if len(more) == 0 {
		return ev
	}
	extra := maps.Clone(ev.extra)
	if extra == nil {
		extra = map[string]any{}
	}
	maps.Copy(extra, more)
	ev.extra = extra
	return ev
}

// onLane evaluates something for an attempt under way in its step's scope, on the
// lane's goroutine, or elsewhere where the step's fields read files, so that
// nothing changes meanwhile.
func onLane[T any](r *runState, path pipeline.Path, f func(evaluation) (T, *pipeline.Failure)) (T, *pipeline.Failure, error) {
	type found struct {
		v    T
		fail *pipeline.Failure
		err  error
	}
	done := make(chan found, 1)
	lost := func() { done <- found{err: ErrJournal} }
	r.lane.post(func() {
		if r.gone {
			lost()
			return
		}
		r.do(func() {
			s := r.m.Step(path)
			if r.over() || s == nil || s.Status != pipeline.StepRunning {
				lost()
				return
			}
			r.aside(r.m.Def(path), func() func() {
				v, fail := f(r.evaluation(r.m.Scope(path)))
				done <- found{v: v, fail: fail}
				return func() {}
			})
		})
	})
	select {
	case x := <-done:
		return x.v, x.fail, x.err
	case <-r.lane.ended:
		return found{}.v, nil, ErrJournal
	}
}
