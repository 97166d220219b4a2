package executor

import (
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// composeAgent prepares an agent that is a program: it reads its prompt from
// standard input, or as its last argument, and what it writes to standard output
// is its answer.
func (r *runState) composeAgent(ev evaluation, t *pipeline.Task, w *work) *pipeline.Failure {
	def, agent := t.Def, t.Def.Agent
	var model any
	if def.Model != nil {
		name, fail := ev.text(def.Model, "model")
		if fail != nil {
			return fail
		}
		model = name
	}
	if rule := r.m.Rule(t.Path); rule != nil && rule.Do == doSwitchModel {
		model = rule.Model
	}
	if len(agent.Command) == 0 {
		return r.composeLoop(ev, t, w, model)
	}
	var asked []string
	for _, f := range []struct {
		field *pipeline.Field
		what  string
	}{{agent.Instructions, "instructions"}, {def.Prompt, "prompt"}} {
		if f.field == nil {
			continue
		}
		v, fail := ev.field(f.field, f.what)
		if fail != nil {
			return fail
		}
		asked = append(asked, strings.TrimSpace(word(v)))
	}
	prompt, fail := r.surround(ev, t, w, strings.Join(asked, "\n\n"), true)
	if fail != nil {
		return fail
	}
	if s := r.m.Step(t.Path); s != nil && s.Error != nil && s.Error.Kind == pipeline.CategoryContract && s.Error.Reason != reasonNoFiles {
		prompt += "\n\n## The attempt before this one\nWhat it left was refused: " + s.Error.Message
	}
	session, fail := r.session(t)
	if fail != nil {
		return fail
	}
	argv, fail := ev.with("model", model).with("session", session).words(agent.Command, "agent.command")
	if fail != nil {
		return fail
	}
	w.action, w.params = &r.lane.ex.cfg.Command, map[string]any{}
	if agent.Input == "argument" {
		argv = append(argv, prompt)
	} else {
		w.params["stdin"] = prompt
	}
	w.params["command"] = argv
	shown := map[string]any{"prompt": prompt}
	if model != nil {
		shown["model"] = model
	}
	if session != nil {
		shown["session"] = session
	}
	if len(w.files) > 0 {
		shown["files"] = w.files
	}
	w.shown = shown
	return nil
}

// session is the conversation that an attempt of an agent starts or goes on with,
// as the templates of its command read it; nil: it has none.
func (r *runState) session(t *pipeline.Task) (any, *pipeline.Failure) {
	s := t.Def.Session
	if s == nil {
		return nil, nil //nolint:nilnil // null is the value
	}
	id := pipeline.SessionID(r.run.ID, t.Path, t.Attempt)
	if !s.Start {
		if id = r.m.Session(t.Path, s.Name); id == "" {
			return nil, pipeline.Failuref(pipeline.CategoryValidation, "no step has started the session %s yet", s.Name)
		}
	}
	return pipeline.SessionValue(s, id), nil
}
