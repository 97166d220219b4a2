package script

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor/model"
)

// fill makes a value that satisfies the schema, the same for the same schema and
// seed. It knows the common keywords; a value that then violates the schema (of a
// pattern, say) is an error, not an answer.
func fill(s *model.Schema, source map[string]any, seed int64) (any, error) {
	f := filler{root: source, seed: seed}
	v, err := f.value(source, "", 0)
	if err != nil {
		return nil, err
	}
	if wrong := s.Violations(v); len(wrong) > 0 {
		return nil, fmt.Errorf("no value could be generated for the schema (%s); answer with json", strings.Join(wrong, "; "))
	}
	return v, nil
}

type filler struct {
	root map[string]any
	seed int64
}

// words are what texts are made of.
var words = strings.Fields("amber birch cedar delta ember fjord grove harbor iris juniper kelp lumen maple nectar opal pearl quartz river sage tundra")

var errEndless = errors.New("the schema describes a value without end")

// value makes one part. Each part has a random source of its own, seeded by its
// place, so that a change in one place leaves the others alone.
func (f filler) value(s map[string]any, at string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errEndless
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(at))                            // never fails
	r := rand.New(rand.NewPCG(uint64(f.seed), h.Sum64())) //nolint:gosec // repeatable on purpose
	if v, ok := s["const"]; ok {
		return v, nil
	}
	if list, ok := s["enum"].([]any); ok && len(list) > 0 {
		return list[r.IntN(len(list))], nil
	}
	if to, ok := s["$ref"].(string); ok {
		target, err := f.resolve(to)
		if err != nil {
			return nil, err
		}
		return f.value(target, at, depth+1)
	}
	for _, key := range []string{"anyOf", "oneOf"} {
		list, _ := s[key].([]any)
		if len(list) == 0 {
			continue
		}
		// The first alternative ends where a later one may nest without end.
		i := 0
		if depth < 4 {
			i = r.IntN(len(list))
		}
		m, ok := list[i].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s holds something that is not a schema", key)
		}
		return f.value(joined(s, key, m), at, depth+1)
	}
	if list, ok := s["allOf"].([]any); ok {
		all := without(s, "allOf")
		for _, e := range list {
			m, _ := e.(map[string]any)
			if to, ok := m["$ref"].(string); ok {
				target, err := f.resolve(to)
				if err != nil {
					return nil, err
				}
				m = joined(m, "$ref", target)
			}
			all = joined(all, "", m)
		}
		return f.value(all, at, depth+1)
	}
	switch kind(s) {
	case "object":
		return f.object(s, at, depth)
	case "array":
		return f.array(s, at, depth, r)
	case "integer":
		return f.integer(s, r)
	case "number":
		low, high := bounds(s)
		return math.Round((low+(high-low)*r.Float64())*100) / 100, nil
	case "boolean":
		return r.IntN(2) == 0, nil
	case "null":
		return nil, nil //nolint:nilnil // null is the value
	}
	return text(s, r), nil
}

func (f filler) object(s map[string]any, at string, depth int) (any, error) {
	m := map[string]any{}
	props, _ := s["properties"].(map[string]any)
	must, _ := s["required"].([]any)
	for name, p := range props {
		sub, ok := p.(map[string]any)
		needed := slices.Contains(must, any(name))
		if !ok || (!needed && depth > 2) { // what may be left out ends a schema that refers to itself
			continue
		}
		v, err := f.value(sub, at+"/"+name, depth+1)
		if err != nil {
			if needed || !errors.Is(err, errEndless) {
				return nil, err
			}
			continue
		}
		m[name] = v
	}
	extra, _ := s["additionalProperties"].(map[string]any)
	for _, e := range must {
		name, ok := e.(string)
		if _, given := m[name]; !ok || given {
			continue
		}
		v, err := f.value(extra, at+"/"+name, depth+1)
		if err != nil {
			return nil, err
		}
		m[name] = v
	}
	for i := 0; float64(len(m)) < number(s["minProperties"], 0) && i < len(words); i++ {
		v, err := f.value(extra, at+"/"+words[i], depth+1)
		if err != nil {
			return nil, err
		}
		m[words[i]] = v
	}
	return m, nil
}

func (f filler) array(s map[string]any, at string, depth int, r *rand.Rand) (any, error) {
	least, most := number(s["minItems"], 0), number(s["maxItems"], math.Inf(1))
	n := int(least)
	if least == 0 && depth < 3 {
		n = int(min(most, float64(1+r.IntN(3))))
	}
	if n > 10_000 {
		return nil, fmt.Errorf("the schema wants a list of at least %d items", n)
	}
	list := make([]any, n)
	first, _ := s["prefixItems"].([]any)
	items, _ := s["items"].(map[string]any)
	for i := range list {
		sub := items
		if i < len(first) {
			sub, _ = first[i].(map[string]any)
		}
		v, err := f.value(sub, fmt.Sprintf("%s/%d", at, i), depth+1)
		if err != nil {
			return nil, err
		}
		list[i] = v
	}
	return list, nil
}

