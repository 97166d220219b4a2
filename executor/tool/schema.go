package tool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// maxArguments bounds the text of a call's arguments, in bytes.
const maxArguments = 1 << 20

// EffectWith is what a crash may do to a call with these arguments.
func (t *Tool) EffectWith(arguments map[string]any) pipeline.Effect {
	e := t.Effect
	if t.EffectOf != nil {
		e = t.EffectOf(arguments)
	}
	if e == "" {
		e = pipeline.EffectAtMostOnce
	}
	return e
}

// Check reads what a model has written as the arguments of a call and holds it
// against the tool's schema. Each violation says where and what, for the model
// to read; with any, the call must not run. No text at all is a call of a tool
// that has no arguments; of any other, what the model meant was lost.
func Check(t *Tool, arguments string) (map[string]any, []string) {
	text := strings.TrimSpace(arguments)
	switch {
	case len(text) > maxArguments:
		return nil, []string{fmt.Sprintf("the arguments are %d bytes; at most %d can be given: write large content to a file in parts", len(text), maxArguments)}
	case text == "":
		if props, _ := t.Schema["properties"].(map[string]any); len(props) > 0 {
			return nil, []string{"no arguments have come: give them as a JSON object, or {} where none are meant"}
		}
		text = "{}"
	}
	v, err := pipeline.DecodeValue([]byte(text))
	if err != nil {
		return nil, []string{"the arguments are not JSON: " + err.Error()}
	}
	args, ok := v.(map[string]any)
	if !ok {
		return nil, []string{"the arguments must be a JSON object, as in " + example(t.Schema)}
	}
	if len(t.Schema) == 0 {
		return args, nil
	}
	compile := t.compile
	if compile == nil {
		compile = model.Compile
	}
	s, err := compile(t.Schema)
	if err != nil {
		return nil, []string{"the tool " + t.Name + " cannot be called: its schema is not valid"}
	}
	wrong := s.Violations(args)
	for i := range wrong {
		wrong[i] = strings.Replace(wrong[i], "the answer", "the arguments", 1)
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return args, nil
}

// example is a call's arguments as the schema wants them, for messages.
func example(schema map[string]any) string {
	props, _ := schema["properties"].(map[string]any)
	for _, name := range texts(schema["required"]) {
		if props[name] != nil {
			return `{` + strconv.Quote(name) + `: ...}`
		}
	}
	return "{}"
}

func texts(v any) []string {
	var out []string
	l, _ := v.([]any)
	for _, e := range l {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// maxCompiled bounds the schemas that are kept compiled.
const maxCompiled = 1000

// compiler keeps the schemas that were used last. It is safe for concurrent use.
type compiler struct {
	mu    sync.Mutex
	by    map[string]*list.Element
	order list.List // of entry, the last used first
}

type entry struct {
	key    string
	schema *model.Schema
	err    error
}

func (c *compiler) compiled(source map[string]any) (*model.Schema, error) {
	key := string(pipeline.EncodeValue(source))
	c.mu.Lock()
	if e := c.by[key]; e != nil {
		c.order.MoveToFront(e)
		c.mu.Unlock()
		found, _ := e.Value.(entry)
		return found.schema, found.err
	}
	c.mu.Unlock()
	s, err := model.Compile(source)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]*list.Element{}
	}
	if c.by[key] == nil {
		c.by[key] = c.order.PushFront(entry{key, s, err})
		if c.order.Len() > maxCompiled {
			last, _ := c.order.Remove(c.order.Back()).(entry)
			delete(c.by, last.key)
		}
	}
	return s, err
}

// objectOf is the schema of arguments that have these names and types.
func objectOf(params []pipeline.Property, open bool) map[string]any {
	props := map[string]any{}
	required := []any{}
	for i := range params {
		p := &params[i]
		s := spec.AnswerSchema(&p.Type)
		if p.Type.Kind == "duration" {
			s["type"] = []any{"string", "number"}
		}
		if p.Doc != "" {
			s["description"] = p.Doc
		}
		if p.Default != nil {
			s["default"] = p.Default
		}
		props[p.Name] = s
		if p.Required {
			required = append(required, p.Name)
		}
	}
	o := map[string]any{"type": "object", "properties": props, "additionalProperties": open}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

// argumentsOf is the schema of a tool's declared parameters; nil: it takes none.
func argumentsOf(t *pipeline.Type) map[string]any {
	if t == nil {
		return objectOf(nil, false)
	}
	return objectOf(t.Properties, t.Additional)
}

// completed are the arguments of a tool of the pipeline's own: as its parameters'
// types want them, with their defaults, and null for what was left out.
func completed(t *pipeline.Type, args map[string]any) (map[string]any, error) {
	if t == nil {
		return args, nil
	}
	v, wrong := spec.Conform(t, args)
	if wrong != nil {
		list := make([]string, len(wrong))
		for i := range wrong {
			list[i] = wrong[i].Path + " " + wrong[i].Text
		}
		return nil, errors.New("the arguments are wrong: " + strings.Join(list, "; "))
	}
	given, _ := v.(map[string]any)
	out := make(map[string]any, len(t.Properties))
	for i := range t.Properties {
		out[t.Properties[i].Name] = nil
	}
	maps.Copy(out, given)
	return out, nil
}

// completing gives a tool its arguments completed.
func completing(t *pipeline.Type, run func(context.Context, executor.Env, Call) (Result, error)) func(context.Context, executor.Env, Call) (Result, error) {
	return func(ctx context.Context, env executor.Env, c Call) (Result, error) {
		args, err := completed(t, c.Arguments)
		if err != nil {
			return Result{}, err
		}
		c.Arguments = args
		return run(ctx, env, c)
	}
}

// number reads a whole number of the arguments; the schema has checked that it
// is one.
func number(args map[string]any, name string, otherwise int64) int64 {
	switch n := args[name].(type) {
	case int64:
		return n
	case float64:
		if n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return int64(n)
		}
	}
	return otherwise
}
