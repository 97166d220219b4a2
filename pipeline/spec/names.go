package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// resolve finds out what every template refers to, and reports what it cannot.
// References between steps of one graph become edges.
func (c *compiler) resolve() {
	c.definitions()
	c.resolveBody(c.root)
	c.resolveBody(c.finally)
	for _, u := range c.docUses {
		c.resolveUse(u)
	}
	c.resolveSessions()
	if c.found.errs > 0 {
		return // what is unused may be so for the errors
	}
	for name, in := range c.imports {
		if !in.used {
			c.warn(fault{code: "W0701", at: in.at, msg: fmt.Sprintf("the import %s is never called", name)}, where{path: "imports." + name})
		}
	}
	c.unusedParts()
	if !c.hasInputs {
		return
	}
	for i := range c.plan.Inputs {
		in := c.inputs[c.plan.Inputs[i].Name]
		if !in.used {
			c.warn(fault{code: "W0701", at: in.at, msg: fmt.Sprintf("the input %s is never used", in.def.Name)}, where{path: "inputs." + in.def.Name})
		}
	}
}

func (c *compiler) resolveBody(b *body) {
	for _, s := range b.steps {
		for _, u := range s.uses {
			c.resolveUse(u)
		}
		for i, name := range s.writes {
			c.written(s, name, s.writeAt[i])
		}
		for _, inner := range s.bodies {
			c.resolveBody(inner)
		}
		c.exhaustive(s)
	}
}

// around is the list of steps around a block's, or nil.
func (b *body) around() *body {
	if b.owner == nil {
		return nil
	}
	return b.owner.body
}

// resolveUse resolves the references of one template.
func (c *compiler) resolveUse(u *use) {
	if slices.Contains(u.expr.Calls(), "collect_results") && !u.inLoop() {
		at := u.node.at
		if i := strings.Index(u.expr.Source(), "collect_results"); i >= 0 {
			at = c.at(u, i, i+len("collect_results"))
		}
		c.error(fault{code: "E0210", at: at, msg: "collect_results() stands outside a loop", hint: "it belongs in the state of a loop"}, u.where)
	}
	refs := u.expr.Refs()
	dashes := u.expr.Dashes()
	if len(dashes) == 0 {
		for i := range refs {
			c.name(u, &refs[i])
		}
		return
	}
	readings := map[string]reading{}
	for _, d := range dashes {
		readings[d.Name] = max(readings[d.Name], c.reading(u, d))
	}
	for i := range refs {
		r := &refs[i]
		joined := r.Dashed != "" && (r.Root == r.Dashed || slices.ContainsFunc(r.Path, func(s expr.Segment) bool { return s.Name == r.Dashed }))
		switch readings[r.Dashed] {
		case readWrong:
			continue
		case readJoined:
			if !joined && r.Dashed != "" {
				continue
			}
		case readParts:
			if joined {
				continue
			}
		}
		c.name(u, r)
	}
}

// reading is how a chain such as web-search is understood.
type reading uint8

const (
	readParts  reading = iota // a subtraction
	readJoined                // one name
	readWrong                 // reported already
)

// reading decides, and reports chains that could be both or look like a
// misspelled step.
func (c *compiler) reading(u *use, d expr.Dash) reading {
	known := func(base []string, name string) bool {
		switch {
		case len(base) == 0:
			return c.known(u, name)
		case len(base) > 1:
			return false
		}
		switch base[0] {
		case "steps":
			t, _ := c.findStep(u, name)
			return t != nil
		case "inputs":
			return c.inputs[name] != nil
		case "vars":
			return c.vars[name] != nil
		}
		return false
	}
	parts := strings.Split(d.Name, "-")
	part := ""
	for i, p := range parts {
		base := d.Base
		if i > 0 {
			base = nil
		}
		if _, isText := mustPlain(p).(string); isText && known(base, p) {
			part = p
		}
	}
	at := c.at(u, d.Off, d.End)
	if known(d.Base, d.Name) {
		if part == "" {
			return readJoined
		}
		c.error(fault{code: "E0208", at: at, msg: fmt.Sprintf("%s is a name, and so is %s: this could be a subtraction", d.Name, part), hint: fmt.Sprintf("write steps['%s'], or blanks around the minus", d.Name)}, u.where)
		return readWrong
	}
	if part == "" && (len(d.Base) == 0 || len(d.Base) == 1 && d.Base[0] == "steps") {
		if s := c.suggest(d.Name, c.idsInSight(u)); s != "" {
			c.error(fault{code: "E0202", at: at, msg: fmt.Sprintf("no step named %q (did you mean %q?)", d.Name, s)}, u.where)
			return readWrong
		}
		if len(d.Base) == 1 {
			c.error(fault{code: "E0202", at: at, msg: fmt.Sprintf("no step named %q", d.Name)}, u.where)
			return readWrong
		}
	}
	return readParts
}