func (f filler) integer(s map[string]any, r *rand.Rand) (any, error) {
	low, high := bounds(s)
	step := math.Max(1, number(s["multipleOf"], 1))
	first, last := math.Ceil(low/step), math.Floor(high/step)
	if first > last || math.Abs(first*step) > 1<<53 || math.Abs(last*step) > 1<<53 {
		return nil, errors.New("no whole number lies within the bounds of the schema")
	}
	return int64(first)*int64(step) + r.Int64N(int64(last-first)+1)*int64(step), nil
}

// bounds are those of a number, by default a span of 100 at the one that is given.
func bounds(s map[string]any) (low, high float64) {
	low, high = number(s["minimum"], math.Inf(-1)), number(s["maximum"], math.Inf(1))
	if x, ok := s["exclusiveMinimum"]; ok {
		low = math.Max(low, math.Nextafter(number(x, low), math.Inf(1)))
	}
	if x, ok := s["exclusiveMaximum"]; ok {
		high = math.Min(high, math.Nextafter(number(x, high), math.Inf(-1)))
	}
	switch {
	case math.IsInf(low, -1) && math.IsInf(high, 1):
		return 0, 100
	case math.IsInf(low, -1):
		return high - 100, high
	case math.IsInf(high, 1):
		return low, low + 100
	}
	return low, high
}

func text(s map[string]any, r *rand.Rand) string {
	switch s["format"] {
	case "date":
		return fmt.Sprintf("2024-%02d-%02d", 1+r.IntN(12), 1+r.IntN(28))
	case "date-time":
		return fmt.Sprintf("2024-%02d-%02dT%02d:00:00Z", 1+r.IntN(12), 1+r.IntN(28), r.IntN(24))
	case "uri":
		return "https://example.com/" + words[r.IntN(len(words))]
	case "email":
		return words[r.IntN(len(words))] + "@example.com"
	}
	t := words[r.IntN(len(words))] + " " + words[r.IntN(len(words))]
	if least := min(number(s["minLength"], 0), 1<<16); float64(len(t)) < least {
		t += strings.Repeat(" "+words[r.IntN(len(words))], int(least)/4)
		t = t[:int(least)]
	}
	if most := number(s["maxLength"], math.Inf(1)); float64(len(t)) > most {
		t = t[:int(math.Max(0, most))]
	}
	return t
}

// kind is the JSON type to make; a schema that names none takes a text.
func kind(s map[string]any) string {
	switch t := s["type"].(type) {
	case string:
		return t
	case []any:
		for _, e := range t {
			if k, ok := e.(string); ok && k != "null" {
				return k
			}
		}
		return "null"
	}
	switch {
	case s["properties"] != nil, s["required"] != nil, s["additionalProperties"] != nil, s["minProperties"] != nil:
		return "object"
	case s["items"] != nil, s["prefixItems"] != nil, s["minItems"] != nil:
		return "array"
	case s["minimum"] != nil, s["maximum"] != nil, s["exclusiveMinimum"] != nil, s["exclusiveMaximum"] != nil:
		return "number"
	}
	return "string"
}

// resolve follows a reference into the schema itself.
func (f filler) resolve(ref string) (map[string]any, error) {
	path, ok := strings.CutPrefix(ref, "#")
	at := any(f.root)
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if part == "" {
			continue
		}
		m, isMap := at.(map[string]any)
		ok = ok && isMap
		at = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
	}
	target, isMap := at.(map[string]any)
	if !ok || !isMap {
		return nil, fmt.Errorf("the reference %s is not one that values can be generated for; answer with json", ref)
	}
	return target, nil
}

// joined is a schema without one keyword and with those of another.
func joined(s map[string]any, drop string, more map[string]any) map[string]any {
	out := without(s, drop)
	for k, v := range more {
		old, both := out[k]
		if !both {
			out[k] = v
			continue
		}
		switch o := old.(type) {
		case map[string]any: // properties
			if n, ok := v.(map[string]any); ok {
				out[k] = joined(o, "", n)
				continue
			}
		case []any: // required
			if n, ok := v.([]any); ok && k == "required" {
				out[k] = append(slices.Clip(o), n...)
				continue
			}
		}
		out[k] = v
	}
	return out
}

func without(s map[string]any, key string) map[string]any {
	out := make(map[string]any, len(s))
	for k, v := range s {
		if k != key {
			out[k] = v
		}
	}
	return out
}

func number(v any, otherwise float64) float64 {
	switch n := v.(type) {
	case int64:
		return float64(n)
	case float64:
		return n
	}
	return otherwise
}
