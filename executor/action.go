package executor

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Env is what an attempt of a step may use. It is valid until Run returns.
type Env struct {
	Run     pipeline.RunID
	Path    pipeline.Path
	Attempt int32
	// Workspace is the run's directory, absolute; relative paths of the step
	// mean it and nothing may leave it.
	Workspace string
	// Environ is what a command inherits, as name=value: it is complete, with
	// the variables of the run, the step's env and its secrets.
	Environ []string
	// Bundle is the folder with the files that travel with the pipeline, absolute;
	// empty where there are none. They are for reading only.
	Bundle string
	// Sandbox says how processes of the step are confined; nil: they are not.
	Sandbox *pipeline.Sandbox
	// Redact blots out the step's secrets. Messages that show a part of a longer
	// text blot them out before they cut it. nil: there are none.
	Redact func(text string) string
	// Log keeps a piece of the step's output for its viewers. stream is stdout,
	// stderr or system. It may be called concurrently and does not block long.
	Log func(stream, text string)
	// Unit is the pipeline that the step stands in; nil: it is not known here, as with
	// a remote worker.
	Unit *pipeline.Unit
	// Needs are what a model must be able to do that the step asks and does not name;
	// nil: nothing is said.
	Needs *pipeline.Needs
	// Secret finds a secret by its name; nil: there are none.
	Secret func(name string) (string, bool)
	// Journal records the calls of models and tools; nil: the action has none.
	Journal *Journal
	// Agent is what an agent works with that is no program; of Config.Agent alone.
	Agent *AgentEnv
	// Tenure is the run's, of actions that have a journal. It may be nil.
	Tenure *Tenure
	// Delta shows a piece of a call's answer to whoever looks on. It may be nil, is
	// safe for concurrent use and does not block.
	Delta func(pipeline.Delta)
	// Child runs a pipeline that the plan has imported as a run of its own, a child
	// of the step's, and waits until it has completed; the error is a
	// *pipeline.Failure where it has not. With an equal key, a later attempt finds the
	// run that an earlier one has begun. nil: the action has no journal.
	Child func(ctx context.Context, call *pipeline.Call, inputs map[string]any, key string) (*pipeline.Run, error)
	// Rest gives the step's slot to other steps until wake is called, which waits for
	// one again, or for the end of ctx: a step that only waits, as for a model, takes
	// none. It is safe for concurrent use. nil: the step holds none.
	Rest func(ctx context.Context) (wake func())
	// TraceContent says that spans may tell what was said.
	TraceContent bool
	// Key is what IdempotencyKey gives for a call that the step makes; empty: the
	// step's own.
	Key string
}

// IdempotencyKey is equal over all attempts of this step instance, or of the call
// that it makes.
func (e Env) IdempotencyKey() string {
	if e.Key != "" {
		return e.Key
	}
	return string(e.Run) + "/" + string(e.Path)
}

// MakeWorkspace makes the run's directory, unless it is there. What an action with a
// journal calls does so before it uses the directory; for others it is done.
func (e Env) MakeWorkspace() error { return makeWorkspace(e.Workspace) }

// Output is what a step that succeeded gives.
type Output struct {
	Value any // a JSON value as of pipeline.DecodeValue
	Model string
	Usage *pipeline.Usage
}

// Runner is a step's parameters with what it does with them. Run returns a
// *pipeline.Failure, or any error, which counts as category unknown. It must
// return soon after ctx ends. A Failure may come together with an Output: what
// the step had given when it reported failure.
type Runner interface {
	Run(ctx context.Context, env Env) (Output, error)
}

// Action is a step kind that pipelines name: its description for the compiler,
// the editor and the docs, and how to run it.
type Action struct {
	Spec pipeline.ActionSpec
	// Bind fills a fresh Runner from parameters that were evaluated; the
	// error is a *pipeline.Failure of category validation.
	Bind func(params map[string]any) (Runner, error)
	// Workspace says that it uses the run's directory, which exists only then, and
	// for an action with a journal only after Env.MakeWorkspace.
	Workspace bool
	// Confined says that its processes do the work of strangers: of the base of the
	// environment they see what is harmless.
	Confined bool
	// Journal says that it makes calls of models or tools, which Env.Journal records.
	Journal bool
	// Effect decides by the parameters, where Spec.Effect is empty.
	Effect func(params map[string]any) pipeline.Effect
}

