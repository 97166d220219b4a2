package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxCalls is how many pipelines may be nested within each other.
const maxCalls = 16

// program is what the pipelines of one plan have in common.
type program struct {
	file     string // of the outermost pipeline
	files    pipeline.Bundle
	plan     *pipeline.Plan
	imported map[string]*callee // by path in the bundle; nil while it is being read
	reading  []string           // the files that are being read, outer ones first
	findings []*findings        // of the imported files and skills
	skills   map[string]*SkillFile
}

// finish puts the outermost pipeline into the plan.
func (p *program) finish(own *pipeline.Plan) *pipeline.Plan {
	plan := p.plan
	plan.Format, plan.Unit, plan.Templates = pipeline.PlanFormat, own.Unit, own.Templates
	for _, s := range plan.Secrets {
		if !slices.Contains(own.Secrets, s) {
			own.Secrets = append(own.Secrets, s)
		}
	}
	plan.Secrets, plan.On = own.Secrets, own.On
	return plan
}

// callee is a pipeline that can be called.
type callee struct {
	unit    int // of the plan
	inputs  []pipeline.Input
	outputs *pipeline.Type
	height  int      // how deep calls are nested in it; 1: it calls nothing
	good    bool     // it has no errors
	bounds  []string // of its settings, which hold for runs of its own alone
}

// imported is an entry of imports.
type imported struct {
	at     span
	callee *callee // nil: it could not be read
	used   bool
}

