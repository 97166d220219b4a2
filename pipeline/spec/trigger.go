package spec

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	"github.com/orchestrator-project/orchestrator/pipeline/trigger"
)

// triggers are the places of what starts runs, for checks that need the inputs.
type triggers struct {
	cron, webhook             *pair
	cronInputs, webhookInputs *pair
}

// declareTriggers reads what starts runs of the pipeline.
func (c *compiler) declareTriggers(n *node) {
	w := where{path: "on"}
	if n == nil || n.isNull() {
		return
	}
	if n.kind != mapping {
		c.error(fault{code: "E0104", at: n.at, msg: "on must be a mapping, not " + n.what(), hint: `as in {cron: "0 6 * * 1"} or {webhook: {secret: NAME}}`}, w)
		return
	}
	f := c.fields(n, inTriggers, w)
	on := &pipeline.On{}
	if p := f.pair("cron"); p != nil && !p.value.isNull() {
		on.Cron = c.cronTrigger(p, w.in("cron"))
	}
	if p := f.pair("webhook"); p != nil {
		on.Webhook = c.webhookTrigger(p, w.in("webhook"))
	}
	if on.Cron != nil || on.Webhook != nil {
		c.plan.On = on
	}
}

func (c *compiler) cronTrigger(p *pair, w where) *pipeline.CronTrigger {
	t := &pipeline.CronTrigger{}
	c.triggers.cron = p
	texts, zone := p.value, (*node)(nil)
	if p.value.kind == mapping {
		f := c.fields(p.value, inCron, w)
		texts, zone = f.get("cron"), f.get("timezone")
		if texts == nil {
			if !f.broken {
				c.error(fault{code: "E0111", at: p.value.at, msg: "cron does not say when", hint: `give it cron: "0 6 * * 1"`}, w)
			}
			return nil
		}
		if zone != nil {
			t.Zone, _ = c.word(zone, w.in("timezone"))
		}
		t.Overlap = c.oneOf(f.get("overlap"), w.in("overlap"), pipeline.Overlaps...)
		t.CatchUp = c.oneOf(f.get("catch_up"), w.in("catch_up"), pipeline.CatchUps...)
		if v := f.get("catch_up_window"); v != nil {
			if d, ok := c.duration(v, w.in("catch_up_window")); ok {
				t.Window = &d
				if d > pipeline.MaxCatchUpWindow {
					c.error(fault{code: "E0106", at: v.at, msg: "catch_up_window is at most 7d"}, w.in("catch_up_window"))
				}
			}
		}
		if v := f.get("jitter"); v != nil {
			t.Jitter, _ = c.duration(v, w.in("jitter"))
			if t.Jitter > pipeline.MaxJitter {
				c.error(fault{code: "E0106", at: v.at, msg: "jitter is at most 1h"}, w.in("jitter"))
			}
		}
		if q := f.pair("inputs"); q != nil {
			c.triggers.cronInputs = q
			if t.Inputs = c.triggerInputs(q, w.in("inputs"), false); t.Inputs == nil {
				return nil
			}
		}
		w = w.in("cron")
	}
	var nodes []*node
	t.Expressions, nodes = c.names(texts, w)
	switch {
	case len(nodes) == 0 && texts.kind == list && len(texts.items) == 0:
		c.error(fault{code: "E0106", at: texts.at, msg: "cron has no expressions"}, w)
		return nil
	case len(nodes) == 0:
		return nil
	}
	_, err := trigger.ParseCron(t.Expressions, t.Zone)
	if bad, ok := errors.AsType[*trigger.CronError](err); ok {
		at := p.key
		switch {
		case bad.Expression < 0 && zone != nil:
			at = zone
		case bad.Expression >= 0 && bad.Expression < len(nodes):
			at = nodes[bad.Expression]
		}
		c.error(fault{code: "E0106", at: at.at, msg: bad.Text, hint: bad.Hint}, w)
	}
	return t
}