// Describe is how an Action introduces itself, beside its parameters' struct.
type Describe struct {
	Tool    string // of operations of a tool, as in filesystem
	Name    string
	Bare    bool // may be named without its tool
	Doc     string
	Effect  pipeline.Effect
	Returns any  // a struct value whose fields describe the result; nil: any
	Open    bool // takes parameters beyond the struct's; they land in its field tagged param:",rest"
	Model   bool // asks a model
	// Workspace says that it uses the run's directory.
	Workspace bool
	Confined  bool
}

// NewAction builds an Action from a struct of parameters. Its fields carry tags:
// `param:"name,required"` (default name: the field in snake case; "-" leaves it
// out; ",rest" of a map[string]any takes unknown parameters), `doc:"..."`,
// `default:"JSON"`, `enum:"a,b"`, `type:"path"`. Field types: string, bool, int64,
// float64, any, []any, []string, map[string]any, map[string]string.
func NewAction[T Runner](d Describe) Action {
	var zero T
	t := reflect.TypeOf(zero)
	fields := paramFields(t)
	key := d.Name
	if d.Tool != "" {
		key = d.Tool + "." + d.Name
	}
	spec := pipeline.ActionSpec{
		Key: key, Tool: d.Tool, Name: d.Name, Bare: d.Bare, Doc: d.Doc, Open: d.Open, Effect: d.Effect, Model: d.Model,
		Returns: pipeline.Type{Kind: "any"},
	}
	for _, f := range fields {
		if !f.rest {
			spec.Params = append(spec.Params, f.Property)
		}
	}
	if d.Returns != nil {
		spec.Returns = pipeline.Type{Kind: "map"}
		for _, f := range paramFields(reflect.TypeOf(d.Returns)) {
			spec.Returns.Properties = append(spec.Returns.Properties, f.Property)
		}
	}
	return Action{
		Spec: spec, Workspace: d.Workspace, Confined: d.Confined,
		Bind: func(params map[string]any) (Runner, error) {
			v := reflect.New(t).Elem()
			if err := bind(v, fields, params); err != nil {
				return nil, err
			}
			r, _ := reflect.TypeAssert[Runner](v)
			return r, nil
		},
	}
}

type paramField struct {
	pipeline.Property
	index int
	rest  bool
}

func paramFields(t reflect.Type) []paramField {
	var list []paramField
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("param")
		if !f.IsExported() || tag == "-" {
			continue
		}
		name, opts, _ := strings.Cut(tag, ",")
		p := paramField{index: i, rest: strings.Contains(opts, "rest")}
		p.Name = name
		if p.Name == "" || p.Name == "required" { // `param:"required"` is short for `param:",required"`
			opts += "," + name
			p.Name = snake(f.Name)
		}
		p.Required = strings.Contains(opts, "required")
		p.Doc = f.Tag.Get("doc")
		p.Type = typeOf(f)
		p.Type.Description = p.Doc
		if def, ok := f.Tag.Lookup("default"); ok {
			v, err := pipeline.DecodeValue([]byte(def))
			if err != nil {
				panic(fmt.Sprintf("executor: %s.%s: default %q: %v", t, f.Name, def, err))
			}
			p.Default = v
		}
		list = append(list, p)
	}
	return list
}

