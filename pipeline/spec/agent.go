package spec

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// agent is a declared agent.
type agent struct {
	fields *fields
	at     span
}

// declareAgents reads the agents block. What stands in an agent is compiled for
// each step that uses it, as its templates name what the step can name.
func (c *compiler) declareAgents(n *node) {
	c.agents = map[string]*agent{}
	if n == nil || n.isNull() {
		return
	}
	w := where{path: "agents"}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping from names to agents")
		return
	}
	for i := range n.pairs {
		p := &n.pairs[i]
		w := w.in(p.name)
		if !stepID(p.name) {
			c.error(fault{code: "E0113", at: p.key.at, msg: fmt.Sprintf("%q cannot be an agent's name", p.name), hint: "letters, digits, _ and -, beginning with a letter"}, w)
			continue
		}
		if p.value.kind != mapping {
			c.wrong(p.value, w, "a mapping with command, or with model and instructions")
			continue
		}
		f := c.fields(p.value, inAgent, w)
		c.agents[p.name] = &agent{f, p.key.at}
		c.inert(f.get("description"), w.in("description"))
		c.oneOf(f.get("input"), w.in("input"), "stdin", "argument")
		command := f.get("command")
		switch {
		case command == nil && f.get("model") == nil && !f.broken:
			c.error(fault{code: "E0111", at: p.key.at, msg: fmt.Sprintf("the agent %s has neither a command nor a model", p.name)}, w)
		case command == nil:
		case command.kind != list || len(command.items) == 0:
			c.error(fault{code: "E0104", at: command.at, msg: "command must be a list, the program with its arguments"}, w.in("command"))
		default:
			for _, key := range []string{"tools", "limits"} {
				if k := f.pair(key); k != nil {
					c.error(fault{code: "E0110", at: k.key.at, msg: fmt.Sprintf("%s means nothing for an agent that is a program", key)}, w)
				}
			}
		}
	}
}

// agentStep reads a step that hands a prompt to an agent.
func (c *compiler) agentStep(f *fields, s *step) {
	d := s.def
	w := where{step: s}
	d.Kind, d.Effect = pipeline.KindAgent, pipeline.EffectAtLeastOnce
	s.returns = &pipeline.Type{Kind: "string"}
	d.Prompt = c.promptOf(f, w)
	d.Model = c.modelOf(f, w)
	c.environment(f, s)
	n := f.get("agent")
	name, ok := c.word(n, w.in("agent"))
	if !ok {
		return
	}
	a := c.agents[name]
	if a == nil {
		names := slices.Sorted(maps.Keys(c.agents))
		x := fault{code: "E0305", at: n.at, msg: fmt.Sprintf("there is no agent %q", name), hint: "agents are declared in the pipeline's agents"}
		if like := c.suggest(name, names); like != "" {
			x.msg, x.hint = x.msg+fmt.Sprintf(" (did you mean %q?)", like), ""
		}
		c.error(x, w.in("agent"))
		return
	}
	command := a.fields.get("command")
	if command == nil {
		c.found.error(c.placed(fault{code: "E0110", at: n.at, msg: fmt.Sprintf("the agent %s is a model; this version does not support such agents yet", name), hint: "give it a command, or ask a model with the action generate"}, w.in("agent")), c.found.related(a.at.off, "%s is here", name))
		return
	}
	if command.kind != list {
		return // reported
	}
	out := &pipeline.Agent{Name: name, Input: c.choose(a.fields.get("input"), w.in("input"), "stdin", "argument")}
	if out.Input == "stdin" {
		out.Input = ""
	}
	for i, item := range command.items {
		at := w.in("agent.command[" + strconv.Itoa(i) + "]")
		if item.kind != scalar || item.isNull() {
			c.error(fault{code: "E0104", at: item.at, msg: "an argument must be a text, not " + item.what()}, at)
			continue
		}
		x := c.field(item, at, useAgent)
		if x.Template == nil {
			x.Const = item.text
		}
		out.Command = append(out.Command, x)
	}
	if v := a.fields.get("instructions"); v != nil {
		if v.kind != scalar || v.isNull() {
			c.wrong(v, w.in("agent.instructions"), "a text")
		} else {
			x := c.field(v, w.in("agent.instructions"), useField)
			if x.Template == nil {
				x.Const = v.text
			}
			out.Instructions = &x
		}
	}
	if d.Model == nil {
		d.Model = c.modelOf(a.fields, w.in("agent"))
	}
	if d.Prompt == nil && out.Instructions == nil && f.pair("prompt") == nil && f.pair("prompt_file") == nil {
		c.error(fault{code: "E0111", at: f.pair("agent").key.at, msg: "the agent is asked nothing", hint: "give the step a prompt or prompt_file"}, w)
	}
	d.Agent = out
}
