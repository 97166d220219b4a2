package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Func is an action whose parameters and result are Go types: In a struct with
// json tags, whose fields are the parameters, Out anything that encoding/json
// writes. A field without omitempty that is no pointer is required; a tag
// doc:"..." describes it. The doc is what pipelines' authors read.
func Func[In, Out any](name, doc string, fn func(ctx context.Context, t *Task, in In) (Out, error)) Action {
	parameters, _ := json.Marshal(schemaOf(reflect.TypeFor[In](), 0)) // maps and texts
	returns, _ := json.Marshal(schemaOf(reflect.TypeFor[Out](), 0))
	return Action{
		Name: name, Doc: doc, Parameters: parameters, Returns: returns,
		Run: func(ctx context.Context, t *Task) (Result, error) {
			var in In
			d := json.NewDecoder(bytes.NewReader(t.Parameters))
			if err := d.Decode(&in); err != nil {
				return Result{}, &Failure{Category: "validation", Message: fmt.Sprintf("the parameters of %s cannot be read: %v", name, err)}
			}
			out, err := fn(ctx, t, in)
			if err != nil {
				return Result{}, err
			}
			return Result{Output: out}, nil
		},
	}
}

// deepest bounds schemas of types that contain themselves.
const deepest = 8

var marshalers = []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[json.RawMessage]()}

// schemaOf is the JSON Schema of a Go type, as encoding/json writes it.
func schemaOf(t reflect.Type, depth int) map[string]any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if depth > deepest || t == marshalers[1] || t.Implements(marshalers[0]) || reflect.PointerTo(t).Implements(marshalers[0]) {
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return map[string]any{"type": "string"}
		}
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), depth+1)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), depth+1)}
	case reflect.Struct:
		return structSchema(t, depth)
	}
	return map[string]any{}
}

func structSchema(t reflect.Type, depth int) map[string]any {
	properties, required := map[string]any{}, []string{}
	for f := range t.Fields() {
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		s := schemaOf(f.Type, depth+1)
		if doc := f.Tag.Get("doc"); doc != "" {
			s["description"] = doc
		}
		properties[name] = s
		if !strings.Contains(opts, "omitempty") && !strings.Contains(opts, "omitzero") && f.Type.Kind() != reflect.Pointer {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}