// bundled finds the path within the bundle of a file that the source names:
// relative to the folder of the file that names it.
func (c *compiler) bundled(name string) (string, bool) {
	p := path.Join(c.dir, strings.ReplaceAll(name, `\`, "/"))
	ok := name != "" && !path.IsAbs(name) && p != ".." && !strings.HasPrefix(p, "../")
	return p, ok
}

// declareImports reads the pipelines that this one calls.
func (c *compiler) declareImports(n *node) {
	c.imports = map[string]*imported{}
	if n == nil || n.isNull() {
		return
	}
	w := where{path: "imports"}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping from names to files")
		return
	}
	for i := range n.pairs {
		p := &n.pairs[i]
		if !c.goodName(p.key, p.name, "the name of an import", w) {
			continue
		}
		in := &imported{at: p.key.at}
		c.imports[p.name] = in
		if name, ok := c.word(p.value, w.in(p.name)); ok {
			in.callee = c.importFile(p.value, name, w.in(p.name))
		}
	}
}

// importFile compiles an imported file, once for all that import it. It returns
// nil where the file cannot be used.
func (c *compiler) importFile(n *node, name string, w where) *callee {
	whole := c.whole
	file, ok := c.bundled(name)
	if !ok {
		c.error(fault{code: "E0601", at: n.at, msg: fmt.Sprintf("%s is not within the pipeline's folder", name), hint: "name a file beside the pipeline or in a folder below"}, w)
		return nil
	}
	if i := slices.Index(whole.reading, file); i >= 0 {
		cycle := append(slices.Clone(whole.reading[i:]), file)
		c.error(fault{code: "E0702", at: n.at, msg: "these pipelines import each other: " + strings.Join(cycle, " -> "), hint: "repeat with a loop, not by a call to oneself"}, w)
		return nil
	}
	depth := c.depth + 1
	if known := whole.imported[file]; known != nil {
		if c.tooDeep(n, c.depth+known.height, w) {
			return nil
		}
		c.height = max(c.height, known.height+1)
		return known
	}
	data, ok := whole.files[file]
	if !ok {
		x := fault{code: "E0701", at: n.at, msg: fmt.Sprintf("there is no file %s", file)}
		names := make([]string, 0, len(whole.files))
		for f := range whole.files {
			names = append(names, f)
		}
		if like := c.suggest(file, names); like != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", like)
		} else {
			x.hint = "imports name files relative to the file that they stand in"
		}
		c.error(x, w)
		return nil
	}
	if c.tooDeep(n, depth, w) {
		return nil
	}
	t, bad := newText(whole.shown(file), string(data))
	found := newFindings(t)
	whole.findings = append(whole.findings, found)
	if bad != nil {
		found.error(*bad)
		return nil
	}
	root := load(t, found)
	if root == nil {
		return nil
	}
	whole.reading = append(whole.reading, file)
	sub := c.within(t, found)
	sub.dir = path.Dir(file)
	known := c.callee(sub, root, "")
	whole.reading = whole.reading[:len(whole.reading)-1]
	whole.imported[file] = known
	return known
}

func (c *compiler) tooDeep(n *node, depth int, w where) bool {
	if depth <= maxCalls {
		return false
	}
	c.error(fault{code: "E0703", at: n.at, msg: fmt.Sprintf("pipelines are nested deeper than %d", maxCalls)}, w)
	return true
}

// within is a compiler for a pipeline that this one calls.
func (c *compiler) within(t *text, found *findings) *compiler {
	sub := newCompiler(t, found, c.cat, c.whole)
	sub.dir, sub.depth, sub.templates, sub.suggested = c.dir, c.depth+1, c.templates, c.suggested
	return sub
}

// callee compiles a called pipeline and adds it to the plan.
func (c *compiler) callee(sub *compiler, root *node, name string) *callee {
	sub.title = name
	errs := sub.found.errs
	plan := sub.document(root)
	c.templates, c.suggested = sub.templates, sub.suggested
	c.height = max(c.height, sub.height+1)
	out := &callee{height: sub.height}
	if plan == nil || sub.found.errs > errs {
		return out
	}
	if plan.Settings.Timeout > 0 {
		out.bounds = append(out.bounds, "timeout")
	}
	if plan.Settings.Budget != nil {
		out.bounds = append(out.bounds, "budget")
	}
	whole := c.whole.plan
	out.good, out.unit, out.inputs, out.outputs = true, len(whole.Units), plan.Inputs, sub.outputs()
	whole.Units = append(whole.Units, &plan.Unit)
	for _, s := range plan.Secrets {
		if !slices.Contains(c.whole.plan.Secrets, s) {
			whole.Secrets = append(whole.Secrets, s)
		}
	}
	return out
}

// outputs is the type of what the pipeline gives.
func (c *compiler) outputs() *pipeline.Type {
	t := &pipeline.Type{Kind: "map"}
	if !c.plan.HasOutputs {
		t.Properties = c.root.outputs(false)
		return t
	}
	for i := range c.plan.Outputs {
		e := &c.plan.Outputs[i]
		p := pipeline.Property{Name: e.Name, Type: pipeline.Type{Kind: "any"}}
		if isConst(&e.Value) && e.Value.Const != nil {
			p.Type = typeOfValue(e.Value.Const)
		}
		t.Properties = append(t.Properties, p)
	}
	return t
}

// call reads a step that runs another pipeline.
func (c *compiler) call(f *fields, s *step, kind string) {
	w := where{step: s}
	d := s.def
	d.Kind, d.Effect = pipeline.KindCall, pipeline.EffectPure
	d.Call = &pipeline.Call{Detach: c.boolean(f.get("detach"), w.in("detach"))}
	var to *callee
	switch n := f.get(kind); {
	case kind == "pipeline" && n.kind != mapping:
		c.wrong(n, w.in(kind), "a pipeline, with steps")
	case kind == "pipeline":
		d.Call.Name = d.ID
		if c.tooDeep(n, c.depth+1, w.in(kind)) {
			break
		}
		sub := c.within(c.text, c.found)
		sub.outside = s
		to = c.callee(sub, n, d.ID)
	default:
		to = c.callNamed(n, s)
	}
	with := f.pair("parameters")
	if with != nil && with.value.isNull() {
		with = nil
	}
	if with != nil {
		if with.value.kind != mapping {
			c.wrong(with.value, w.in(with.name), "a mapping")
			return
		}
		d.Call.With = c.entries(with.value, w.in(with.name), useField)
	}
	if to == nil || !to.good {
		s.returns = &pipeline.Type{Kind: "any"}
		return
	}
	d.Call.Unit = to.unit
	c.with(to, f.pair(kind), with, s)
	if d.Call.Detach {
		return
	}
	s.returns = to.outputs
	for _, b := range to.bounds {
		c.warn(fault{code: "W0702", at: f.pair(kind).key.at, msg: fmt.Sprintf("the %s in the settings of %s means nothing here: the settings of the run hold", b, d.Call.Name), hint: "it bounds runs of its own, as with detach: true"}, w)
	}
}

// callNamed finds the import that a call names.
func (c *compiler) callNamed(n *node, s *step) *callee {
	w := where{s, "call"}
	name, ok := c.word(n, w)
	if !ok {
		return nil
	}
	s.def.Call.Name = name
	return c.importNamed(n, name, w)
}

// importNamed finds an import by its name; nil after an error.
func (c *compiler) importNamed(n *node, name string, w where) *callee {
	if in := c.imports[name]; in != nil {
		in.used = true
		return in.callee
	}
	x := fault{code: "E0701", at: n.at, msg: fmt.Sprintf("nothing is imported as %q", name), hint: fmt.Sprintf("as in imports: {%s: lib/%s.yaml}", "review", "review")}
	names := make([]string, 0, len(c.imports))
	for k := range c.imports {
		names = append(names, k)
	}
	if like := c.suggest(name, names); like != "" {
		x.msg, x.hint = x.msg+fmt.Sprintf(" (did you mean %q?)", like), ""
	}
	c.error(x, w)
	return nil
}

// with checks what a call gives against the inputs of the called pipeline. What
// templates give is checked when the call begins.
func (c *compiler) with(to *callee, kind, with *pair, s *step) {
	w := where{s, "with"}
	call := s.def.Call
	given := map[string]bool{}
	broken := false // an input was reported; what is missing may be meant by it
	for i := range call.With {
		e := &call.With[i]
		given[e.Name] = true
		p := &with.value.pairs[i]
		k := slices.IndexFunc(to.inputs, func(in pipeline.Input) bool { return in.Name == e.Name })
		if k < 0 {
			names := make([]string, len(to.inputs))
			for j := range to.inputs {
				names[j] = to.inputs[j].Name
			}
			x := fault{code: "E0704", at: p.key.at, msg: fmt.Sprintf("%s has no input %q", call.Name, e.Name), hint: "it has " + quoteList(names)}
			if len(names) == 0 {
				x.hint = "it has none"
			}
			if like := c.suggest(e.Name, names); like != "" {
				x.msg += fmt.Sprintf(" (did you mean %q?)", like)
			}
			c.error(x, w)
			broken = true
			continue
		}
		in := &to.inputs[k]
		if p.value.isNull() && !in.Required {
			continue
		}
		c.fitsAs("E0704", &in.Type, p.value, &e.Value, e.Name, w.in(e.Name))
	}
	for i := range to.inputs {
		in := &to.inputs[i]
		if in.Required && !given[in.Name] && !broken {
			c.error(fault{code: "E0704", at: kind.key.at, msg: fmt.Sprintf("%s needs the input %s: %s", call.Name, in.Name, typeText(&in.Type)), hint: in.Description}, w)
		}
	}
}

// fitsAs is fits with a code of its own.
func (c *compiler) fitsAs(code string, t *pipeline.Type, n *node, f *pipeline.Field, name string, w where) {
	from := len(c.found.list)
	c.fits(t, n, f, name, w)
	for i := from; i < len(c.found.list); i++ {
		if c.found.list[i].Code == "E0303" {
			c.found.list[i].Code = code
		}
	}
}
