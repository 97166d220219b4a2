package spec

import "github.com/orchestrator-project/orchestrator/pipeline"

// actionShape lists the actions with their descriptions. An action of the
// pipeline's own may have any name, and a tag chooses one.
func actionShape(c *catalog) object {
	docs := map[string]string{}
	for name, a := range c.bare {
		docs[name] = a.Doc
	}
	any := object{"type": "string"}
	if len(docs) == 0 {
		return any
	}
	return anyOf(described(c.names(), docs), any)
}

// toolRules list the operations of each tool.
func toolRules(c *catalog) []any {
	rules := []any{}
	for _, tool := range c.tools() {
		names := c.operations(tool)
		docs := map[string]string{}
		for _, name := range names {
			docs[name] = c.byKey[tool+"."+name].Doc
		}
		operation := anyOf(described(names, docs), computed())
		rules = append(rules, object{
			"if":   object{"properties": object{"tool": object{"const": tool}}, "required": []any{"tool"}},
			"then": object{"properties": object{"action": operation}},
		})
	}
	return rules
}

// actionRules describe the parameters of each action, which they put into defs.
func actionRules(c *catalog, defs object) []any {
	rules := []any{}
	for _, key := range c.keys {
		a := c.byKey[key]
		name := "parameters." + key
		params := parametersShape(a)
		defs[name] = params
		then := object{"properties": object{"parameters": ref(name), "with": ref(name)}}
		if prompt := promptNeeded(a); prompt != "" {
			then["anyOf"] = []any{
				object{"required": []any{"prompt"}},
				object{"required": []any{"prompt_file"}},
				giving("parameters", prompt), giving("with", prompt),
			}
		}
		if params["required"] != nil {
			then["allOf"] = []any{anyOf(object{"required": []any{"parameters"}}, object{"required": []any{"with"}})}
		}
		rules = append(rules, object{"if": namedBy(c, a), "then": then})
	}
	return rules
}

// promptNeeded is the required parameter that the step's prompt may stand for, or
// empty.
func promptNeeded(a *pipeline.ActionSpec) string {
	for _, name := range promptNames {
		for i := range a.Params {
			if p := &a.Params[i]; p.Name == name {
				if p.Required && p.Default == nil {
					return name
				}
				return ""
			}
		}
	}
	return ""
}

// giving says that a step has a parameter under one of the keys for them.
func giving(key, parameter string) object {
	return object{"required": []any{key}, "properties": object{key: object{"required": []any{parameter}}}}
}

// namedBy is the condition that a step names the action.
func namedBy(c *catalog, a *pipeline.ActionSpec) object {
	alone := func(name string) object {
		return object{"properties": object{"action": object{"const": name}}, "required": []any{"action"}, "not": object{"required": []any{"tool"}}}
	}
	if a.Tool == "" {
		return alone(a.Name)
	}
	forms := []object{{"properties": object{"tool": object{"const": a.Tool}, "action": object{"const": a.Name}}, "required": []any{"action", "tool"}}}
	for _, name := range []string{a.Name, a.Key} {
		if c.find("", name) == a {
			forms = append(forms, alone(name))
		}
	}
	return anyOf(forms...)
}

// parametersShape is the schema of an action's parameters. It requires those that
// nothing beside them can stand for.
func parametersShape(a *pipeline.ActionSpec) object {
	props := object{}
	var must []any
	for i := range a.Params {
		p := &a.Params[i]
		s := valueShape(&p.Type)
		if !p.Required && !p.Type.Optional {
			s = anyOf(s, object{"type": "null"})
		}
		if p.Doc != "" {
			s["description"] = p.Doc
		}
		if p.Default != nil {
			s["default"] = p.Default
		}
		props[p.Name] = s
		if p.Required && p.Default == nil && p.Name != promptNeeded(a) {
			must = append(must, p.Name)
		}
	}
	params := object{"type": "object", "properties": props, "additionalProperties": a.Open}
	if must != nil {
		params["required"] = must
	} else {
		orNull(params)
	}
	return params
}

// valueShape is the schema of a value of a type, each part of which may be
// computed.
func valueShape(t *pipeline.Type) object {
	o := object{}
	switch t.Kind {
	case "string", "path", "file", "secret":
		o["type"] = "string"
	case "integer", "number":
		o["type"] = t.Kind
		if t.Min != nil {
			o["minimum"] = *t.Min
		}
		if t.Max != nil {
			o["maximum"] = *t.Max
		}
		o = anyOf(o, computed())
	case "boolean":
		o = anyOf(object{"type": "boolean"}, computed())
	case "duration":
		o = anyOf(shape("duration"), computed())
	case "enum":
		o = anyOf(object{"enum": t.Values}, computed())
	case "list":
		o["type"] = "array"
		if t.Items != nil {
			o["items"] = valueShape(t.Items)
		}
		o = anyOf(o, computed())
	case "map":
		o["type"] = "object"
		if len(t.Properties) > 0 {
			props := object{}
			for i := range t.Properties {
				props[t.Properties[i].Name] = valueShape(&t.Properties[i].Type)
				if doc := t.Properties[i].Doc; doc != "" {
					props[t.Properties[i].Name].(object)["description"] = doc
				}
			}
			o["properties"], o["additionalProperties"] = props, t.Additional
		}
		o = anyOf(o, computed())
	}
	if t.Optional {
		return anyOf(o, object{"type": "null"})
	}
	return o
}
