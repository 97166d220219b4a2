package spec

import (
	"fmt"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// agent is a declared agent: what no template says of it, which is read once,
// and its fields, of which the templates are compiled for each step that uses
// it, as they name what the step can name.
type agent struct {
	fields *fields
	at     span
	used   bool
	plan   pipeline.Agent
	tools  []*agentTool
}

// program reports whether the agent is a program.
func (a *agent) program() bool { return a.fields.pair("command") != nil }

// asksProgram reports whether a step hands its prompt to a program, which has
// names of its own for models.
func (c *compiler) asksProgram(f *fields) bool {
	n := f.get("agent")
	return n != nil && c.agents[n.text] != nil && c.agents[n.text].program()
}

// declareAgents reads the agents block.
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
	var names []string
	for i := range n.pairs { // they may name later ones
		p := &n.pairs[i]
		w := w.in(p.name)
		if !stepID(p.name) {
			c.error(fault{code: "E0113", at: p.key.at, msg: fmt.Sprintf("%q cannot be an agent's name", p.name), hint: "letters, digits, _ and -, beginning with a letter"}, w)
			continue
		}
		if p.value.kind != mapping {
			c.wrong(p.value, w, "a mapping with command, or with model, instructions and tools")
			continue
		}
		names = append(names, p.name)
		c.agents[p.name] = &agent{fields: c.fields(p.value, inAgent, w), at: p.key.at, plan: pipeline.Agent{Name: p.name, Pos: c.text.pos(p.key.off)}}
	}
	for _, name := range names {
		c.declareAgent(c.agents[name], w.in(name))
	}
}

// forPrograms and forModels are the keys that mean something for only one sort
// of agent.
var (
	forPrograms = []string{"input"}
	forModels   = []string{"requires_model", "tools", "mcp", "skills", "output", "limits"}
)

func (c *compiler) declareAgent(a *agent, w where) {
	f, out := a.fields, &a.plan
	out.Description = c.inert(f.get("description"), w.in("description"))
	out.Input = c.oneOf(f.get("input"), w.in("input"), "stdin", "argument")
	if text, file := f.pair("instructions"), f.pair("instructions_file"); text != nil && file != nil {
		c.found.error(c.placed(fault{code: "E0102", at: file.key.at, msg: "instructions and instructions_file both say what the agent is for"}, w), c.found.related(text.key.off, "the other one"))
	}
	of, keys := "an agent that is a program", forModels
	if command := f.get("command"); command == nil {
		of, keys = "an agent without a command", forPrograms
		if !f.broken && f.get("model") == nil && f.get("requires_model") == nil && f.get("instructions") == nil && f.get("instructions_file") == nil && f.get("tools") == nil && f.get("mcp") == nil {
			c.error(fault{code: "E0111", at: a.at, msg: fmt.Sprintf("nothing says what the agent %s is", out.Name), hint: "give it a command, or model, instructions and tools"}, w)
		}
	} else if command.kind != list || len(command.items) == 0 {
		c.error(fault{code: "E0104", at: command.at, msg: "command must be a list, the program with its arguments"}, w.in("command"))
	} else {
		c.allowed(f.pair("command").key.at, w, "command")
	}
	for _, key := range keys {
		if k := f.pair(key); k != nil {
			c.error(fault{code: "E0110", at: k.key.at, msg: fmt.Sprintf("%s means nothing for %s", key, of)}, w)
		}
	}
	if a.program() {
		return
	}
	c.fixedModel(f.get("model"), w.in("model"))
	out.Needs = c.needsOf(f, w)
	c.declareTools(a, f.get("tools"), w)
	names, nodes := c.names(f.get("mcp"), w.in("mcp"))
	for i, name := range names {
		if c.serverNamed(nodes[i].at, name, w.in("mcp")) != nil && c.allowed(nodes[i].at, w.in("mcp"), pipeline.MCPName(name, "*")) {
			out.MCP = append(out.MCP, name)
		}
	}
	names, nodes = c.names(f.get("skills"), w.in("skills"))
	for i, name := range names {
		if s := c.skillNamed(nodes[i], name, w.in("skills")); s != nil {
			out.Skills = append(out.Skills, s.Skill)
		}
	}
	if v := f.get("output"); v != nil {
		out.Output = c.agentOutput(v, w.in("output"))
	}
	if v := f.get("limits"); v != nil {
		out.Limits = c.limits(v, w.in("limits"))
	}
}

func (c *compiler) agentOutput(n *node, w where) *pipeline.AgentOutput {
	if n.kind != mapping {
		c.wrong(n, w, "a mapping with schema")
		return nil
	}
	f := c.fields(n, inAgentOutput, w)
	out := &pipeline.AgentOutput{Retries: 1, Mode: c.choose(f.get("mode"), w.in("mode"), outputModes...)}
	if v := f.get("retries"); v != nil {
		out.Retries, _ = c.integer(v, w.in("retries"), 0)
	}
	v := f.get("schema")
	if v == nil {
		if !f.broken {
			c.error(fault{code: "E0111", at: n.at, msg: "output has no schema", hint: "a JSON Schema, as in {type: object, properties: {score: {type: number}}, required: [score]}"}, w)
		}
		return out
	}
	errs := c.found.errs
	schema, ok := c.jsonSchema(v, w.in("schema")).(map[string]any)
	if !ok && c.found.errs == errs {
		c.wrong(v, w.in("schema"), "a JSON Schema")
	}
	out.Schema = schema
	return out
}