func (c *compiler) webhookTrigger(p *pair, w where) *pipeline.WebhookTrigger {
	t := &pipeline.WebhookTrigger{}
	c.triggers.webhook = p
	if p.value.kind != mapping {
		c.error(fault{code: "E0104", at: p.value.at, msg: "webhook must be a mapping, not " + p.value.what(), hint: "as in {secret: NAME}"}, w)
		return nil
	}
	f := c.fields(p.value, inWebhook, w)
	switch v := f.get("secret"); {
	case v == nil && !f.broken:
		c.error(fault{code: "E0111", at: p.key.at, msg: "webhook needs a secret", hint: "secret: NAME is the name of a secret of the server's, with which requests are signed"}, w)
	case v != nil:
		name, ok := c.word(v, w.in("secret"))
		if ok && !envName(name) {
			c.error(fault{code: "E0113", at: v.at, msg: fmt.Sprintf("%q cannot be a secret's name", name), hint: "letters, digits and _; the secret itself does not stand in a pipeline"}, w.in("secret"))
		}
		t.Secret = name
	}
	t.Scheme = c.oneOf(f.get("scheme"), w.in("scheme"), pipeline.SchemeStandard, pipeline.SchemeGitHub)
	if q := f.pair("inputs"); q != nil {
		c.triggers.webhookInputs = q
		t.Inputs = c.triggerInputs(q, w.in("inputs"), true)
	}
	return t
}

// triggerInputs reads the inputs of runs that a trigger starts; those of a webhook
// may hold templates over the request.
func (c *compiler) triggerInputs(p *pair, w where, templates bool) map[string]any {
	if p.value.isNull() {
		return map[string]any{}
	}
	if p.value.kind != mapping {
		c.wrong(p.value, w, "a mapping from inputs to values")
		return nil
	}
	if !templates {
		v, ok := c.constant(p.value, w)
		m, _ := v.(map[string]any)
		if !ok {
			return nil
		}
		return m
	}
	m := make(map[string]any, len(p.value.pairs))
	for i := range p.value.pairs {
		q := &p.value.pairs[i]
		m[q.name] = c.requestValue(q.value, w.in(q.name))
	}
	return m
}

// requestValue reads a value whose texts may be templates over a request.
func (c *compiler) requestValue(n *node, w where) any {
	switch n.kind {
	case list:
		vs := make([]any, len(n.items))
		for i, item := range n.items {
			vs[i] = c.requestValue(item, w.in(fmt.Sprintf("[%d]", i)))
		}
		return vs
	case mapping:
		m := make(map[string]any, len(n.pairs))
		for i := range n.pairs {
			m[n.pairs[i].name] = c.requestValue(n.pairs[i].value, w.in(n.pairs[i].name))
		}
		return m
	}
	if c.fixed(n, w) {
		return nil
	}
	v, bad := n.value()
	if bad != nil {
		c.error(*bad, w)
		return nil
	}
	text, ok := v.(string)
	if !ok || !templated(text) {
		return v
	}
	u := &use{node: n, where: w}
	x, err := c.parse(text, false)
	if err != nil {
		c.templateErrors(u, err)
		return nil
	}
	for _, r := range x.Refs() {
		if slices.Contains(trigger.HookNames, r.Root) {
			continue
		}
		f := fault{code: "E0201", at: c.at(u, r.Off, r.End), msg: fmt.Sprintf("%s is not known where a webhook comes in", r.Root), hint: "there are " + strings.Join(trigger.HookNames, " and ") + ", as in {{ body.issue.number }}"}
		if s := expr.Suggest(r.Root, trigger.HookNames); s != "" {
			f.msg += fmt.Sprintf(" (did you mean %q?)", s)
		}
		c.error(f, w)
	}
	if x.Impure() {
		c.error(fault{code: "E0206", at: n.at, msg: "what a webhook gives cannot depend on files or the time"}, w)
	}
	return text
}

