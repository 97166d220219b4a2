package spec

import (
	"encoding/json"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// object is a part of a JSON Schema. Keys come out sorted.
type object = map[string]any

// schemaURI names the language in editors' settings.
const schemaURI = "https://orchestrator-project.github.io/schema/pipeline.json"

// Schema is the JSON Schema (2020-12) of the language as this version supports
// it, with the actions of the catalogue. It is for editors: Compile knows more.
func Schema(cat pipeline.Catalog) []byte {
	c := newCatalog(cat)
	root := mapShape(inDocument)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = schemaURI
	root["title"] = "Orchestrator pipeline"
	judge := mapShape(inStep) // its id is judge
	delete(judge, "required")
	step := mapShape(inStep)
	step["allOf"] = actionRules(c)
	root["$defs"] = object{
		"step":     step,
		"steps":    object{"type": "array", "items": ref("step")},
		"settings": mapShape(inSettings),
		"context":  openShape(mapShape(inContext)),
		"retry":    anyOf(mapShape(inRetry), object{"const": false}),
		"type":     anyOf(mapShape(inType), object{"type": "string"}),
		"action":   actionShape(c),
		"judge":    judge,
	}
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return []byte("{}") // cannot happen: the parts are plain values
	}
	return append(b, '\n')
}

func ref(name string) object { return object{"$ref": "#/$defs/" + name} }

func anyOf(parts ...object) object { return object{"anyOf": parts} }

func openShape(o object) object {
	o["additionalProperties"] = true
	return o
}

// mapShape is the schema of a mapping of the language, from the table of keys.
func mapShape(in place) object {
	props := object{}
	var must []string
	for i := range keys {
		k := &keys[i]
		if k.in&in == 0 || k.later {
			continue
		}
		s := shape(k.shape)
		s["description"] = k.doc
		props[k.name] = s
		for _, a := range k.aliases {
			alias := shape(k.shape)
			alias["description"] = "The same as " + k.name + ". " + k.doc
			props[a] = alias
		}
		if k.must {
			must = append(must, k.name)
		}
	}
	o := object{"type": "object", "properties": props, "additionalProperties": false}
	if must != nil {
		o["required"] = must
	}
	return o
}

// template is what may stand in place of another value.
func template() object { return object{"type": "string", "pattern": `\{[{%]`} }

func enum(words ...string) object {
	vs := make([]any, len(words))
	for i, w := range words {
		vs[i] = w
	}
	return object{"enum": vs}
}

// shape is the schema of a key's value, by the name in the table.
func shape(name string) object {
	texts := object{"type": "array", "items": object{"type": "string"}}
	switch name {
	case "one":
		return object{"const": 1}
	case "text":
		return object{"type": []any{"string", "number", "boolean", "null"}}
	case "scalar":
		return object{"type": []any{"string", "number"}}
	case "map":
		return object{"type": "object"}
	case "list":
		return object{"type": "array", "items": object{"type": []any{"string", "number", "boolean"}}, "minItems": 1}
	case "names":
		return anyOf(object{"type": "string"}, texts)
	case "id":
		return object{"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]*$", "maxLength": 100}
	case "steps":
		return object{"$ref": "#/$defs/steps"}
	case "settings", "context", "retry", "type", "action", "judge":
		return ref(name)
	case "inputs":
		return object{"type": "object", "additionalProperties": true}
	case "types":
		return object{"type": "object", "additionalProperties": ref("type")}
	case "duration":
		return anyOf(object{"type": "number", "minimum": 0}, object{"type": "string", "pattern": "^([0-9.]+(ms|s|m|h|d))+$"})
	case "count":
		return object{"type": "integer", "minimum": 1}
	case "natural":
		return object{"type": "integer", "minimum": 0}
	case "number":
		return object{"type": "number"}
	case "boolean":
		return object{"type": "boolean"}
	case "condition":
		return object{"type": []any{"string", "boolean", "number"}}
	case "on_error":
		return enum("stop", "abort", "continue")
	case "order":
		return enum("graph", "sequence")
	case "checkpoint":
		return enum("adaptive", "fixed", "none")
	case "on_failure":
		return anyOf(enum(failureWords...), shape("id"))
	case "on":
		return mapShape(inOn)
	case "goto":
		return mapShape(inGoto)
	case "rules":
		return anyOf(mapShape(inRule), object{"type": "array", "items": mapShape(inRule)})
	case "rule":
		return enum(ruleActions...)
	case "failure":
		return mapShape(inFailure)
	case "categories":
		return anyOf(enum(failureCategories...), object{"type": "array", "items": enum(failureCategories...)})
	case "codes":
		return anyOf(shape("scalar"), object{"type": "array", "items": shape("scalar")})
	case "cache":
		return anyOf(object{"type": "boolean"}, mapShape(inCache))
	case "sandbox":
		return anyOf(object{"type": "boolean"}, mapShape(inSandbox))
	case "resources":
		return mapShape(inResources)
	case "auto":
		return mapShape(inAuto)
	case "unknown_actions":
		return enum("error", "model")
	case "integer":
		return object{"type": "integer"}
	case "bytes":
		return anyOf(object{"type": "number", "minimum": 1}, object{"type": "string", "pattern": "^[0-9.]+ *([KMG]i?B|B|[kmg])?$"})
	case "imports":
		return object{"type": "object", "additionalProperties": object{"type": "string"}}
	case "wait":
		return mapShape(inWait)
	case "field_duration":
		return anyOf(shape("duration"), template())
	case "ask":
		return anyOf(mapShape(inAsk), object{"type": "string"})
	case "approve":
		return anyOf(mapShape(inApprove), object{"type": "string"})
	case "ask_timeout":
		return enum("fail", "default")
	case "approve_timeout":
		return enum("reject", "approve", "fail")
	case "field_names":
		return shape("names")
	case "repeat":
		return mapShape(inRepeat)
	case "on_exhausted":
		return anyOf(enum("fail", "continue"), object{"type": "object"})
	case "queue":
		return mapShape(inQueue)
	case "match":
		return mapShape(inMatch)
	case "cases":
		return object{"type": "object", "additionalProperties": shape("steps")}
	case "compete":
		return mapShape(inCompete)
	case "document":
		return object{"$ref": "#"}
	case "tie_break":
		return enum("first", "shortest", "longest")
	case "on_item_error":
		return enum("fail", "continue")
	case "effect":
		return enum("pure", "idempotent", "at_least_once", "at_most_once")
	case "capture":
		return enum("text", "lines", "json")
	case "backoff":
		return enum("exponential", "linear", "constant")
	case "jitter":
		return enum("full", "none")
	case "retry_on":
		one := anyOf(enum(retryCategories...), object{"type": "integer", "minimum": 1, "maximum": 255})
		return anyOf(one, object{"type": "array", "items": one})
	case "items":
		return anyOf(object{"type": "array"}, template())
	case "parallel":
		return anyOf(object{"type": "boolean"}, object{"type": "integer", "minimum": 1})
	case "for":
		return mapShape(inFor)
	case "while":
		return mapShape(inWhile)
	case "if":
		return anyOf(mapShape(inIf), object{"type": []any{"string", "boolean"}})
	case "elifs":
		return anyOf(mapShape(inElif), object{"type": "array", "items": mapShape(inElif)})
	case "type_name":
		names := make([]string, 0, len(typeNames))
		for n := range typeNames {
			names = append(names, n)
		}
		slices.Sort(names)
		return anyOf(enum(names...), object{"type": "string", "pattern": "^(list|optional)<.+>$"}, texts)
	case "values":
		return object{"type": "array", "minItems": 1}
	}
	return contractShape(name)
}