func snake(name string) string {
	var b strings.Builder
	rs := []rune(name)
	for i, r := range rs {
		if unicode.IsUpper(r) {
			if i > 0 && (!unicode.IsUpper(rs[i-1]) || (i+1 < len(rs) && unicode.IsLower(rs[i+1]))) {
				b.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

func typeOf(f reflect.StructField) pipeline.Type {
	if enum := f.Tag.Get("enum"); enum != "" {
		t := pipeline.Type{Kind: "enum"}
		for v := range strings.SplitSeq(enum, ",") {
			t.Values = append(t.Values, v)
		}
		return t
	}
	if kind := f.Tag.Get("type"); kind != "" {
		return pipeline.Type{Kind: kind}
	}
	switch f.Type.Kind() {
	case reflect.String:
		return pipeline.Type{Kind: "string"}
	case reflect.Bool:
		return pipeline.Type{Kind: "boolean"}
	case reflect.Int64, reflect.Int:
		return pipeline.Type{Kind: "integer"}
	case reflect.Float64:
		return pipeline.Type{Kind: "number"}
	case reflect.Slice:
		return pipeline.Type{Kind: "list"}
	case reflect.Map:
		return pipeline.Type{Kind: "map", Additional: true}
	}
	return pipeline.Type{Kind: "any"}
}

func bind(dst reflect.Value, fields []paramField, params map[string]any) error {
	rest := -1
	for _, f := range fields {
		if f.rest {
			rest = f.index
			continue
		}
		v, given := params[f.Name]
		if !given || v == nil && f.Default != nil {
			v = f.Default
			given = v != nil
		}
		if !given || v == nil {
			if f.Required {
				return pipeline.Failuref(pipeline.CategoryValidation, "parameter %s is missing", f.Name)
			}
			continue
		}
		if err := assign(dst.Field(f.index), v); err != nil {
			return pipeline.Failuref(pipeline.CategoryValidation, "parameter %s %v", f.Name, err)
		}
		if len(f.Type.Values) > 0 && !oneOf(v, f.Type.Values) {
			return pipeline.Failuref(pipeline.CategoryValidation, "parameter %s is %s; it can be %s",
				f.Name, pipeline.EncodeValue(v), list(f.Type.Values))
		}
	}
	for name, v := range params {
		switch {
		case slices.ContainsFunc(fields, func(f paramField) bool { return !f.rest && f.Name == name }):
		case rest >= 0:
			m := dst.Field(rest)
			if m.IsNil() {
				m.Set(reflect.MakeMap(m.Type()))
			}
			m.SetMapIndex(reflect.ValueOf(name), reflect.ValueOf(&v).Elem())
		default:
			return pipeline.Failuref(pipeline.CategoryValidation, "there is no parameter %s", name)
		}
	}
	return nil
}

func oneOf(v any, values []any) bool {
	return slices.Contains(values, v)
}

func list(values []any) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = fmt.Sprint(v)
	}
	return strings.Join(parts, ", ")
}

// assign converts a JSON value to the field's type. Whole floats count as
// integers and integers as floats; nothing else is guessed.
func assign(dst reflect.Value, v any) error {
	mismatch := func(want string) error {
		return fmt.Errorf("is %s; it must be %s", kindName(v), want)
	}
	switch dst.Kind() {
	case reflect.Interface:
		dst.Set(reflect.ValueOf(&v).Elem())
	case reflect.String:
		s, ok := v.(string)
		if !ok {
			return mismatch("a text")
		}
		dst.SetString(s)
	case reflect.Bool:
		b, ok := v.(bool)
		if !ok {
			return mismatch("true or false")
		}
		dst.SetBool(b)
	case reflect.Int, reflect.Int64:
		switch n := v.(type) {
		case int64:
			dst.SetInt(n)
		case float64:
			if n != float64(int64(n)) {
				return mismatch("a whole number")
			}
			dst.SetInt(int64(n))
		default:
			return mismatch("a whole number")
		}
	case reflect.Float64:
		switch n := v.(type) {
		case int64:
			dst.SetFloat(float64(n))
		case float64:
			dst.SetFloat(n)
		default:
			return mismatch("a number")
		}
	case reflect.Slice:
		l, ok := v.([]any)
		if !ok {
			return mismatch("a list")
		}
		out := reflect.MakeSlice(dst.Type(), len(l), len(l))
		for i, e := range l {
			if err := assign(out.Index(i), e); err != nil {
				return fmt.Errorf("[%d] %w", i, err)
			}
		}
		dst.Set(out)
	case reflect.Map:
		m, ok := v.(map[string]any)
		if !ok {
			return mismatch("a map")
		}
		out := reflect.MakeMapWithSize(dst.Type(), len(m))
		for k, e := range m {
			item := reflect.New(dst.Type().Elem()).Elem()
			if err := assign(item, e); err != nil {
				return fmt.Errorf(".%s %w", k, err)
			}
			out.SetMapIndex(reflect.ValueOf(k), item)
		}
		dst.Set(out)
	default:
		return fmt.Errorf("has a field of Go type %s", dst.Type())
	}
	return nil
}

func kindName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	case string:
		return "a text"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprintf("a %T", v)
}