// inLoop reports whether loop names mean something for the use.
func (u *use) inLoop() bool {
	s := u.where.step
	if s == nil {
		return false
	}
	if u.when == useTest || u.when == useCollect || u.when == useExhausted || u.when == useState && s.def.Loop != nil {
		return true
	}
	for b := s.body; b != nil; b = b.around() {
		if b.loop {
			return true
		}
	}
	return false
}

// loops calls f for the loops whose names the use can see, inner ones first.
func (u *use) loops(f func(*step) bool) bool {
	s := u.where.step
	if s == nil {
		return false
	}
	if (u.when == useTest || u.when == useCollect) && f(s) {
		return true
	}
	for b := s.body; b != nil; b = b.around() {
		if b.loop && f(b.owner) {
			return true
		}
	}
	return false
}

// overItems reports whether the step is a loop over items, which have a name.
func (s *step) overItems() bool {
	return s.def.Loop != nil && (s.def.Kind == pipeline.KindFor || s.def.Kind == pipeline.KindQueue)
}

// judging reports whether the use belongs to the judge of candidates.
func (u *use) judging() bool {
	for s := u.where.step; s != nil; s = s.parent() {
		if s.judge {
			return true
		}
	}
	return false
}

// loopName reports whether name is one of the loops around the use, or what a
// judge is given.
func (u *use) loopName(name string) bool {
	if name == "candidates" && u.judging() {
		return true
	}
	return u.loops(func(l *step) bool {
		switch name {
		case "index", "position", "loop_iteration", "iteration":
			return true
		case "item":
			return l.overItems()
		}
		return l.overItems() && l.def.Loop.Variable == name
	})
}

// known reports whether a bare name means something to the use.
func (c *compiler) known(u *use, name string) bool {
	if u.loopName(name) || c.state[name] != nil || c.vars[name] != nil || slices.Contains(builtinNames, name) {
		return true
	}
	if in := c.inputs[name]; in != nil && (c.hasInputs || in.used) {
		return true
	}
	t, _ := c.findStep(u, name)
	return t != nil
}

// findStep finds a step that the use can name, and the list that it stands in.
func (c *compiler) findStep(u *use, id string) (*step, *body) {
	for b := c.firstBody(u); b != nil; b = c.nextBody(b) {
		if t := b.byID[id]; t != nil {
			return t, b
		}
	}
	return nil, nil
}

func (c *compiler) firstBody(u *use) *body {
	s := u.where.step
	switch {
	case u.when == useOutputs:
		return c.root
	case s == nil:
		return nil
	case u.when == useCollect && len(s.bodies) > 0:
		return s.bodies[0]
	}
	return s.body
}

func (c *compiler) nextBody(b *body) *body {
	if b.final {
		return c.root
	}
	return b.around()
}

// idsInSight lists the ids that the use can name.
func (c *compiler) idsInSight(u *use) []string {
	if c.suggested > maxSuggested || len(c.found.list) > 2*maxDiagnostics {
		return nil
	}
	var ids []string
	for b := c.firstBody(u); b != nil; b = c.nextBody(b) {
		for id := range b.byID {
			ids = append(ids, id)
		}
	}
	return ids
}

