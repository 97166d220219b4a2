package executor

import (
	"cmp"
	"maps"
	"path/filepath"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// composeSkill prepares a skill: its own command reads the parameters as JSON
// and writes its result as JSON; a skill without a command is a prompt. A skill
// reports failure by its exit code: what its result says is data.
func (r *runState) composeSkill(ev evaluation, t *pipeline.Task, w *work) *pipeline.Failure {
	skill := t.Def.Skill
	params, fail := ev.entries(t.Def.Parameters, "parameters")
	if fail != nil {
		return fail
	}
	typ := &pipeline.Type{Kind: "map", Properties: skill.Parameters, Additional: skill.Open}
	v, wrong := spec.Conform(typ, params)
	if wrong != nil {
		return pipeline.Failuref(pipeline.CategoryValidation, "the parameters do not suit the skill %s: %s", skill.Name, listed(wrong))
	}
	params, _ = v.(map[string]any)
	w.shown, w.takes = params, &typed{typ, params}
	if skill.Returns != nil {
		w.gives = append(w.gives, skill.Returns)
	}
	if skill.Command == nil && skill.Run == "" {
		return r.askSkill(ev, t, w, params)
	}
	dir := filepath.Join(r.lane.ex.bundleDir(r.prog.plan.Bundle), filepath.FromSlash(skill.Dir))
	w.action = &r.lane.ex.cfg.Command
	w.vars = withVar(w.vars, "ORCHESTRATOR_SKILL_DIR", dir)
	w.params = map[string]any{"stdin": string(pipeline.EncodeValue(params)), "capture": "json"}
	if c := t.Def.Returns; c != nil && c.From != fromStdout {
		w.params["capture"] = "text" // its result is elsewhere
		w.gives = nil
	}
	if skill.Run != "" {
		w.params["run"] = skill.Run
		return nil
	}
	argv := make([]any, len(skill.Command))
	for i, arg := range skill.Command {
		argv[i] = arg
		if name, ok := strings.CutPrefix(arg, "./"); ok {
			argv[i] = filepath.Join(dir, filepath.FromSlash(name))
		}
	}
	w.params["command"] = argv
	return nil
}

// sandboxOf is how the processes of a step are locked in; nil: they are not. What a
// skill runs always is: as the step says, or else as the skill does.
func sandboxOf(def *pipeline.StepDef) *pipeline.Sandbox {
	if s := def.Skill; def.Sandbox == nil && s != nil && (s.Command != nil || s.Run != "") {
		return cmp.Or(s.Sandbox, &pipeline.Sandbox{})
	}
	return def.Sandbox
}

// askSkill asks a model to do what the skill's text says.
func (r *runState) askSkill(ev evaluation, t *pipeline.Task, w *work, params map[string]any) *pipeline.Failure {
	skill := t.Def.Skill
	prompt := skill.Prompt
	if len(params) > 0 {
		prompt += "\n\nThe parameters:\n" + string(pipeline.EncodeValue(params))
	}
	prompt, fail := r.surround(ev, t, w, prompt, false)
	if fail != nil {
		return fail
	}
	w.params = map[string]any{"prompt": prompt}
	key := askText
	returns := skill.Returns
	if c := t.Def.Returns; c != nil && c.From == fromModel {
		returns = &c.Type
	}
	if returns != nil {
		key = askValue
		w.params["schema"] = spec.AnswerSchema(returns)
	}
	if w.action, fail = r.lane.ex.action(key); fail != nil {
		return fail
	}
	w.shown = maps.Clone(params)
	if len(w.files) > 0 {
		w.show("files", w.files)
	}
	w.otherModel(r.m.Rule(t.Path))
	return nil
}

// The actions by which models are asked: for a text, and for a value of a given
// form.
const (
	askText  = "generate"
	askValue = "generate_structured"
)