func (c *compiler) limits(n *node, w where) pipeline.AgentLimits {
	var out pipeline.AgentLimits
	if n.kind != mapping {
		c.wrong(n, w, "a mapping, as in {steps: 12, usd: 0.4}")
		return out
	}
	f := c.fields(n, inLimits, w)
	count := func(key string) int {
		v := f.get(key)
		if v == nil {
			return 0
		}
		k, _ := c.integer(v, w.in(key), 1)
		return k
	}
	out.Steps, out.Parallel, out.RepeatCalls, out.Depth = count("steps"), count("parallel"), count("repeat_calls"), count("depth")
	out.Tokens = int64(count("tokens"))
	out.USD = c.amount(f.get("usd"), w.in("usd"))
	if v := f.get("wall"); v != nil {
		out.Wall, _ = c.duration(v, w.in("wall"))
	}
	return out
}

// agentNamed finds a declared agent; nil after an error.
func (c *compiler) agentNamed(n *node, name string, w where) *agent {
	if a := c.agents[name]; a != nil {
		return a
	}
	x := fault{code: "E0305", at: n.at, msg: fmt.Sprintf("there is no agent %q", name), hint: "agents are declared in the pipeline's agents"}
	if like := c.suggest(name, sortedKeys(c.agents)); like != "" {
		x.msg, x.hint = x.msg+fmt.Sprintf(" (did you mean %q?)", like), ""
	}
	c.error(x, w)
	return nil
}

// agentStep reads a step that hands a prompt to an agent.
func (c *compiler) agentStep(f *fields, s *step) {
	d := s.def
	w := where{step: s}
	d.Kind, d.Effect = pipeline.KindAgent, pipeline.EffectAtLeastOnce
	s.returns = &pipeline.Type{Kind: "string"}
	d.Prompt = c.promptOf(f, w)
	d.Model = c.modelOf(f, w)
	d.Needs = c.needsOf(f, w)
	c.environment(f, s)
	n := f.get("agent")
	if n.kind == mapping {
		c.error(fault{code: "E0104", at: n.at, msg: "agent must be the name of an agent, not a mapping", hint: "declare it in the pipeline's agents, and name it here"}, w.in("agent"))
		return
	}
	name, ok := c.word(n, w.in("agent"))
	if !ok {
		return
	}
	a := c.agentNamed(n, name, w.in("agent"))
	if a == nil {
		return
	}
	out := c.compileAgent(a, w.in("agent"), useField)
	for _, other := range c.reached(a) {
		out.Agents = append(out.Agents, c.compileAgent(other, where{s, "agents." + other.plan.Name}, useTool))
	}
	if d.Model == nil && d.Needs == nil {
		d.Model, d.Needs = out.Model, out.Needs
	}
	if a.program() {
		if p := f.pair("requires_model"); p != nil {
			c.error(fault{code: "E0110", at: p.key.at, msg: "requires_model means nothing for an agent that is a program"}, w)
		}
	} else {
		c.fixedModel(f.get("model"), w.in("model"))
		for _, key := range []string{"env", "secrets"} {
			if p := f.pair(key); p != nil {
				c.error(fault{code: "E0110", at: p.key.at, msg: key + " means nothing for an agent without a command", hint: "give it to the tools that run programs"}, w)
			}
		}
		if out.Output != nil {
			s.returns = &pipeline.Type{Kind: "any"}
		}
	}
	if d.Prompt == nil && out.Instructions == nil && f.pair("prompt") == nil && f.pair("prompt_file") == nil {
		c.error(fault{code: "E0111", at: f.pair("agent").key.at, msg: "the agent is asked nothing", hint: "give the step a prompt or prompt_file"}, w)
	}
	d.Agent = &out
	c.session(f, s, a.program())
	c.contract(f, s, !a.program(), a.program())
	if r := d.Returns; r != nil && r.From == "model" {
		o := pipeline.AgentOutput{Retries: 1}
		if out.Output != nil {
			o = *out.Output
		}
		o.Schema = AnswerSchema(&r.Type)
		out.Output = &o
	}
}

// reached lists the agents that one comes to by tools, without itself, and marks
// them all as used.
func (c *compiler) reached(a *agent) []*agent {
	all := []*agent{a}
	for i := 0; i < len(all); i++ {
		all[i].used = true
		for _, t := range all[i].tools {
			if b := c.agents[t.plan.Agent]; b != nil && !slices.Contains(all, b) {
				all = append(all, b)
			}
		}
	}
	return all[1:]
}

// compileAgent is an agent with its templates, for one step. when is useTool of
// one that another agent calls: nothing can be filled in there.
func (c *compiler) compileAgent(a *agent, w where, when usage) pipeline.Agent {
	out := a.plan
	f := a.fields
	nested := when == useTool
	if p := f.pair("command"); p != nil && p.value.kind == list && (!nested || !c.fixedWithin(p.value, w.in("command"))) {
		out.Command = c.argv(p.value, w.in("command"), useAgent)
	}
	if v := f.get("instructions"); v != nil && (!nested || !c.fixed(v, w.in("instructions"))) {
		if v.kind != scalar || v.isNull() {
			c.wrong(v, w.in("instructions"), "a text")
		} else {
			x := c.field(v, w.in("instructions"), useField)
			if x.Template == nil {
				x.Const = v.text
			}
			out.Instructions = &x
		}
	} else if v := f.get("instructions_file"); v != nil {
		out.Instructions = c.fileField(v, w.in("instructions_file"))
	}
	if v := f.get("model"); v != nil && (!nested || !c.fixed(v, w.in("model"))) {
		out.Model = c.modelOf(f, w)
	}
	for _, t := range a.tools {
		out.Tools = append(out.Tools, c.compileTool(t, w))
	}
	for i := range out.Tools {
		if t := &out.Tools[i]; t.Agent != "" && t.Description == "" {
			t.Description = c.agents[t.Agent].plan.Description
		}
	}
	return out
}