// inSight lists the names that the use can write.
func (c *compiler) inSight(u *use) []string {
	if c.suggested > maxSuggested || len(c.found.list) > 2*maxDiagnostics {
		return nil
	}
	names := c.idsInSight(u)
	for name, in := range c.inputs {
		if c.hasInputs || in.used {
			names = append(names, name)
		}
	}
	for name := range c.vars {
		names = append(names, name)
	}
	for name := range c.state {
		names = append(names, name)
	}
	u.loops(func(l *step) bool {
		if l.overItems() {
			names = append(names, l.def.Loop.Variable, "item")
		}
		names = append(names, "index", "position", "iteration")
		return false
	})
	return append(names, "inputs", "steps", "vars", "run", "pipeline")
}

// name resolves one reference.
func (c *compiler) name(u *use, r *expr.Ref) {
	if r.Root == pipeline.AutoName {
		if !u.answer(r) {
			c.error(fault{code: "E0201", at: c.at(u, r.Off, r.End), msg: pipeline.AutoName + " is a name of the engine's own"}, u.where)
		}
		return
	}
	if u.loopName(r.Root) || u.when == useAgent && r.Root == "model" {
		return
	}
	if c.given(u, r) {
		return
	}
	if c.state[r.Root] != nil {
		c.read(u, r)
		return
	}
	if in := c.inputs[r.Root]; in != nil && c.hasInputs {
		in.used = true
		c.typed(u, r, 0, &in.def.Type, "the input "+r.Root)
		return
	}
	if t, b := c.findStep(u, r.Root); t != nil {
		c.stepRef(u, r, t, b, span{r.Off, r.End}, 0)
		return
	}
	if v := c.vars[r.Root]; v != nil {
		c.varRef(u, r.Root, c.at(u, r.Off, r.End))
		return
	}
	if c.builtin(u, r) {
		return
	}
	c.unknown(u, r)
}

// builtin resolves the names that nobody defines.
func (c *compiler) builtin(u *use, r *expr.Ref) bool {
	at := c.at(u, r.Off, r.End)
	first := (*expr.Segment)(nil)
	if len(r.Path) > 0 && !r.Path[0].IsIndex {
		first = &r.Path[0]
	}
	member := func(what string, names []string) {
		if first == nil || slices.Contains(names, first.Name) || r.Guarded && len(r.Path) == 1 {
			return
		}
		x := fault{code: "E0201", at: c.at(u, first.Off, first.End), msg: fmt.Sprintf("there is no %s %q", what, first.Name), hint: "known are " + quoteList(names)}
		if len(names) == 0 {
			x.hint = "there is none"
		}
		if s := c.suggest(first.Name, names); s != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", s)
		}
		c.error(x, u.where)
	}
	switch r.Root {
	case "inputs":
		c.inputsRef(u, r, first, member)
	case "vars":
		names := make([]string, len(c.plan.Vars))
		for i := range c.plan.Vars {
			names[i] = c.plan.Vars[i].Name
		}
		member("var", names)
		switch {
		case first != nil && c.vars[first.Name] != nil:
			c.varRef(u, first.Name, c.at(u, first.Off, first.End))
		case first == nil && u.when == useVars:
			c.error(fault{code: "E0204", at: at, msg: "vars are worked out one after the other: name the one that is meant", hint: "as in vars.style"}, u.where)
		}
	case "steps":
		if first == nil {
			c.error(fault{code: "E0202", at: at, msg: "steps needs the id of a step", hint: "as in steps.fetch; an id that is worked out cannot be waited for"}, u.where)
			return true
		}
		if t, b := c.findStep(u, first.Name); t != nil {
			c.stepRef(u, r, t, b, span{first.Off, first.End}, 1)
		} else {
			c.unknownStep(u, first.Name, c.at(u, first.Off, first.End))
		}
	case "run":
		member("value of run named", []string{"id", "created_at", "scheduled_at"})
	case "pipeline":
		member("value of pipeline named", []string{"id", "name", "version", "dir"})
	case "state":
		x := fault{code: "E0201", at: at, msg: "a state variable is read by its name alone"}
		if first != nil {
			x.hint = fmt.Sprintf("write {{ %s }}", first.Name)
		}
		c.error(x, u.where)
	case "env":
		c.error(fault{code: "E0201", at: at, msg: "the environment cannot be read in expressions", hint: "hand values in as inputs; a command finds its environment itself"}, u.where)
	case "secrets":
		c.secretRef(u, r, first)
	case "item", "index", "position", "loop_iteration":
		x := fault{code: "E0210", at: at, msg: fmt.Sprintf("%s has a meaning only within a loop", r.Root)}
		if r.Root == "item" && u.inLoop() {
			x.msg = "item has a meaning only within a loop over items"
		}
		if s := u.where.step; s != nil && s.def.Loop != nil {
			x.hint = "the keys of the loop itself are worked out before its first pass"
		}
		c.error(x, u.where)
	default:
		return false
	}
	return true
}

