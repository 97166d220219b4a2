package executor

import (
	"fmt"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// work is what a step is about to do: an action with its parameters, and what
// surrounds it.
type work struct {
	action *Action
	key    string            // of the action, as it is recorded; of steps of kind action
	params map[string]any    // of the action
	shown  any               // what is recorded of them, once secrets are blotted out
	vars   map[string]string // of the environment, besides those that every step has
	redact *redactor
	takes  *typed           // whose paths are checked before it begins; nil: nothing
	gives  []*pipeline.Type // what its result is held against, besides the step's own contract
	file   string           // of the contract: where the result is found
}

// compose evaluates what a step is to do.
func (r *runState) compose(ev evaluation, t *pipeline.Task, red *redactor) (*work, *pipeline.Failure) {
	w := &work{redact: red}
	var fail *pipeline.Failure
	switch t.Def.Kind {
	case pipeline.KindAction:
		fail = r.composeAction(ev, t, w)
	case pipeline.KindSkill:
		fail = r.composeSkill(ev, t, w)
	case pipeline.KindCommand:
		fail = r.composeCommand(ev, t, w)
	default:
		fail = pipeline.Failuref(pipeline.CategorySystem, "this server cannot carry out steps of kind %s", t.Def.Kind)
	}
	if c := t.Def.Returns; c != nil && c.File != nil && fail == nil {
		w.file, fail = ev.text(c.File, "returns.from")
	}
	return w, fail
}

// effect is what a crash may do to the step: as it says itself, else as its
// action does, which may go by the parameters.
func (w *work) effect(def *pipeline.StepDef) pipeline.Effect {
	switch {
	case def.Effect != "":
		return def.Effect
	case w.action.Spec.Effect != "":
		return w.action.Spec.Effect
	case w.action.Effect != nil:
		if e := w.action.Effect(w.params); e != "" {
			return e
		}
	}
	return pipeline.EffectAtLeastOnce
}

// composeAction finds the action of the catalogue and evaluates its parameters.
func (r *runState) composeAction(ev evaluation, t *pipeline.Task, w *work) *pipeline.Failure {
	key := t.Def.Action
	if t.Def.ActionAuto != nil {
		v, fail := ev.resolve(t.Def.ActionAuto, "action")
		if fail != nil {
			return fail
		}
		key, _ = v.(string)
	}
	var fail *pipeline.Failure
	if w.action, fail = r.lane.ex.action(key); fail != nil {
		return fail
	}
	w.key = key
	if fail = r.parameters(ev, t.Def.Parameters, w); fail != nil {
		return fail
	}
	w.otherModel(r.m.Rule(t.Path))
	return nil
}

// parameters evaluates those of an action. Where one may hold secrets, what is
// recorded of it does not.
func (r *runState) parameters(ev evaluation, list []pipeline.Entry, w *work) *pipeline.Failure {
	params, shown := make(map[string]any, len(list)), make(map[string]any, len(list))
	for i := range list {
		e := &list[i]
		what := "parameters." + e.Name
		var fail *pipeline.Failure
		if slices.Contains(w.action.Spec.Secret, e.Name) {
			params[e.Name], shown[e.Name], fail = r.withSecrets(ev, e, what, w.redact)
		} else {
			params[e.Name], fail = ev.field(&e.Value, what)
			shown[e.Name] = params[e.Name]
		}
		if fail != nil {
			return fail
		}
	}
	w.params, w.shown = params, shown
	return nil
}

// action is one of the catalogue.
func (e *Executor) action(key string) (*Action, *pipeline.Failure) {
	a := e.actions[key]
	if a == nil {
		return nil, pipeline.Failuref(pipeline.CategorySystem, "this server has no action %s", key)
	}
	return a, nil
}

// otherModel lets a step that asks a model ask the one that a rule has switched to.
func (w *work) otherModel(rule *pipeline.Rule) {
	if rule == nil || rule.Do != doSwitchModel {
		return
	}
	for i := range w.action.Spec.Params {
		if w.action.Spec.Params[i].Name == "model" {
			w.params["model"] = rule.Model
			if shown, ok := w.shown.(map[string]any); ok {
				shown["model"] = rule.Model
			}
		}
	}
}

// composeCommand evaluates an argv, or a line for the shell.
func (r *runState) composeCommand(ev evaluation, t *pipeline.Task, w *work) *pipeline.Failure {
	def := t.Def
	w.action, w.params = &r.lane.ex.cfg.Command, map[string]any{}
	w.shown = w.params
	if def.Run != nil {
		line, fail := ev.field(def.Run, "run")
		if fail != nil {
			return fail
		}
		w.params["run"] = line
	} else {
		argv, fail := ev.words(def.Command, "command")
		if fail != nil {
			return fail
		}
		w.params["command"] = argv
	}
	switch c := def.Returns; {
	case c != nil && c.From == fromStdout:
		w.params["capture"] = "json"
	case def.Capture != "":
		w.params["capture"] = def.Capture
	}
	return nil
}

// words evaluates the words of a command line.
func (ev evaluation) words(list []pipeline.Field, what string) ([]any, *pipeline.Failure) {
	argv := make([]any, len(list))
	for i := range list {
		v, fail := ev.field(&list[i], fmt.Sprintf("%s[%d]", what, i))
		if fail != nil {
			return nil, fail
		}
		argv[i] = word(v)
	}
	return argv, nil
}

// word is a value as a word of a command line or an environment variable.
func word(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	return string(pipeline.EncodeValue(v))
}
