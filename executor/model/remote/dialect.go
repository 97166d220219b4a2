package remote

import (
	"maps"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Dialect is the part of JSON Schema that a service holds its models to.
type Dialect struct {
	Keys []string // the keywords that it knows
	// Closed: objects name all of their members.
	Closed bool
	// Required: objects have all of the members that they name.
	Required bool
}

// Fit is a schema in the dialect. Keywords that the service does not know become
// part of the description, for the model to read: answers are held against the
// whole schema afterwards. false: it cannot be said in the dialect.
func (d *Dialect) Fit(s map[string]any) (map[string]any, bool) {
	if ref, ok := s["$ref"].(string); ok {
		return d.reference(s, ref)
	}
	own := map[string]any{}
	unsaid := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		v := s[key]
		switch key {
		case "$schema", "$id", "$comment", "title", "default", "examples":
			continue // say nothing about what fits
		case "oneOf":
			if _, both := s["anyOf"]; both || !slices.Contains(d.Keys, "anyOf") {
				return nil, false
			}
			key = "anyOf"
		case "allOf", "patternProperties", "prefixItems", "$anchor", "$dynamicRef":
			if !slices.Contains(d.Keys, key) {
				return nil, false
			}
		}
		if !slices.Contains(d.Keys, key) {
			unsaid[key] = v
			continue
		}
		fitted, ok := d.fitKey(key, v)
		if !ok {
			return nil, false
		}
		own[key] = fitted
	}
	if len(unsaid) > 0 {
		text, _ := own["description"].(string)
		own["description"] = strings.TrimSpace(text + " It also satisfies " + string(pipeline.EncodeValue(unsaid)))
	}
	return own, d.closes(own)
}

func (d *Dialect) reference(s map[string]any, ref string) (map[string]any, bool) {
	own := map[string]any{"$ref": ref}
	for _, key := range []string{"$defs", "definitions"} {
		if v, ok := s[key]; ok {
			fitted, ok := d.fitKey(key, v)
			if !ok {
				return nil, false
			}
			own[key] = fitted
		}
	}
	return own, slices.Contains(d.Keys, "$ref")
}

// fitKey is the value of a keyword, with the schemas in it in the dialect.
func (d *Dialect) fitKey(key string, v any) (any, bool) {
	switch key {
	case "properties", "$defs", "definitions", "patternProperties":
		all, ok := v.(map[string]any)
		own := map[string]any{}
		for name, e := range all {
			m, isSchema := e.(map[string]any)
			if !isSchema {
				return nil, false
			}
			if own[name], isSchema = d.Fit(m); !isSchema {
				return nil, false
			}
		}
		return own, ok
	case "anyOf", "allOf", "prefixItems":
		all, ok := v.([]any)
		own := make([]any, len(all))
		for i, e := range all {
			m, isSchema := e.(map[string]any)
			if !isSchema {
				return nil, false
			}
			if own[i], isSchema = d.Fit(m); !isSchema {
				return nil, false
			}
		}
		return own, ok
	case "items", "additionalProperties":
		m, ok := v.(map[string]any)
		if !ok {
			return v, key == "additionalProperties"
		}
		return d.Fit(m)
	}
	return v, true
}

// closes makes an object say what the dialect wants to hear; false: it would then
// no longer be what it was.
func (d *Dialect) closes(s map[string]any) bool {
	switch t := s["type"].(type) {
	case string:
		if t != "object" {
			return true
		}
	case []any:
		if !slices.Contains(t, any("object")) {
			return true
		}
	default: // without a type, it must say by other means what it is
		return !d.Closed || s["enum"] != nil || s["const"] != nil || s["anyOf"] != nil
	}
	properties, _ := s["properties"].(map[string]any)
	if d.Closed {
		if more, said := s["additionalProperties"]; more != false && (said || len(properties) == 0) {
			return false
		}
		s["additionalProperties"] = false
		if properties == nil {
			s["properties"] = map[string]any{}
		}
	}
	if d.Required {
		required, _ := s["required"].([]any)
		for name := range properties {
			if !slices.Contains(required, any(name)) {
				return false
			}
		}
		if required == nil {
			s["required"] = []any{}
		}
	}
	return true
}