func (c *compiler) inputsRef(u *use, r *expr.Ref, first *expr.Segment, member func(string, []string)) {
	if first == nil {
		for _, in := range c.inputs {
			in.used = true
		}
		return
	}
	if !c.hasInputs {
		c.infer(u, first.Name, c.at(u, first.Off, first.End), r.Guarded && len(r.Path) == 1)
		return
	}
	names := make([]string, len(c.plan.Inputs))
	for i := range c.plan.Inputs {
		names[i] = c.plan.Inputs[i].Name
	}
	if in := c.inputs[first.Name]; in != nil {
		in.used = true
		c.typed(u, r, 1, &in.def.Type, "the input "+first.Name)
		return
	}
	member("input", names)
}

// varRef checks the order of vars.
func (c *compiler) varRef(u *use, name string, at span) {
	if u.when != useVars {
		return
	}
	if own := c.vars[u.name]; own != nil && c.vars[name].index >= own.index {
		c.error(fault{code: "E0204", at: at, msg: fmt.Sprintf("the var %s is worked out later", name), hint: "put it before this one"}, u.where)
	}
}

// unknownStep reports an id that the use cannot name.
func (c *compiler) unknownStep(u *use, id string, at span) {
	if others := c.steps[id]; len(others) > 0 {
		c.outOfScope(u, others[0], at)
		return
	}
	x := fault{code: "E0202", at: at, msg: fmt.Sprintf("no step named %q", id)}
	if s := c.suggest(id, c.idsInSight(u)); s != "" {
		x.msg += fmt.Sprintf(" (did you mean %q?)", s)
	}
	c.error(x, u.where)
}

// outOfScope reports a step that exists where the use cannot see it.
func (c *compiler) outOfScope(u *use, t *step, at span) {
	id := t.def.ID
	related := c.found.related(t.at.off, "%s is here", id)
	x := fault{code: "E0210", at: at}
	switch {
	case u.when == useVars:
		x.code, x.msg = "E0204", "vars are worked out before any step has run"
	case u.when == useServer:
		x.code, x.msg = "E0204", "an MCP server is the same for the whole run and cannot depend on steps"
	case t.body.final:
		x.code, x.msg = "E0204", fmt.Sprintf("the step %s stands in finally, which runs after everything else", id)
	case t.body.loop && t.parent() != nil:
		x.msg = fmt.Sprintf("the step %s runs within the loop %s and cannot be named outside it", id, t.parent().def.ID)
		x.hint = fmt.Sprintf("%s.last.%s is its output in the last pass, %s.results has all passes", t.parent().def.ID, id, t.parent().def.ID)
	case t.parent() != nil:
		x.msg = fmt.Sprintf("the step %s runs within the block %s and cannot be named outside it", id, t.parent().def.ID)
		switch outer := t.parent(); outer.def.Kind {
		case pipeline.KindCompete:
			x.hint = fmt.Sprintf("%s.candidates.%s is its output", outer.def.ID, id)
		case pipeline.KindIf, pipeline.KindMatch:
			x.hint = fmt.Sprintf("%s.%s is its output where its arm was taken", outer.def.ID, id)
		default:
			x.hint = fmt.Sprintf("%s.%s is its output", outer.def.ID, id)
		}
	default:
		x.msg = fmt.Sprintf("the step %s cannot be named here", id)
	}
	c.found.error(c.placed(x, u.where), related)
}

