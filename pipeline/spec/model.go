package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// model is a model that the pipeline names itself.
type model struct {
	at   span
	used bool
}

// declareModels reads the models block.
func (c *compiler) declareModels(n *node) {
	c.models = map[string]*model{}
	if n == nil || n.isNull() {
		return
	}
	w := where{path: "models"}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping from names to models")
		return
	}
	for i := range n.pairs { // they may fall back on later ones
		c.models[n.pairs[i].name] = &model{at: n.pairs[i].key.at}
	}
	for i := range n.pairs {
		p := &n.pairs[i]
		w := w.in(p.name)
		switch {
		case !modelName(p.name):
			c.error(fault{code: "E0113", at: p.key.at, msg: fmt.Sprintf("%q cannot be a model's name", p.name), hint: "letters, digits, dots, _, :, / and -, beginning with a letter or digit; at most 100"}, w)
		case p.value.kind != mapping:
			c.wrong(p.value, w, "a mapping with provider and model")
		default:
			c.plan.Models = append(c.plan.Models, c.declareModel(p, w))
		}
	}
}

// modelName reports whether a text can name a model of the pipeline's own.
func modelName(s string) bool {
	return IsID(strings.NewReplacer(":", "-", "/", "-").Replace(s))
}

func (c *compiler) declareModel(p *pair, w where) pipeline.ModelAlias {
	f := c.fields(p.value, inModel, w)
	m := pipeline.ModelAlias{Name: p.name, Pos: c.text.pos(p.key.off)}
	m.Provider = c.choose(f.get("provider"), w.in("provider"), providers...)
	m.API = c.oneOf(f.get("api"), w.in("api"), modelAPIs...)
	if v := f.get("model"); v != nil {
		m.Model, _ = c.word(v, w.in("model"))
	}
	if v := f.get("base_url"); v != nil {
		if m.BaseURL, _ = c.word(v, w.in("base_url")); m.BaseURL != "" && !webAddress(m.BaseURL) {
			c.error(fault{code: "E0104", at: v.at, msg: fmt.Sprintf("base_url cannot be %q", m.BaseURL), hint: "as in http://localhost:11434/v1"}, w.in("base_url"))
		}
	}
	if v := f.get("key"); v != nil {
		if name, ok := c.word(v, w.in("key")); ok && c.secretNamed(v, name, w.in("key")) {
			m.Key = name
		}
	}
	if v := f.get("temperature"); v != nil {
		if t := c.bound(v, w.in("temperature")); t != nil && (*t < 0 || *t > 2) {
			c.error(fault{code: "E0104", at: v.at, msg: "temperature must be from 0 to 2"}, w.in("temperature"))
		} else {
			m.Temperature = t
		}
	}
	if v := f.get("max_tokens"); v != nil {
		k, _ := c.integer(v, w.in("max_tokens"), 1)
		m.MaxTokens = int64(k)
	}
	c.modelFile(f, &m, p, w)
	names, nodes := c.names(f.get("fallback"), w.in("fallback"))
	for i, name := range names {
		if name == p.name {
			c.error(fault{code: "E0304", at: nodes[i].at, msg: fmt.Sprintf("the model %s cannot fall back on itself", name)}, w.in("fallback"))
			continue
		}
		c.modelNamed(nodes[i], name, w.in("fallback"))
	}
	m.Fallback = names
	if m.Provider == "" && !f.broken {
		name := m.Model
		at := f.get("model")
		if name == "" {
			name, at = m.Name, p.key
		}
		if c.cat.models != nil && c.registered(name) == nil {
			c.unknownModel(at.at, name, w)
		}
	}
	return m
}

// modelFile reads the file of answers that some providers give.
func (c *compiler) modelFile(f *fields, m *pipeline.ModelAlias, at *pair, w where) {
	file := f.pair("file")
	recorded := m.Provider == "script" || m.Provider == "cassette"
	switch {
	case file == nil && recorded && !f.broken:
		c.error(fault{code: "E0111", at: at.key.at, msg: fmt.Sprintf("the provider %s needs a file", m.Provider), hint: "as in file: answers.yaml, beside the pipeline"}, w)
	case file == nil:
	case !recorded:
		c.error(fault{code: "E0110", at: file.key.at, msg: "file means nothing here: it belongs to the providers script and cassette"}, w)
	default:
		if name, ok := c.word(file.value, w.in("file")); ok {
			m.File, _ = c.bundledFile(file.value, name, w.in("file"))
		}
	}
	if recorded {
		for _, key := range []string{"base_url", "api", "key"} {
			if p := f.pair(key); p != nil {
				c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("%s means nothing for the provider %s", key, m.Provider)}, w)
			}
		}
	}
}

// webAddress reports whether a text is an absolute http or https address.
func webAddress(s string) bool {
	rest, ok := strings.CutPrefix(s, "https://")
	if !ok {
		rest, ok = strings.CutPrefix(s, "http://")
	}
	return ok && rest != "" && !strings.HasPrefix(rest, "/") && !strings.ContainsAny(s, " \t\n")
}

