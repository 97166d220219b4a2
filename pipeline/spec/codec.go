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

// repair turns the numbers of a decoded plan into the kinds that they were, and
// refuses what no compiler makes.
type repair struct {
	units int
	err   error
}

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
	r.units = len(p.Units)
	r.unit(&p.Unit)
	r.on(p.On)
	for _, u := range p.Units {
		if u == nil {
			r.err = errors.New("decode plan: a unit is null")
			return
		}
		r.unit(u)
	}
}

func (r *repair) unit(u *pipeline.Unit) {
	for i := range u.Inputs {
		in := &u.Inputs[i]
		in.Default = r.value(in.Default)
		r.kind(&in.Type)
	}
	for i := range u.Artifacts {
		r.kind(&u.Artifacts[i].Type)
	}
	if a := u.Settings.Auto; a != nil {
		a.Fallback = r.value(a.Fallback)
	}
	if c := u.Settings.Concurrency; c != nil {
		r.template(&c.Key)
	}
	r.entries(u.Vars)
	r.entries(u.Outputs)
	for i := range u.MCPServers {
		x := &u.MCPServers[i]
		r.fields(x.Command)
		r.entries(x.Env)
		r.field(x.URL)
		r.entries(x.Headers)
	}
	r.body(&u.Root)
	r.body(&u.Finally)
}

func (r *repair) kind(t *pipeline.Type) {
	if t == nil {
		return
	}
	for i := range t.Values {
		t.Values[i] = r.value(t.Values[i])
	}
	r.kind(t.Items)
	r.properties(t.Properties)
	for i := range t.Cases {
		r.properties(t.Cases[i].Fields)
	}
	t.Schema = r.value(t.Schema)
}

func (r *repair) properties(ps []pipeline.Property) {
	for i := range ps {
		ps[i].Default = r.value(ps[i].Default)
		r.kind(&ps[i].Type)
	}
}

func (r *repair) entries(es []pipeline.Entry) {
	for i := range es {
		r.field(&es[i].Value)
	}
}

func (r *repair) fields(fs []pipeline.Field) {
	for i := range fs {
		r.field(&fs[i])
	}
}

func (r *repair) field(f *pipeline.Field) {
	if f == nil {
		return
	}
	f.Const = r.value(f.Const)
	r.template(f.Template)
	r.fields(f.List)
	r.entries(f.Map)
}

func (r *repair) template(t *pipeline.Template) {
	if t == nil {
		return
	}
	for _, a := range t.Autos {
		r.auto(a)
	}
}

func (r *repair) auto(a *pipeline.Auto) {
	if a == nil {
		return
	}
	r.template(a.Prompt)
	r.kind(&a.Type)
	r.field(a.Fallback)
}

func (r *repair) body(b *pipeline.Body) {
	for i, s := range b.Steps {
		if s == nil {
			r.err = errors.New("decode plan: a step is null")
			return
		}
		r.indexes(s, i, len(b.Steps))
		r.step(s)
	}
}

// indexes checks what names other steps of the body, and units.
func (r *repair) indexes(s *pipeline.StepDef, i, n int) {
	for _, d := range s.Deps {
		if d.On < 0 || d.On >= n || d.On == i {
			r.err = fmt.Errorf("decode plan: step %s depends on number %d of %d", s.ID, d.On, n)
			return
		}
	}
	route := func(to *int) {
		if to != nil && (*to < 0 || *to >= n) {
			r.err = fmt.Errorf("decode plan: step %s goes on with number %d of %d", s.ID, *to, n)
		}
	}
	if x := s.Routes; x != nil {
		route(x.Success)
		route(x.Failure)
		route(x.False)
		route(x.Always)
	}
	for k := range s.OnError {
		route(s.OnError[k].To)
	}
	if s.Call != nil && (s.Call.Unit < 0 || s.Call.Unit >= r.units) {
		r.err = fmt.Errorf("decode plan: step %s calls unit %d of %d", s.ID, s.Call.Unit, r.units)
	}
}

func (r *repair) agent(a *pipeline.Agent) {
	if a == nil {
		return
	}
	r.fields(a.Command)
	r.field(a.Instructions)
	r.field(a.Model)
	for i := range a.Tools {
		t := &a.Tools[i]
		r.kind(t.Parameters)
		if t.Gate != nil {
			r.template(t.Gate.When)
		}
		r.entries(t.Env)
		r.fields(t.Command)
		if h := t.HTTP; h != nil {
			r.field(&h.URL)
			r.entries(h.Headers)
			r.field(h.Body)
		}
		if p := t.Pipeline; p != nil {
			r.entries(p.With)
			if p.Unit < 0 || p.Unit >= r.units {
				r.err = fmt.Errorf("decode plan: the tool %s runs unit %d of %d", t.Name, p.Unit, r.units)
			}
		}
	}
	for i := range a.Skills {
		r.properties(a.Skills[i].Parameters)
		r.kind(a.Skills[i].Returns)
	}
	if a.Output != nil {
		r.value(a.Output.Schema)
	}
	for i := range a.Agents {
		r.agent(&a.Agents[i])
	}
}

func (r *repair) step(s *pipeline.StepDef) {
	r.template(s.Condition)
	for k := range s.OnError {
		r.field(s.OnError[k].Value)
	}
	r.entries(s.State)
	if s.Cache != nil {
		r.field(s.Cache.Key)
	}
	if s.Returns != nil {
		r.field(s.Returns.File)
		r.kind(&s.Returns.Type)
	}
	r.fields(s.Artifacts)
	if s.Files != nil {
		r.fields(s.Files.Required)
		r.fields(s.Files.Optional)
	}
	r.auto(s.ActionAuto)
	if s.Skill != nil {
		r.properties(s.Skill.Parameters)
		r.kind(s.Skill.Returns)
	}
	r.agent(s.Agent)
	r.entries(s.Parameters)
	r.field(s.Prompt)
	r.field(s.Model)
	r.fields(s.Command)
	r.field(s.Run)
	r.entries(s.Env)
	r.entries(s.Set)
	r.template(s.Assert)
	if x := s.Wait; x != nil {
		r.field(x.For)
		r.field(x.Until)
		r.field(x.Signal)
		r.field(x.Files)
	}
	if x := s.Ask; x != nil {
		r.field(&x.Question)
		r.field(x.Choices)
		r.kind(x.Schema)
		r.field(x.Default)
		r.field(x.Assignees)
	}
	if s.Call != nil {
		r.entries(s.Call.With)
	}
	if l := s.Loop; l != nil {
		r.field(l.Items)
		r.template(l.Collect)
		r.template(l.Condition)
		r.template(l.Until)
		r.entries(l.Exhausted)
		r.body(&l.Body)
	}
	r.field(s.Match)
	for i := range s.Branches {
		r.template(s.Branches[i].Condition)
		r.body(&s.Branches[i].Body)
	}
	if s.Compete != nil {
		r.field(s.Compete.Ledger)
	}
}