// unknown reports a name that nothing defines, or makes it an input.
func (c *compiler) unknown(u *use, r *expr.Ref) {
	at := c.at(u, r.Off, r.End)
	if c.notGiven(u, r, at) {
		return
	}
	if others := c.steps[r.Root]; len(others) > 0 {
		c.outOfScope(u, others[0], at)
		return
	}
	if !c.hasInputs {
		c.infer(u, r.Root, at, r.Guarded && len(r.Path) == 0)
		return
	}
	x := fault{code: "E0201", at: at, msg: fmt.Sprintf("there is nothing named %q", r.Root)}
	if s := c.suggest(r.Root, c.inSight(u)); s != "" {
		x.msg += fmt.Sprintf(" (did you mean %q?)", s)
	} else {
		x.hint = "declare it in inputs, if it is handed in"
	}
	c.error(x, u.where)
}

// infer makes an input of an undeclared name.
func (c *compiler) infer(u *use, name string, at span, guarded bool) {
	if name == pipeline.AutoName {
		c.error(fault{code: "E0201", at: at, msg: pipeline.AutoName + " is a name of the engine's own"}, u.where)
		return
	}
	if in := c.inputs[name]; in != nil {
		in.def.Required = in.def.Required || !guarded
		return
	}
	x := fault{code: "W0201", at: at, msg: fmt.Sprintf("%s becomes an input of any type, as nothing defines it", name), hint: "declare it in inputs"}
	if s := c.suggest(name, c.inSight(u)); s != "" {
		x.hint = fmt.Sprintf("did you mean %q?", s)
	}
	c.warn(x, u.where)
	c.inputs[name] = &input{used: true, at: at, def: pipeline.Input{
		Name: name, Type: pipeline.Type{Kind: "any"}, Required: !guarded, Pos: c.text.pos(c.anchor(u, at.off)),
	}}
}

// read notes that a step reads a state variable.
func (c *compiler) read(u *use, r *expr.Ref) {
	if u.when == useVars {
		c.error(fault{code: "E0204", at: c.at(u, r.Off, r.End), msg: "vars are worked out before any state is set"}, u.where)
		return
	}
	if u.when == useServer {
		c.error(fault{code: "E0204", at: c.at(u, r.Off, r.End), msg: "an MCP server is the same for the whole run and cannot depend on its state"}, u.where)
		return
	}
	if s := u.where.step; s != nil {
		s.touch(r.Root, false, c.anchor(u, c.at(u, r.Off, r.End).off))
	}
}

// written notes that a step sets a state variable, and refuses it in parallel
// passes.
func (c *compiler) written(s *step, name string, at span) {
	s.touch(name, true, at.off)
	for b := s.body; b != nil; b = b.around() {
		if l := b.owner; l != nil && b.loop && l.def.Loop.Parallel != 0 && l.def.Loop.Parallel != 1 {
			c.found.error(fault{code: "E0412", at: at, step: s.path(), path: "state." + name, msg: fmt.Sprintf("passes of the parallel loop %s would all set %s", l.def.ID, name), hint: "set it in the state of the loop itself, from collect_results()"}, c.found.related(l.at.off, "the loop"))
			return
		}
	}
}

// touch notes an access to a state variable for the step and for each block
// around it that stands in a graph.
func (s *step) touch(name string, write bool, off int) {
	for ; s != nil; s = s.parent() {
		if !s.body.graph {
			continue
		}
		if s.access == nil {
			s.access = map[string]*pos{}
		}
		p := s.access[name]
		if p == nil {
			p = &pos{off: off}
			s.access[name] = p
		}
		if write && !p.write {
			p.write, p.off = true, off
		}
	}
}