// actionShape lists the actions with their descriptions.
func actionShape(c *catalog) object {
	var parts []object
	for _, name := range c.names() {
		parts = append(parts, object{"const": name, "description": c.bare[name].Doc})
	}
	for _, key := range c.keys {
		if a := c.byKey[key]; a.Tool != "" && !a.Bare {
			parts = append(parts, object{"const": a.Name, "description": "With tool: " + a.Tool + ". " + a.Doc})
		}
	}
	if parts == nil {
		return object{"type": "string"}
	}
	parts = append(parts, object{"type": "string"})
	return anyOf(parts...)
}

// actionRules describe the parameters of each action.
func actionRules(c *catalog) []any {
	rules := []any{}
	for _, key := range c.keys {
		a := c.byKey[key]
		when := object{"action": object{"const": a.Name}}
		cond := object{"properties": when, "required": []any{"action"}}
		if a.Tool != "" && !(a.Bare && c.bare[a.Name] == a) {
			when["tool"] = object{"const": a.Tool}
			cond["required"] = []any{"action", "tool"}
		}
		props := object{}
		var must []any
		for i := range a.Params {
			p := &a.Params[i]
			s := anyOf(typeSchema(&p.Type), template())
			if p.Doc != "" {
				s["description"] = p.Doc
			}
			if p.Default != nil {
				s["default"] = p.Default
			}
			props[p.Name] = s
			if p.Required && p.Default == nil {
				must = append(must, p.Name)
			}
		}
		params := object{"type": "object", "properties": props, "additionalProperties": a.Open}
		if must != nil {
			params["required"] = must
		}
		then := object{"properties": object{"parameters": params, "with": params}}
		if must != nil {
			then["anyOf"] = []any{object{"required": []any{"parameters"}}, object{"required": []any{"with"}}}
		}
		rules = append(rules, object{"if": cond, "then": then})
	}
	return rules
}

// typeSchema is a type of the language as JSON Schema.
func typeSchema(t *pipeline.Type) object {
	o := object{}
	switch t.Kind {
	case "string", "path", "file":
		o["type"] = "string"
	case "integer", "number", "boolean":
		o["type"] = t.Kind
	case "duration":
		return shape("duration")
	case "enum":
		o["enum"] = t.Values
	case "list":
		o["type"] = "array"
		if t.Items != nil {
			o["items"] = typeSchema(t.Items)
		}
	case "map":
		o["type"] = "object"
		props := object{}
		for i := range t.Properties {
			props[t.Properties[i].Name] = typeSchema(&t.Properties[i].Type)
		}
		if len(props) > 0 {
			o["properties"] = props
			o["additionalProperties"] = t.Additional
		}
	}
	if t.Optional {
		return anyOf(o, object{"type": "null"})
	}
	return o
}
