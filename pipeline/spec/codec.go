package spec

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// EncodePlan writes a plan as JSON, with the digest of the bytes. Equal plans
// give equal bytes; numbers keep their kind, as pipeline.AppendValue writes them.
func EncodePlan(p *pipeline.Plan) ([]byte, pipeline.Digest, error) {
	if p == nil {
		return nil, "", errors.New("encode plan: there is none")
	}
	e := encoder{b: make([]byte, 0, 4096)}
	e.plan(p)
	sum := sha256.Sum256(e.b)
	return e.b, digestOf(sum[:]), nil
}

// DecodePlan reads what EncodePlan wrote. A plan of another format, and keys
// that are not known, are errors.
func DecodePlan(b []byte) (*pipeline.Plan, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	d.DisallowUnknownFields()
	p := &pipeline.Plan{}
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("decode plan: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode plan: more than one value")
	}
	if p.Format != pipeline.PlanFormat {
		return nil, fmt.Errorf("decode plan: format %d, not %d", p.Format, pipeline.PlanFormat)
	}
	r := repair{}
	r.plan(p)
	return p, r.err
}

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

func (e *encoder) plan(p *pipeline.Plan) {
	e.object(func() {
		e.number("format", int64(p.Format))
		e.text("file", p.File)
		e.must("id", p.ID)
		e.must("name", p.Name)
		e.must("version", p.Version)
		e.text("description", p.Description)
		listOf(e, "inputs", p.Inputs, e.input)
		e.bool("inferred", p.Inferred)
		e.key("settings")
		e.object(func() {
			e.int("timeout", int64(p.Settings.Timeout))
			e.int("max_parallel", int64(p.Settings.MaxParallel))
			e.text("on_error", p.Settings.OnError)
			e.retry(p.Settings.Retry)
			e.text("checkpoint", p.Settings.Checkpoint)
		})
		e.entries("vars", p.Vars)
		e.texts("secrets", p.Secrets)
		e.body("root", &p.Root)
		e.body("finally", &p.Finally)
		e.entries("outputs", p.Outputs)
		e.bool("has_outputs", p.HasOutputs)
		e.texts("state", p.State)
		e.number("templates", int64(p.Templates))
	})
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
		listOf(e, "properties", t.Properties, func(p *pipeline.Property) {
			e.object(func() {
				e.must("name", p.Name)
				e.key("type")
				e.kind(&p.Type)
				e.bool("required", p.Required)
				e.value("default", p.Default)
				e.text("doc", p.Doc)
			})
		})
		e.bool("additional", t.Additional)
		e.text("description", t.Description)
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

func (e *encoder) step(s *pipeline.StepDef) {
	e.object(func() {
		e.must("id", s.ID)
		e.text("name", s.Name)
		e.text("description", s.Description)
		e.must("kind", string(s.Kind))
		e.mustPos(s.Pos)
		listOf(e, "deps", s.Deps, func(d *pipeline.Dep) {
			e.object(func() {
				e.number("on", int64(d.On))
				e.must("cause", d.Cause)
				e.pos(d.Pos)
			})
		})
		e.template("condition", s.Condition)
		e.int("timeout", int64(s.Timeout))
		e.retry(s.Retry)
		e.text("on_failure", s.OnFailure)
		e.entries("state", s.State)
		e.text("effect", string(s.Effect))
		e.text("action", s.Action)
		e.entries("parameters", s.Parameters)
		listOf(e, "command", s.Command, e.field)
		if s.Run != nil {
			e.key("run")
			e.field(s.Run)
		}
		e.entries("env", s.Env)
		e.texts("secrets", s.Secrets)
		e.text("capture", s.Capture)
		e.entries("set", s.Set)
		e.loop(s.Loop)
		listOf(e, "branches", s.Branches, func(b *pipeline.Branch) {
			e.object(func() {
				e.template("condition", b.Condition)
				e.body("body", &b.Body)
			})
		})
	})
}

func (e *encoder) loop(l *pipeline.Loop) {
	if l == nil {
		return
	}
	e.key("loop")
	e.object(func() {
		if l.Items != nil {
			e.key("items")
			e.field(l.Items)
		}
		e.text("variable", l.Variable)
		e.int("parallel", int64(l.Parallel))
		e.template("collect", l.Collect)
		e.text("on_item_error", l.OnItemError)
		e.template("condition", l.Condition)
		e.int("max", int64(l.Max))
		e.bool("single", l.Single)
		e.body("body", &l.Body)
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

// repair turns the numbers of a decoded plan into the kinds that they were.
type repair struct{ err error }

func (r *repair) value(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return i
		}
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			r.err = fmt.Errorf("decode plan: number %s out of range", v)
		}
		return f
	case []any:
		for i := range v {
			v[i] = r.value(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = r.value(v[k])
		}
	}
	return v
}

func (r *repair) plan(p *pipeline.Plan) {
	for i := range p.Inputs {
		in := &p.Inputs[i]
		in.Default = r.value(in.Default)
		r.kind(&in.Type)
	}
	r.entries(p.Vars)
	r.entries(p.Outputs)
	r.body(&p.Root)
	r.body(&p.Finally)
}

func (r *repair) kind(t *pipeline.Type) {
	for i := range t.Values {
		t.Values[i] = r.value(t.Values[i])
	}
	if t.Items != nil {
		r.kind(t.Items)
	}
	for i := range t.Properties {
		t.Properties[i].Default = r.value(t.Properties[i].Default)
		r.kind(&t.Properties[i].Type)
	}
}

func (r *repair) entries(es []pipeline.Entry) {
	for i := range es {
		r.field(&es[i].Value)
	}
}

func (r *repair) field(f *pipeline.Field) {
	if f == nil {
		return
	}
	f.Const = r.value(f.Const)
	for i := range f.List {
		r.field(&f.List[i])
	}
	r.entries(f.Map)
}

func (r *repair) body(b *pipeline.Body) {
	for i, s := range b.Steps {
		if s == nil {
			r.err = errors.New("decode plan: a step is null")
			return
		}
		for _, d := range s.Deps {
			if d.On < 0 || d.On >= len(b.Steps) || d.On == i {
				r.err = fmt.Errorf("decode plan: step %s depends on number %d of %d", s.ID, d.On, len(b.Steps))
				return
			}
		}
		r.entries(s.State)
		r.entries(s.Parameters)
		for i := range s.Command {
			r.field(&s.Command[i])
		}
		r.field(s.Run)
		r.entries(s.Env)
		r.entries(s.Set)
		if s.Loop != nil {
			r.field(s.Loop.Items)
			r.body(&s.Loop.Body)
		}
		for i := range s.Branches {
			r.body(&s.Branches[i].Body)
		}
	}
}
