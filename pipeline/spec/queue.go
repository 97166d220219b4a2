package spec

import (
	"fmt"
	"math"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// queueName reads the name of a queue.
func (c *compiler) queueName(n *node, w where) string {
	name, ok := c.word(n, w)
	if !ok {
		return ""
	}
	if !pipeline.IsQueue(name) {
		c.error(fault{code: "E0113", at: n.at, msg: fmt.Sprintf("%q cannot be the name of a queue", name), hint: "1 to 128 letters, digits and -_./:; it is no template"}, w)
		return ""
	}
	return name
}

// known at the time of a submission.
var submitted = []string{"inputs", "run", "pipeline"}

// concurrency reads what runs share. The key is worked out before there is a run,
// so it knows nothing but what was submitted.
func (c *compiler) concurrency(n *node, w where) *pipeline.ConcurrencySettings {
	if n.kind != mapping {
		c.wrong(n, w, "a mapping with key and max")
		return nil
	}
	f := c.fields(n, inConcurrency, w)
	out := &pipeline.ConcurrencySettings{Max: 1}
	if v := f.get("max"); v != nil {
		if out.Max, _ = c.integer(v, w.in("max"), 1); out.Max > math.MaxInt32 {
			c.error(fault{code: "E0104", at: v.at, msg: "max is too large"}, w.in("max"))
		}
	}
	v := f.get("key")
	if v == nil {
		if !f.broken {
			c.error(fault{code: "E0111", at: n.at, msg: "concurrency needs a key", hint: "as in {key: \"deploy-{{ inputs.target }}\", max: 1}"}, w)
		}
		return nil
	}
	w = w.in("key")
	value, bad := v.value()
	if bad != nil {
		c.error(*bad, w)
		return nil
	}
	text, ok := value.(string)
	if !ok {
		c.wrong(v, w, "a text")
		return nil
	}
	before := len(c.docUses)
	t, _ := c.compile(v, text, nil, w, useVars, alwaysCompile, nil)
	if t == nil {
		return nil
	}
	if t.Impure {
		c.error(fault{code: "E0204", at: v.at, msg: "a concurrency key can read neither files nor the clock", hint: "it is worked out when the run is submitted, from inputs, run and pipeline"}, w)
		return nil
	}
	for _, u := range c.docUses[before:] {
		for _, r := range u.expr.Refs() {
			if slices.Contains(submitted, r.Root) || c.inputs[r.Root] != nil {
				continue
			}
			c.error(fault{code: "E0204", at: c.at(u, r.Off, r.End), msg: fmt.Sprintf("%s is not known yet when a run is submitted", r.Root), hint: "a concurrency key reads inputs, run and pipeline, as in {{ inputs.target }}"}, w)
			c.docUses = c.docUses[:before] // it is said once
			return nil
		}
	}
	out.Key = *t
	return out
}
