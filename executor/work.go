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
	env    map[string]any    // the step's own variables, as they could be recorded
	redact *redactor

	takes     *typed                    // whose paths are checked before it begins; nil: nothing
	gives     []*pipeline.Type          // what its result is held against, besides the step's own contract
	file      string                    // of the contract: where the result is found
	artifacts map[string]*pipeline.Type // that it may publish
	consumed  []pipeline.Version        // that it is handed
	handed    []handed                  // those of them that it gets to see
	files     []any                     // in its prompt, as they are recorded
	kept      []string                  // patterns of files that are kept with the run
	agent     *AgentEnv                 // of an agent that is no program
}

// compose evaluates what a step is to do, with all that it is handed.
func (r *runState) compose(ev evaluation, t *pipeline.Task, red *redactor) (*work, *pipeline.Failure) {
	w := &work{redact: red}
	var fail *pipeline.Failure
	if c := t.Def.Returns; c != nil && c.File != nil {
		if w.file, fail = ev.text(c.File, "returns.from"); fail != nil {
			return w, fail
		}
	}
	for i := range t.Def.Artifacts {
		pattern, fail := ev.text(&t.Def.Artifacts[i], fmt.Sprintf("artifacts[%d]", i))
		if fail != nil {
			return w, fail
		}
		w.kept = append(w.kept, pattern)
	}
	if fail = r.consume(t, w); fail != nil {
		return w, fail
	}
	if len(t.Def.Publish) > 0 {
		w.artifacts = map[string]*pipeline.Type{}
		unit := r.m.Unit(t.Path)
		for i := range unit.Artifacts {
			w.artifacts[unit.Artifacts[i].Name] = &unit.Artifacts[i].Type
		}
	}
	switch t.Def.Kind {
	case pipeline.KindAction:
		fail = r.composeAction(ev, t, w)
	case pipeline.KindSkill:
		fail = r.composeSkill(ev, t, w)
	case pipeline.KindCommand:
		fail = r.composeCommand(ev, t, w)
	case pipeline.KindAgent:
		fail = r.composeAgent(ev, t, w)
	default:
		fail = pipeline.Failuref(pipeline.CategorySystem, "this server cannot carry out steps of kind %s", t.Def.Kind)
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
	if remote(t.Def) {
		if w.action, fail = r.composeRemote(t, w); fail != nil {
			return fail
		}
	} else if t.Def.Action != "" && r.lane.ex.abroad(t.Def) && r.lane.ex.actions[key] == nil {
		w.action = r.lane.ex.crew.brought(key)
		w.gives = append(w.gives, &w.action.Spec.Returns)
	} else if w.action, fail = r.lane.ex.action(key); fail != nil {
		return fail
	}
	w.key = key
	if fail = r.parameters(ev, t.Def.Parameters, w); fail != nil {
		return fail
	}
	w.otherModel(r.m.Rule(t.Path))
	return r.enrich(ev, t, w)
}

// enrich puts into the prompt of an action that asks a model what else the step
// is told.
func (r *runState) enrich(ev evaluation, t *pipeline.Task, w *work) *pipeline.Failure {
	contract := t.Def.Returns != nil && t.Def.Returns.From == fromModel && w.action.Spec.Model && !w.takesParam("schema")
	if t.Def.Files == nil && len(w.handed) == 0 && !contract {
		return nil
	}
	for _, name := range []string{"prompt", "instructions"} {
		if !w.takesParam(name) {
			continue
		}
		text, fail := r.surround(ev, t, w, word(w.params[name]), contract)
		if fail != nil {
			return fail
		}
		w.params[name] = text
		w.show(name, text)
		if len(w.files) > 0 {
			w.show("files", w.files)
		}
		return nil
	}
	return nil
}

func (w *work) takesParam(name string) bool {
	return slices.ContainsFunc(w.action.Spec.Params, func(p pipeline.Property) bool { return p.Name == name })
}

// show records a value among the parameters.
func (w *work) show(name string, v any) {
	if m, ok := w.shown.(map[string]any); ok {
		m[name] = v
	}
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
	if w.takesParam("model") {
		w.params["model"] = rule.Model
		w.show("model", rule.Model)
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
