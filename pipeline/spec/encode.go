package spec

import (
	"strconv"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// encoder appends JSON. What is empty is left out, as the tags of the types in
// pipeline say.
type encoder struct {
	b     []byte
	comma bool
}

func (e *encoder) key(k string) {
	if e.comma {
		e.b = append(e.b, ',')
	}
	e.comma = true
	e.b = append(e.b, '"')
	e.b = append(e.b, k...)
	e.b = append(e.b, '"', ':')
}

// object writes what f writes between braces.
func (e *encoder) object(f func()) {
	e.b = append(e.b, '{')
	e.comma = false
	f()
	e.b = append(e.b, '}')
	e.comma = true
}

func (e *encoder) text(k, v string) {
	if v != "" {
		e.key(k)
		e.b = pipeline.AppendString(e.b, v)
	}
}

func (e *encoder) must(k, v string) {
	e.key(k)
	e.b = pipeline.AppendString(e.b, v)
}

func (e *encoder) int(k string, v int64) {
	if v != 0 {
		e.number(k, v)
	}
}

func (e *encoder) number(k string, v int64) {
	e.key(k)
	e.b = strconv.AppendInt(e.b, v, 10)
}

func (e *encoder) bool(k string, v bool) {
	if v {
		e.key(k)
		e.b = append(e.b, "true"...)
	}
}

func (e *encoder) value(k string, v any) {
	if v != nil {
		e.key(k)
		e.b = pipeline.AppendValue(e.b, v)
	}
}

func (e *encoder) pos(p pipeline.Pos) {
	if p != (pipeline.Pos{}) {
		e.mustPos(p)
	}
}

func (e *encoder) mustPos(p pipeline.Pos) {
	e.key("pos")
	e.object(func() {
		e.int("line", int64(p.Line))
		e.int("column", int64(p.Column))
	})
}

// listOf writes the elements of a list that is not empty.
func listOf[T any](e *encoder, k string, vs []T, f func(*T)) {
	if len(vs) == 0 {
		return
	}
	e.key(k)
	e.b = append(e.b, '[')
	for i := range vs {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.comma = false
		f(&vs[i])
	}
	e.b = append(e.b, ']')
	e.comma = true
}

func (e *encoder) texts(k string, vs []string) {
	listOf(e, k, vs, func(s *string) { e.b = pipeline.AppendString(e.b, *s) })
}

func (e *encoder) ptr(k string, f *pipeline.Field) {
	if f != nil {
		e.key(k)
		e.field(f)
	}
}

func (e *encoder) float(k string, v float64) {
	if v != 0 {
		e.value(k, v)
	}
}

func (e *encoder) index(k string, v *int) {
	if v != nil {
		e.number(k, int64(*v))
	}
}

func (e *encoder) plan(p *pipeline.Plan) {
	e.object(func() {
		e.number("format", int64(p.Format))
		e.unit(&p.Unit)
		listOf(e, "units", p.Units, func(u **pipeline.Unit) { e.object(func() { e.unit(*u) }) })
		e.texts("secrets", p.Secrets)
		e.text("bundle", string(p.Bundle))
		e.on(p.On)
		e.number("templates", int64(p.Templates))
	})
}

// unit writes the members of a unit.
func (e *encoder) unit(u *pipeline.Unit) {
	e.text("file", u.File)
	e.must("id", u.ID)
	e.must("name", u.Name)
	e.must("version", u.Version)
	e.text("description", u.Description)
	listOf(e, "inputs", u.Inputs, e.input)
	e.bool("inferred", u.Inferred)
	e.key("settings")
	e.object(func() { e.settings(&u.Settings) })
	e.entries("vars", u.Vars)
	listOf(e, "artifacts", u.Artifacts, func(a *pipeline.Artifact) {
		e.object(func() {
			e.must("name", a.Name)
			e.key("type")
			e.kind(&a.Type)
			e.pos(a.Pos)
		})
	})
	e.body("root", &u.Root)
	e.body("finally", &u.Finally)
	e.entries("outputs", u.Outputs)
	listOf(e, "models", u.Models, e.model)
	listOf(e, "mcp_servers", u.MCPServers, e.server)
	e.bool("has_outputs", u.HasOutputs)
	e.texts("state", u.State)
}

func (e *encoder) settings(s *pipeline.Settings) {
	e.int("timeout", int64(s.Timeout))
	e.int("max_parallel", int64(s.MaxParallel))
	e.text("on_error", s.OnError)
	e.retry(s.Retry)
	e.text("checkpoint", s.Checkpoint)
	e.int("checkpoint_every", int64(s.CheckpointEvery))
	e.int("max_transitions", int64(s.MaxTransitions))
	e.text("unknown_actions", s.UnknownActions)
	if a := s.Auto; a != nil {
		e.key("auto")
		e.object(func() {
			e.int("max", int64(a.Max))
			e.float("cost_limit", a.CostLimit)
			e.value("fallback", a.Fallback)
		})
	}
	e.int("priority", int64(s.Priority))
	e.text("queue", s.Queue)
	if k := s.Concurrency; k != nil {
		e.key("concurrency")
		e.object(func() {
			e.template("key", &k.Key)
			e.int("max", int64(k.Max))
		})
	}
	if b := s.Budget; b != nil {
		e.key("budget")
		e.object(func() {
			e.int("tokens", b.Tokens)
			e.float("usd", b.USD)
			e.int("calls", b.Calls)
		})
	}
	e.text("workspace", s.Workspace)
}

func (e *encoder) input(in *pipeline.Input) {
	e.object(func() {
		e.must("name", in.Name)
		e.key("type")
		e.kind(&in.Type)
		e.bool("required", in.Required)
		e.value("default", in.Default)
		e.text("description", in.Description)
		e.pos(in.Pos)
	})
}

func (e *encoder) kind(t *pipeline.Type) {
	e.object(func() {
		e.must("kind", t.Kind)
		e.bool("optional", t.Optional)
		if len(t.Values) > 0 {
			e.value("values", t.Values)
		}
		e.text("under", t.Under)
		e.bool("must_exist", t.MustExist)
		if t.Items != nil {
			e.key("items")
			e.kind(t.Items)
		}
		e.properties("properties", t.Properties)
		e.bool("additional", t.Additional)
		e.text("by", t.By)
		listOf(e, "cases", t.Cases, func(x *pipeline.Case) {
			e.object(func() {
				e.must("tag", x.Tag)
				e.properties("fields", x.Fields)
			})
		})
		e.bound("min", t.Min)
		e.bound("max", t.Max)
		e.value("schema", t.Schema)
		e.text("description", t.Description)
	})
}

func (e *encoder) bound(k string, v *float64) {
	if v != nil {
		e.value(k, *v)
	}
}

func (e *encoder) properties(k string, ps []pipeline.Property) {
	listOf(e, k, ps, func(p *pipeline.Property) {
		e.object(func() {
			e.must("name", p.Name)
			e.key("type")
			e.kind(&p.Type)
			e.bool("required", p.Required)
			e.value("default", p.Default)
			e.text("doc", p.Doc)
		})
	})
}

func (e *encoder) retry(r *pipeline.Retry) {
	if r == nil {
		return
	}
	e.key("retry")
	e.object(func() {
		e.number("max_attempts", int64(r.MaxAttempts))
		e.text("backoff", r.Backoff)
		e.int("initial", int64(r.Initial))
		e.int("max", int64(r.Max))
		e.text("jitter", r.Jitter)
		e.texts("on", r.On)
		if r.TimeoutFactor != 0 {
			e.value("timeout_factor", r.TimeoutFactor)
		}
		e.bool("reported", r.Reported)
	})
}

func (e *encoder) body(k string, b *pipeline.Body) {
	e.key(k)
	e.object(func() {
		e.text("order", b.Order)
		listOf(e, "steps", b.Steps, func(s **pipeline.StepDef) { e.step(*s) })
	})
}

func (e *encoder) template(k string, t *pipeline.Template) {
	if t == nil {
		return
	}
	e.key(k)
	e.object(func() {
		e.number("id", int64(t.ID))
		e.must("src", t.Src)
		e.mustPos(t.Pos)
		e.bool("condition", t.Condition)
		e.bool("impure", t.Impure)
		listOf(e, "autos", t.Autos, func(a **pipeline.Auto) { e.autoValue(*a) })
	})
}

func (e *encoder) field(f *pipeline.Field) {
	e.object(func() {
		e.value("const", f.Const)
		e.template("template", f.Template)
		listOf(e, "list", f.List, e.field)
		e.entries("map", f.Map)
		e.text("empty", f.Empty)
	})
}

func (e *encoder) entries(k string, es []pipeline.Entry) {
	listOf(e, k, es, func(x *pipeline.Entry) {
		e.object(func() {
			e.must("name", x.Name)
			e.key("value")
			e.field(&x.Value)
			e.pos(x.Pos)
		})
	})
}
