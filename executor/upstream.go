package executor

import (
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// upstream knows which steps of a plan follow which, so that a fork can tell what
// follows something that has run again. It speaks of steps, not of instances: all
// passes of a loop are one.
type upstream struct {
	steps map[string]*planStep
	list  []*planStep // in the order of the source
}

// planStep is a step of the plan, within all that it is called by.
type planStep struct {
	def    *pipeline.StepDef
	key    string
	block  *planStep   // that it stands in; nil: none
	before []*planStep // of its body, that it waits for
	after  []*planStep // of its body, that wait for it, or that it jumps back to
	within []*planStep // of blocks
	last   []*planStep // of calls: the steps of finally
	final  bool        // it is of a finally, or stands in one
	ran    bool        // it, or something within, has run again
	shaken string      // the path of what has run again before it; empty: nothing
}

// stepKey is the key of the step that an instance is of: its path without
// numbers, and a mark where it is the one step of a loop, which has no id.
func stepKey(path pipeline.Path) string {
	s := string(path)
	if i := strings.LastIndexByte(s, '~'); i > strings.LastIndexByte(s, '/') {
		s = s[:i]
	}
	if strings.HasSuffix(s, "]") {
		return plainPath(path) + "[]"
	}
	return plainPath(path)
}

func newUpstream(plan *pipeline.Plan) *upstream {
	u := &upstream{steps: map[string]*planStep{}}
	u.body(plan, &plan.Root, "", nil, false)
	u.body(plan, &plan.Finally, "", nil, true)
	return u
}

// body adds the steps of a body.
func (u *upstream) body(plan *pipeline.Plan, b *pipeline.Body, prefix string, block *planStep, final bool) []*planStep {
	list := make([]*planStep, len(b.Steps))
	for i, def := range b.Steps {
		s := &planStep{def: def, key: prefix + def.ID, block: block, final: final}
		path := s.key
		if def.ID == "" {
			s.key += "[]"
		}
		list[i], u.steps[s.key] = s, s
		u.list = append(u.list, s)
		switch {
		case def.Loop != nil:
			inner := path + "/"
			if def.Loop.Single {
				inner = path
			}
			s.within = u.body(plan, &def.Loop.Body, inner, s, final)
		case def.Kind == pipeline.KindCall && def.Block():
			called := plan.Units[def.Call.Unit]
			s.within = u.body(plan, &called.Root, path+"/", s, final)
			s.last = u.body(plan, &called.Finally, path+"/", s, true)
		default:
			inner := prefix
			if def.ID == "" {
				inner = path + "/"
			}
			for k := range def.Branches {
				s.within = append(s.within, u.body(plan, &def.Branches[k].Body, inner, s, final)...)
			}
		}
	}
	for i, def := range b.Steps {
		for _, d := range def.Deps {
			list[i].before = append(list[i].before, list[d.On])
			list[d.On].after = append(list[d.On].after, list[i])
		}
		for _, to := range jumps(def) {
			if to <= i {
				list[i].after = append(list[i].after, list[to])
			}
		}
	}
	return list
}

// jumps are the steps of its body that a step may lead to.
func jumps(def *pipeline.StepDef) []int {
	var list []int
	if r := def.Routes; r != nil {
		for _, to := range []*int{r.Success, r.Failure, r.False, r.Always} {
			if to != nil {
				list = append(list, *to)
			}
		}
	}
	for i := range def.OnError {
		if to := def.OnError[i].To; to != nil {
			list = append(list, *to)
		}
	}
	return list
}

// leaf reports whether a step does something of its own that is worth reusing.
func leaf(def *pipeline.StepDef) bool {
	return def.Kind.Work() || def.Kind.Parks() || def.Kind == pipeline.KindCall && !def.Block()
}

// changed notes that an instance has run again, or is not what it was: what
// follows it, at any depth, is shaken. Passes of while and repeat follow each
// other; those of other loops stand for themselves.
func (u *upstream) changed(path pipeline.Path) {
	for s := u.steps[stepKey(path)]; s != nil && !s.ran; s = s.block {
		s.ran = true
		for _, next := range s.after {
			next.shake(string(path))
		}
		if b := s.block; b != nil && (b.def.Kind == pipeline.KindWhile || b.def.Kind == pipeline.KindRepeat) {
			for _, in := range b.within {
				in.shake(string(path))
			}
		}
	}
}

func (s *planStep) shake(by string) {
	if s.shaken != "" {
		return
	}
	s.shaken = by
	for _, list := range [][]*planStep{s.within, s.last, s.after} {
		for _, next := range list {
			next.shake(by)
		}
	}
}

// without shakes what followed steps of another plan that this one does not have.
func (u *upstream) without(old *upstream) {
	for _, was := range old.list {
		s := u.steps[was.key]
		if s == nil {
			continue
		}
		for _, before := range was.before {
			if u.steps[before.key] == nil {
				s.shake(before.key)
			}
		}
	}
}
