package executor

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// A step's fingerprint has two halves. The definition is what the step is: what
// it does, by which code, and what it promises. What it was given is its
// parameters, evaluated, and all else that reaches it. Neither is computed while
// a run works; a fork computes both, of the records of its source and of its own
// steps.

// definitions are the digests of what the leaves of a program are, and of what
// its loops go over.
func (e *Executor) definitions(prog *program, u *upstream) (map[*pipeline.StepDef]pipeline.Digest, error) {
	all := make(map[*pipeline.StepDef]pipeline.Digest, len(u.list))
	for _, s := range u.list {
		if all[s.def] != "" || !leaf(s.def) && (s.def.Loop == nil || s.def.Loop.Items == nil) {
			continue
		}
		d, err := e.definition(prog, s.def)
		if err != nil {
			return nil, err
		}
		all[s.def] = d
	}
	return all, nil
}

func (e *Executor) definition(prog *program, def *pipeline.StepDef) (pipeline.Digest, error) {
	if def.Loop != nil {
		return sourceDigest(def.Loop.Items)
	}
	all := map[string]any{
		"kind": string(def.Kind), "action": def.Action, "action_auto": def.ActionAuto, "capture": def.Capture, "returns": def.Returns,
		"publish": def.Publish, "consume": def.Consume, "files": def.Files, "artifacts": len(def.Artifacts), "secrets": def.Secrets,
		"sandbox": def.Sandbox, "agent": def.Agent, "needs": def.Needs, "session": def.Session,
	}
	if _, _, remote := pipeline.MCPTool(def.Action); remote || def.Agent != nil {
		all["servers"], all["models"] = prog.plan.MCPServers, prog.plan.Models
	}
	if def.Agent != nil {
		code, err := e.skillCode(prog, def.Agent)
		if err != nil {
			return "", err
		}
		if len(code) > 0 {
			all["skills"] = code
		}
	}
	switch def.Kind {
	case pipeline.KindSkill:
		code, err := treeDigest(filepath.Join(e.bundleDir(prog.plan.Bundle), filepath.FromSlash(def.Skill.Dir)))
		if err != nil {
			return "", fmt.Errorf("read the skill %s: %w", def.Skill.Name, err)
		}
		all["skill"], all["code"] = def.Skill, code
	case pipeline.KindWait:
		all["count"] = def.Wait.Count
	case pipeline.KindAsk:
		all["approve"], all["schema"], all["quorum"] = def.Ask.Approve, def.Ask.Schema, def.Ask.Quorum
	case pipeline.KindCall:
		all["call"] = called(prog.plan, def.Call.Unit)
	}
	return sourceDigest(all)
}

// skillCode names the content of the skills of an agent, and of those that it
// comes to: of a skill with a program, the plan holds only its manual.
func (e *Executor) skillCode(prog *program, a *pipeline.Agent) (map[string]pipeline.Digest, error) {
	code := map[string]pipeline.Digest{}
	for i := range a.Skills {
		s := &a.Skills[i]
		d, err := treeDigest(filepath.Join(e.bundleDir(prog.plan.Bundle), filepath.FromSlash(s.Dir)))
		if err != nil {
			return nil, fmt.Errorf("read the skill %s: %w", s.Name, err)
		}
		code[s.Dir] = d
	}
	for i := range a.Agents {
		more, err := e.skillCode(prog, &a.Agents[i])
		if err != nil {
			return nil, err
		}
		maps.Copy(code, more)
	}
	return code, nil
}

// called are the pipelines that a call comes to, at any depth.
func called(plan *pipeline.Plan, unit int) []*pipeline.Unit {
	var list []*pipeline.Unit
	var add func(unit int)
	var walk func(b *pipeline.Body)
	add = func(unit int) {
		if u := plan.Units[unit]; !slices.Contains(list, u) {
			list = append(list, u)
			walk(&u.Root)
			walk(&u.Finally)
		}
	}
	walk = func(b *pipeline.Body) {
		for _, s := range b.Steps {
			if s.Call != nil {
				add(s.Call.Unit)
			}
			if s.Loop != nil {
				walk(&s.Loop.Body)
			}
			for i := range s.Branches {
				walk(&s.Branches[i].Body)
			}
		}
	}
	add(unit)
	return list
}

// sourceDigest names a part of a plan by what its author wrote: an edit that
// moves it, or the numbering of templates, changes nothing.
func sourceDigest(part any) (pipeline.Digest, error) {
	text, err := json.Marshal(part)
	if err != nil {
		return "", fmt.Errorf("name a definition: %w", err)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return "", fmt.Errorf("name a definition: %w", err)
	}
	unplaced(v)
	if text, err = json.Marshal(v); err != nil {
		return "", fmt.Errorf("name a definition: %w", err)
	}
	return digestOf(text), nil
}

// unplaced takes positions and the numbers of templates and units out.
func unplaced(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			unplaced(e)
		}
	case map[string]any:
		delete(v, "pos")
		if v["src"] != nil {
			delete(v, "id")
		}
		if v["name"] != nil && v["unit"] != nil {
			delete(v, "unit")
		}
		for _, e := range v {
			unplaced(e)
		}
	}
}

// tagsOf are the digests of the <AUTO> tags of a step, by their keys.
func tagsOf(def *pipeline.StepDef) map[string]pipeline.Digest {
	all := map[string]pipeline.Digest{}
	own := *def
	own.Branches = nil
	if def.Loop != nil {
		loop := *def.Loop
		loop.Body = pipeline.Body{}
		own.Loop = &loop
	}
	text, err := json.Marshal(&own)
	var v any
	if err != nil || !strings.Contains(string(text), `"prompt"`) || json.Unmarshal(text, &v) != nil {
		return all
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if key, ok := v["key"].(string); ok && v["prompt"] != nil {
				if d, err := sourceDigest(v); err == nil {
					all[key] = d
				}
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(v)
	return all
}

// given names what a step was given: its parameters as they are recorded, the
// artifacts that it was handed, and what else its record names. The run's own id,
// which stands in paths of its workspace, is not part of it.
func given(run pipeline.RunID, params any, consumed []pipeline.Version, more pipeline.Digest) pipeline.Digest {
	handed := make([]any, 0, len(consumed))
	for i := range consumed {
		handed = append(handed, []any{consumed[i].Artifact, consumed[i].Value, string(consumed[i].Blob)})
	}
	text := string(pipeline.EncodeValue([]any{params, handed, string(more)}))
	return digestOf([]byte(strings.ReplaceAll(text, string(run), "run")))
}

// beyond names what reaches a step and does not stand among its recorded
// parameters; empty: nothing.
func (w *work) beyond(run pipeline.RunID, def *pipeline.StepDef) pipeline.Digest {
	var more map[string]any
	add := func(name string, v any) {
		if more == nil {
			more = map[string]any{}
		}
		more[name] = v
	}
	if len(w.env) > 0 {
		add("env", w.env)
	}
	if w.file != "" {
		add("file", w.file)
	}
	if len(w.kept) > 0 {
		add("kept", w.kept)
	}
	switch {
	case def.Kind == pipeline.KindAgent:
		add("command", w.params["command"])
	case def.Kind == pipeline.KindSkill && len(w.files) > 0:
		add("prompt", w.params["prompt"])
	}
	if more == nil {
		return ""
	}
	text, err := json.Marshal(more)
	if err != nil {
		return ""
	}
	return digestOf([]byte(strings.ReplaceAll(w.redact.text(string(text)), string(run), "run")))
}