// triggersFit holds the inputs that triggers give against those of the pipeline.
func (c *compiler) triggersFit() {
	on := c.plan.On
	if on == nil {
		return
	}
	if on.Cron != nil {
		c.misfits(c.triggers.cron, c.triggers.cronInputs, "on.cron", on.Cron.Inputs, func(string) bool { return true })
	}
	if on.Webhook != nil && on.Webhook.Inputs != nil {
		// What templates give is known when a request comes.
		c.misfits(c.triggers.webhook, c.triggers.webhookInputs, "on.webhook", on.Webhook.Inputs, func(name string) bool { return !holdsTemplate(on.Webhook.Inputs[name]) })
	}
}

func holdsTemplate(v any) bool {
	switch v := v.(type) {
	case string:
		return templated(v)
	case []any:
		return slices.ContainsFunc(v, holdsTemplate)
	case map[string]any:
		for _, x := range v {
			if holdsTemplate(x) {
				return true
			}
		}
	}
	return false
}

// misfits reports inputs of a trigger that are missing, unknown or ill-typed, at
// their own place or at the trigger's. fixed tells whose values are known.
func (c *compiler) misfits(at, inputs *pair, path string, given map[string]any, fixed func(string) bool) {
	_, err := Inputs(c.plan, given)
	var found *pipeline.Diagnostics
	if !errors.As(err, &found) {
		return
	}
	for _, d := range found.List {
		place := at.key
		x := fault{code: "E0307", msg: fmt.Sprintf("%s: %s", path, d.Message), hint: d.Hint}
		if _, ok := given[d.Path]; !ok {
			x.hint = "give it under " + path + ".inputs, or give the input a default"
		} else {
			known := slices.ContainsFunc(c.plan.Inputs, func(in pipeline.Input) bool { return in.Name == d.Path })
			if known && !fixed(d.Path) {
				continue
			}
			for i := range inputs.value.pairs {
				if p := &inputs.value.pairs[i]; p.name == d.Path {
					if place = p.value; !known {
						place = p.key
					}
				}
			}
		}
		x.at = place.at
		c.error(x, where{path: path + ".inputs"})
	}
}

// on writes what starts runs.
func (e *encoder) on(on *pipeline.On) {
	if on == nil {
		return
	}
	inputs := func(m map[string]any) {
		if m != nil {
			e.value("inputs", m)
		}
	}
	e.key("on")
	e.object(func() {
		if t := on.Cron; t != nil {
			e.key("cron")
			e.object(func() {
				e.texts("expressions", t.Expressions)
				e.text("zone", t.Zone)
				e.text("overlap", t.Overlap)
				e.text("catch_up", t.CatchUp)
				if t.Window != nil {
					e.number("catch_up_window", int64(*t.Window))
				}
				e.int("jitter", int64(t.Jitter))
				inputs(t.Inputs)
			})
		}
		if t := on.Webhook; t != nil {
			e.key("webhook")
			e.object(func() {
				e.must("secret", t.Secret)
				e.text("scheme", t.Scheme)
				inputs(t.Inputs)
			})
		}
	})
}

func (r *repair) on(on *pipeline.On) {
	if on == nil {
		return
	}
	if on.Cron != nil {
		r.value(on.Cron.Inputs)
	}
	if on.Webhook != nil {
		r.value(on.Webhook.Inputs)
	}
}

// triggerTexts tells what starts runs of a registered pipeline.
func triggerTexts(plan *pipeline.Plan) []string {
	var out []string
	if plan.On == nil {
		return nil
	}
	if t := plan.On.Cron; t != nil {
		zone := t.Zone
		if zone == "" {
			zone = "UTC"
		}
		out = append(out, "cron "+strings.Join(t.Expressions, ", ")+" in "+zone)
	}
	if t := plan.On.Webhook; t != nil {
		scheme := t.Scheme
		if scheme == "" {
			scheme = pipeline.SchemeStandard
		}
		out = append(out, "webhook POST /v1/hooks/"+plan.ID+", signed with "+t.Secret+" ("+scheme+")")
	}
	return out
}
