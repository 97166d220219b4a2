package spec

import (
	"fmt"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// promptOf reads prompt or prompt_file, of a step or of a declaration. A file is
// a template whose findings name the file. It returns nil where there is
// neither, or after an error.
func (c *compiler) promptOf(f *fields, w where) *pipeline.Field {
	p, file := f.pair("prompt"), f.pair("prompt_file")
	switch {
	case p != nil && file != nil:
		c.found.error(c.placed(fault{code: "E0102", at: file.key.at, msg: "prompt and prompt_file both say what is asked"}, w), c.found.related(p.key.off, "the other one"))
		return nil
	case p != nil:
		if p.value.kind != scalar || p.value.isNull() {
			c.wrong(p.value, w.in("prompt"), "a text")
			return nil
		}
		x := c.field(p.value, w.in("prompt"), useField)
		if x.Template == nil {
			x.Const = p.value.text
		}
		return &x
	case file != nil:
		return c.fileField(file.value, w.in("prompt_file"))
	}
	return nil
}

// fileField is the text of a file that the source names, which is a template;
// nil after an error.
func (c *compiler) fileField(n *node, w where) *pipeline.Field {
	t := c.promptFile(n, w)
	if t == nil {
		return nil
	}
	x, konst := c.compile(n, t.src, t.global, w, useField, mayCompile, nil)
	if x == nil {
		return &pipeline.Field{Const: konst}
	}
	return &pipeline.Field{Template: x}
}

// global is where a byte of the text stands among those of all files.
func (t *text) global(i int) int { return t.base + i }

// promptFile finds the text of a file that the source names.
func (c *compiler) promptFile(n *node, w where) *text {
	name, ok := c.word(n, w)
	if !ok {
		return nil
	}
	file, data := c.bundledFile(n, name, w)
	if data == nil {
		return nil
	}
	if t := c.prompts[file]; t != nil {
		return t
	}
	t, bad := newText(c.whole.shown(file), string(data))
	c.found.join(t)
	if bad != nil {
		bad.at.off, bad.at.end = bad.at.off+t.base, bad.at.end+t.base
		c.error(*bad, w)
		return nil
	}
	if c.prompts == nil {
		c.prompts = map[string]*text{}
	}
	c.prompts[file] = t
	return t
}

// bundledFile finds a file that travels with the pipeline, by its name from the
// file that names it: its path in the bundle, and what it holds; nil after an error.
func (c *compiler) bundledFile(n *node, name string, w where) (file string, data []byte) {
	file, ok := c.bundled(name)
	if !ok {
		c.error(fault{code: "E0601", at: n.at, msg: fmt.Sprintf("%s is not within the pipeline's folder", name), hint: "name a file beside the pipeline or in a folder below"}, w)
		return "", nil
	}
	data, ok = c.whole.files[file]
	if !ok {
		x := fault{code: "E0701", at: n.at, msg: fmt.Sprintf("there is no file %s", file)}
		if like := c.suggest(file, sortedKeys(c.whole.files)); like != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", like)
		} else {
			x.hint = "it is looked for relative to the file that names it"
		}
		c.error(x, w)
		return "", nil
	}
	if data == nil {
		data = []byte{}
	}
	return file, data
}

// anchor is the place in the compiler's own source of what a template names at
// off: the name itself, or the key whose file it stands in.
func (c *compiler) anchor(u *use, off int) int {
	if c.found.textAt(off) != c.text {
		return u.node.at.off
	}
	return off
}

// modelOf reads the model that a step asks.
func (c *compiler) modelOf(f *fields, w where) *pipeline.Field {
	n := f.get("model")
	if n == nil {
		return nil
	}
	if n.kind != scalar || n.isNull() {
		c.wrong(n, w.in("model"), "the name of a model")
		return nil
	}
	x := c.field(n, w.in("model"), useField)
	if x.Template == nil {
		x.Const = n.text
	}
	return &x
}

// fixedModel checks the name of a model that is no template.
func (c *compiler) fixedModel(n *node, w where) {
	if n != nil && n.kind == scalar && !n.isNull() && !templated(n.text) && !tagged(n.text) {
		c.modelNamed(n, n.text, w)
	}
}

// ask puts what a step says about its model into the parameters of the action,
// which is where actions look for it.
func (c *compiler) askModel(f *fields, s *step, a *pipeline.ActionSpec) {
	w := where{step: s}
	add := func(key string, value *pipeline.Field, names ...string) {
		p := f.pair(key)
		if p == nil {
			return
		}
		for _, name := range names {
			if !hasParameter(a, name) {
				continue
			}
			for i := range s.def.Parameters {
				if s.def.Parameters[i].Name == name {
					c.error(fault{code: "E0102", at: p.key.at, msg: fmt.Sprintf("%s and the parameter %s say the same", key, name)}, w)
					return
				}
			}
			if value != nil {
				s.def.Parameters = append(s.def.Parameters, pipeline.Entry{Name: name, Value: *value, Pos: c.text.pos(p.key.off)})
			}
			return
		}
		c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("%s means nothing here: %s takes none", key, a.Name)}, w)
	}
	c.fixedModel(f.get("model"), w.in("model"))
	add("model", c.modelOf(f, w), "model")
	if f.pair("prompt") != nil || f.pair("prompt_file") != nil {
		value := c.promptOf(f, w)
		for _, key := range []string{"prompt", "prompt_file"} {
			add(key, value, promptNames...)
		}
	}
}

// promptNames are the parameters of actions that prompt may stand for; the first
// that an action has is meant.
var promptNames = []string{"prompt", "instructions"}

// askedBy lists the parameters that keys of the step may give.
func askedBy(f *fields) []string {
	if f.pair("prompt") == nil && f.pair("prompt_file") == nil {
		return nil
	}
	return promptNames
}

func hasParameter(a *pipeline.ActionSpec, name string) bool {
	for i := range a.Params {
		if a.Params[i].Name == name {
			return true
		}
	}
	return false
}

// literal writes a constant as an expression.
func literal(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case string:
		return strings.ReplaceAll(strings.ReplaceAll(string(pipeline.EncodeValue(v)), "{", `\x7b`), "}", `\x7d`)
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = literal(v[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		parts := make([]string, 0, len(v))
		for _, k := range sortedKeys(v) {
			parts = append(parts, literal(k)+": "+literal(v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return string(pipeline.EncodeValue(v))
}