// registered finds a model of the registry.
func (c *compiler) registered(name string) *pipeline.ModelSpec {
	i := slices.IndexFunc(c.cat.models, func(m pipeline.ModelSpec) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &c.cat.models[i]
}

// modelNamed checks the name of a model, where the registry is known.
func (c *compiler) modelNamed(n *node, name string, w where) { c.modelAt(n.at, name, w) }

func (c *compiler) modelAt(at span, name string, w where) {
	if m := c.models[name]; m != nil {
		m.used = true
		return
	}
	if c.cat.models != nil && c.registered(name) == nil {
		c.unknownModel(at, name, w)
	}
}

func (c *compiler) unknownModel(at span, name string, w where) {
	known := sortedKeys(c.models)
	for i := range c.cat.models {
		known = append(known, c.cat.models[i].Name)
	}
	x := fault{code: "E0304", at: at, msg: fmt.Sprintf("there is no model %q", name), hint: "known are " + quoteList(known)}
	if len(known) == 0 {
		x.hint = "the server's registry is empty: name one in the pipeline's models"
	}
	if like := c.suggest(name, known); like != "" {
		x.msg += fmt.Sprintf(" (did you mean %q?)", like)
	}
	c.error(x, w)
}

// modelParameter checks the parameter by which an action is told its model.
func (c *compiler) modelParameter(es []pipeline.Entry, n *node, w where) {
	for i := range es {
		name, fixed := es[i].Value.Const.(string)
		if v := n.get("model"); es[i].Name == "model" && fixed && v != nil {
			c.modelNamed(v, name, w.in("parameters.model"))
		}
	}
}

// needsOf reads what a model must be able to do. Where the registry is known, one
// of it must; or the one that is named beside it.
func (c *compiler) needsOf(f *fields, w where) *pipeline.Needs {
	p := f.pair("requires_model")
	if p == nil {
		return nil
	}
	w = w.in("requires_model")
	if p.value.kind != mapping || len(p.value.pairs) == 0 {
		c.wrong(p.value, w, "a mapping of what the model must be able to do")
		return nil
	}
	errs := c.found.errs
	g := c.fields(p.value, inNeeds, w)
	out := &pipeline.Needs{
		Expertise: c.choose(g.get("expertise"), w.in("expertise"), pipeline.Expertises...),
		CostLimit: c.amount(g.get("cost_limit"), w.in("cost_limit")),
		MinSize:   c.size(g.get("min_size"), w.in("min_size")), MaxSize: c.size(g.get("max_size"), w.in("max_size")),
		Tools: c.boolean(g.get("tools"), w.in("tools")), Structured: c.boolean(g.get("structured"), w.in("structured")), Streaming: c.boolean(g.get("streaming"), w.in("streaming")),
	}
	out.Tasks, _ = c.names(g.get("tasks"), w.in("tasks"))
	out.Languages, _ = c.names(g.get("languages"), w.in("languages"))
	if v := g.get("min_context"); v != nil {
		k, _ := c.integer(v, w.in("min_context"), 1)
		out.MinContext = int64(k)
	}
	if v := g.get("policy"); v != nil {
		out.Policy, _ = c.word(v, w.in("policy"))
	}
	if least, most := pipeline.ModelSize(out.MinSize), pipeline.ModelSize(out.MaxSize); most > 0 && least > most {
		c.error(fault{code: "E0104", at: g.get("max_size").at, msg: "max_size is less than min_size"}, w.in("max_size"))
	}
	if c.found.errs == errs && c.cat.models != nil {
		c.satisfied(out, p, f.get("model"), w)
	}
	return out
}

// satisfied reports requirements that no model meets, or not the one that is named.
func (c *compiler) satisfied(needs *pipeline.Needs, p *pair, named *node, w where) {
	if named != nil && named.kind == scalar && !templated(named.text) && !tagged(named.text) {
		if m := c.registered(named.text); m != nil {
			if lack := needs.Lacks(m); lack != "" {
				c.error(fault{code: "E0304", at: p.key.at, msg: fmt.Sprintf("the model %s is not as required: %s", m.Name, lack)}, w)
			}
		}
		return
	}
	var why []string
	for i := range c.cat.models {
		m := &c.cat.models[i]
		lack := needs.Lacks(m)
		if lack == "" {
			return
		}
		why = append(why, m.Name+": "+lack)
	}
	x := fault{code: "E0304", at: p.key.at, msg: "no model of the registry is as required", hint: strings.Join(why[:min(5, len(why))], "; ")}
	if len(why) == 0 {
		x.hint = "the server's registry is empty"
	}
	c.error(x, w)
}

func (c *compiler) size(n *node, w where) string {
	if n == nil {
		return ""
	}
	s, ok := c.word(n, w)
	if ok && pipeline.ModelSize(s) == 0 {
		c.error(fault{code: "E0104", at: n.at, msg: fmt.Sprintf("%s cannot be %q", lastName(w.path), s), hint: "a number of parameters, as in 7B or 350M"}, w)
		return ""
	}
	return strings.TrimSpace(s)
}

// budget reads what the model calls of a run may take.
func (c *compiler) budget(n *node, w where) *pipeline.Budget {
	if n.kind != mapping || len(n.pairs) == 0 {
		c.wrong(n, w, "a mapping with tokens, usd or calls")
		return nil
	}
	f := c.fields(n, inBudget, w)
	out := &pipeline.Budget{USD: c.amount(f.get("usd"), w.in("usd"))}
	if v := f.get("tokens"); v != nil {
		k, _ := c.integer(v, w.in("tokens"), 1)
		out.Tokens = int64(k)
	}
	if v := f.get("calls"); v != nil {
		k, _ := c.integer(v, w.in("calls"), 1)
		out.Calls = int64(k)
	}
	return out
}

// allowed reports what the server's policy forbids; names are all by which the
// policy may speak of it, the first for the message.
func (c *compiler) allowed(at span, w where, names ...string) bool {
	if c.cat.policy.Allows(names...) {
		return true
	}
	c.error(fault{code: "E0602", at: at, msg: fmt.Sprintf("this server does not allow %s", names[0]), hint: "it allows " + quoteList(c.cat.policy.Actions)}, w)
	return false
}
