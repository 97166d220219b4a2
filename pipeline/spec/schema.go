package spec

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// object is a part of a JSON Schema. Keys come out sorted.
type object = map[string]any

// schemaURI names the language in editors' settings.
const schemaURI = "https://orchestrator-project.github.io/schema/pipeline.json"

// shapeNames are the names of the mappings of the language in $defs; the
// document itself is the root.
var shapeNames = map[place]string{
	inSettings: "settings", inContext: "context", inAuto: "auto", inStep: "step", inRetry: "retry", inOn: "on", inGoto: "route",
	inRule: "rule", inFailure: "failure", inCache: "cache", inResources: "resources", inSandbox: "sandbox", inFor: "for", inWhile: "while",
	inRepeat: "repeat", inQueue: "queue", inIf: "if", inElif: "elif", inMatch: "match", inCompete: "compete", inWait: "wait", inAsk: "ask",
	inApprove: "approve", inType: "declaration", inAgent: "agent", inOwnAction: "own_action", inPublish: "publish", inConsume: "consume",
	inFiles: "files", inInject: "inject", inTriggers: "triggers", inCron: "cron", inWebhook: "webhook", inCheckpoint: "checkpoint", inConcurrency: "concurrency",
	inBudget: "budget", inModel: "model", inNeeds: "needs", inServer: "server", inTool: "tool", inHTTPTool: "http_tool", inSQLTool: "sql_tool",
	inApproval: "approval", inAgentOutput: "agent_output", inLimits: "limits", inSession: "session",
}

// Schema is the JSON Schema (2020-12) of the language as this version supports
// it, with the actions of the catalogue. It is for editors: Compile knows more.
// Beside the keywords of the standard it has those that editors of YAML and JSON
// read: markdownDescription and doNotSuggest.
func Schema(cat pipeline.Catalog) []byte {
	c := newCatalog(cat)
	defs := object{
		"steps":  object{"type": []any{"array", "null"}, "items": object{"$ref": "#/$defs/step", "required": []any{"id"}}},
		"type":   typeShape(),
		"input":  inputShape(),
		"action": actionShape(c),
	}
	for in, name := range shapeNames {
		defs[name] = tableShape(in)
	}
	defs["settings"].(object)["type"] = []any{"object", "null"}
	defs["context"].(object)["type"] = []any{"object", "null"}
	defs["context"].(object)["additionalProperties"] = true
	propertyOf(defs, "for", "variable")["pattern"] = namePattern
	propertyOf(defs, "queue", "variable")["pattern"] = namePattern
	required := propertyOf(defs, "declaration", "required")
	delete(required, "type")
	required["anyOf"] = []any{object{"type": "boolean"}, object{"type": "array", "items": object{"type": "string"}}} // a list, as in JSON Schema
	step := defs["step"].(object)
	delete(step, "required") // a judge needs no id
	step["anyOf"] = doesSomething()
	if tools := c.tools(); tools != nil {
		maps.Copy(propertyOf(defs, "step", "tool"), object{"type": "string", "enum": texts(tools)})
	}
	if rules := append(toolRules(c), actionRules(c, defs)...); len(rules) > 0 {
		step["allOf"] = rules
	}

	root := tableShape(inDocument)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = schemaURI
	root["title"] = "Orchestrator pipeline"
	root["$defs"] = defs
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return []byte("{}") // cannot happen: the parts are plain values
	}
	return append(b, '\n')
}

// propertyOf is the schema of a key of one of the mappings.
func propertyOf(defs object, name, key string) object {
	return defs[name].(object)["properties"].(object)[key].(object)
}

func ref(name string) object { return object{"$ref": "#/$defs/" + name} }

func anyOf(parts ...object) object { return object{"anyOf": parts} }

// mapShape is the schema of a mapping of the language.
func mapShape(in place) object {
	if in == inDocument {
		return object{"$ref": "#"}
	}
	return ref(shapeNames[in])
}

// tableShape is the schema of a mapping, from the table of keys.
func tableShape(in place) object {
	props := object{}
	var must []any
	for i := range keys {
		k := &keys[i]
		if k.in&in == 0 || k.later {
			continue
		}
		props[k.name] = keyShape(k, "")
		for _, a := range k.aliases {
			alias := keyShape(k, "The same as "+k.name+". ")
			if in == inType { // spellings of JSON Schema and of older pipelines
				alias["doNotSuggest"] = true
			}
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

// keyShape is the schema of a key's value, with what the key means.
func keyShape(k *key, before string) object {
	s := shape(k.shape)
	s["description"] = before + k.doc
	if k.shape == "context" {
		s["deprecated"] = true
	}
	if k.in&inStep == 0 || before != "" {
		return s
	}
	more := ""
	if of := suits[k.name]; of != nil {
		more = "\n\nBelongs to " + strings.Join(of, ", ") + "."
	}
	if example := doingExamples[k.name]; example != "" && k.in&inDoing != 0 {
		more += "\n\n```yaml\n- id: example\n  " + strings.ReplaceAll(example, "\n", "\n  ") + "\n```"
	}
	if more != "" {
		s["markdownDescription"] = markdown(k.doc) + more
	}
	return s
}

// markdown keeps a text as it is where Markdown is read.
func markdown(s string) string {
	return strings.NewReplacer("<", `\<`, "*", `\*`, "`", "\\`").Replace(s)
}

// doingExamples show what a step of each kind looks like, in editors.
var doingExamples = map[string]string{
	"action":   "action: http\nparameters: {url: \"https://example.org\"}",
	"command":  "command: [make, test]",
	"run":      "run: \"grep -c error {{ file | sh }}\"",
	"set":      "set: {total: \"{{ price * count }}\"}",
	"assert":   "assert: \"{{ score >= 0.8 }}\"",
	"wait":     "wait: {for: 5m}",
	"ask":      "ask: {question: Which colour?, choices: [red, blue], deadline: 2d}",
	"approve":  "approve: \"Publish {{ version }}?\"",
	"call":     "call: review # a name of imports\nwith: {repo: \"{{ repo }}\"}",
	"pipeline": "pipeline:\n  inputs: {n: 1}\n  steps:\n    - {id: double, set: {twice: \"{{ n * 2 }}\"}}\nwith: {n: 3}",
	"for":      "for: {items: \"{{ files }}\", variable: file}\nsteps:\n  - {id: check, command: [lint, \"{{ file }}\"]}",
	"while":    "while: {condition: score < 0.8, max_iterations: 5}\nsteps:\n  - {id: improve, state: {score: \"{{ (score or 0) + 0.3 }}\"}}",
	"repeat":   "repeat: {until: attempt.success, max_iterations: 3}\nsteps:\n  - {id: attempt, command: [make, test], on_failure: continue}",
	"queue":    "queue:\n  items: \"{{ files }}\"\n  max_parallel: 4\n  steps:\n    - {id: check, command: [lint, \"{{ item }}\"]}",
	"if":       "if:\n  condition: score > 0.8\n  then:\n    - {id: publish, command: [make, publish]}\nelse:\n  - {id: improve, command: [make, improve]}",
	"match":    "match:\n  on: \"{{ label }}\"\n  cases:\n    bug: [{id: fix, command: [make, fix]}]\n  default: []",
	"parallel": "parallel:\n  - {id: left, command: [make, left]}\n  - {id: right, command: [make, right]}",
	"compete":  "compete:\n  candidates:\n    - {id: short, command: [echo, a]}\n    - {id: long, command: [echo, abc]}\n  tie_break: longest",
	"skill":    "skill: summarize # skills/summarize/SKILL.md\nparameters: {text: \"{{ text }}\"}",
	"agent":    "agent: coder # a name of agents\nprompt: \"Fix {{ issue }}.\"",
}

// doesSomething says that a step has a doing, or sets state alone.
func doesSomething() []any {
	var some []any
	for _, name := range append(doingKeys(), "state") {
		some = append(some, object{"required": []any{name}})
	}
	return some
}

// The names of steps, and of what else expressions can name.
const (
	idPattern   = "^[A-Za-z][A-Za-z0-9_-]*$"
	namePattern = "^[A-Za-z_][A-Za-z0-9_-]*$"
)

// computed is what may stand in place of another value: a text with
// placeholders or <AUTO> tags.
func computed() object { return object{"type": "string", "pattern": `\{[{%#]|<AUTO`} }

func texts(words []string) []any {
	vs := make([]any, len(words))
	for i, w := range words {
		vs[i] = w
	}
	return vs
}

func enum(words ...string) object { return object{"enum": texts(words)} }

// described is one of a few words, each with its meaning: a text in Markdown,
// whose first paragraph can stand alone.
func described(words []string, docs map[string]string) object {
	parts := make([]object, len(words))
	for i, word := range words {
		first, _, more := strings.Cut(docs[word], "\n\n")
		parts[i] = object{"const": word, "description": first}
		if more {
			parts[i]["markdownDescription"] = docs[word]
		}
	}
	return anyOf(parts...)
}

// failureDocs are what the words of on_failure mean.
var failureDocs = map[string]string{
	"fail":     "The default: what depends on the step is skipped.",
	"continue": "What depends on the step runs, with its null output; the run fails in the end.",
	"skip":     "The step counts as skipped; what depends on it runs.",
	"retry":    "It is tried again, three times in all unless retry says otherwise.",
}

// orNull lets the key stand without a value.
func orNull(o object) object {
	o["type"] = []any{o["type"], "null"}
	return o
}

// offering is a schema by which editors offer the keys of a mapping where it may
// be one; it refuses nothing.
func offering(in place) object {
	props := object{}
	for i := range keys {
		if k := &keys[i]; k.in&in != 0 && !k.later {
			props[k.name] = object{"description": k.doc}
		}
	}
	return object{"properties": props}
}

// typeShape is a type, in short or as a mapping.
func typeShape() object {
	o := offering(inType)
	o["anyOf"] = []any{typeNameShape(), object{"type": "null"}, ref("declaration")}
	return o
}

// inputShape is a type, or a bare default: what does not say that it is a type.
func inputShape() object {
	o := offering(inType)
	o["if"] = object{"type": "object", "anyOf": []any{object{"required": []any{"type"}}, object{"required": []any{"default"}}}}
	o["then"] = ref("declaration")
	return o
}

// typeDocs describe the types, in the order in which editors offer them.
var typeDocs = []struct{ name, doc string }{
	{"string", "A text."},
	{"integer", "A whole number; min and max bound it."},
	{"number", "A number; min and max bound it."},
	{"boolean", "true or false."},
	{"enum", "One of values."},
	{"path", "A path within the workspace; under names the folder that it must be in."},
	{"file", "A file that is handed over."},
	{"list", "A list; items is the type of its items. list<string> says the same in short."},
	{"map", "A map; properties are its keys with their types."},
	{"duration", "Seconds, or a text such as 90s or 1h30m."},
	{"secret", "A text that is kept out of logs and events."},
	{"union", "One of several maps, told apart by the field that by names."},
	{"any", "Any value."},
}

// typeNameShape is a type's name. Older spellings and composed names are taken,
// not offered.
func typeNameShape() object {
	names, docs := make([]string, len(typeDocs)), map[string]string{}
	for i, t := range typeDocs {
		names[i], docs[t.name] = t.name, t.doc
	}
	var older []string
	for name, kind := range typeNames {
		if name != kind {
			older = append(older, name)
		}
	}
	slices.Sort(older)
	return anyOf(
		described(names, docs),
		object{"type": "string", "pattern": `^ *(list|array|optional) *<.+> *$`},
		object{"type": "string", "pattern": "^(" + strings.Join(older, "|") + ")$", "deprecated": true},
	)
}

// returnsShape adds what the keys beside the fields of a result mean.
func returnsShape() object {
	s := contractShape("returns")
	props := s["properties"].(object)
	props["from"].(object)["description"] = "Where the result is read: stdout of a program (default), model (the default where one is asked), files, or json FILE."
	props["by"] = object{"anyOf": []any{object{"type": "string"}, ref("type")}, "description": "The field that tells the cases apart."}
	props["cases"] = object{"anyOf": []any{contractShape("fields"), ref("type")}, "description": "The fields of each case, by the value of the field that by names."}
	return s
}

// shape is the schema of a key's value, by the name in the table.
func shape(name string) object {
	switch name {
	case "one":
		return object{"const": 1}
	case "text":
		return object{"type": []any{"string", "number", "boolean", "null"}}
	case "scalar":
		return object{"type": []any{"string", "number"}}
	case "map":
		return orNull(object{"type": "object"})
	case "list":
		return object{"type": "array", "items": object{"type": []any{"string", "number", "boolean"}}, "minItems": 1}
	case "names":
		return anyOf(object{"type": "string"}, object{"type": []any{"array", "null"}, "items": object{"type": "string"}})
	case "id":
		return object{"type": "string", "pattern": idPattern, "maxLength": 100}
	case "steps", "settings", "context", "type", "action":
		return ref(name)
	case "judge":
		return ref("step")
	case "retry":
		return anyOf(mapShape(inRetry), object{"const": false})
	case "inputs":
		return orNull(object{"type": "object", "additionalProperties": ref("input")})
	case "types":
		return orNull(object{"type": "object", "additionalProperties": ref("type")})
	case "returns":
		return returnsShape()
	case "duration":
		return anyOf(object{"type": "number", "minimum": 0}, object{"type": "string", "pattern": "^ *([0-9.]+|([0-9.]+(ms|s|m|h|d))+) *$"})
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
		return anyOf(enum("adaptive", "fixed", "none"), mapShape(inCheckpoint))
	case "on_failure":
		return anyOf(described(failureWords, failureDocs), shape("id"))
	case "on":
		return mapShape(inOn)
	case "triggers":
		return mapShape(inTriggers)
	case "cron":
		return anyOf(shape("names"), mapShape(inCron))
	case "webhook":
		return mapShape(inWebhook)
	case "overlap":
		return enum(pipeline.Overlaps...)
	case "catch_up":
		return enum(pipeline.CatchUps...)
	case "scheme":
		return enum(pipeline.SchemeStandard, pipeline.SchemeGitHub)
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
	case "concurrency":
		return mapShape(inConcurrency)
	case "unknown_actions":
		return enum("error", "model")
	case "integer":
		return object{"type": "integer"}
	case "bytes":
		return anyOf(object{"type": "number", "minimum": 1}, object{"type": "string", "pattern": "^ *[0-9.]+ *([KMG]i?B|B|[kmg])?$"})
	case "imports":
		return orNull(object{"type": "object", "additionalProperties": object{"type": "string"}})
	case "wait":
		return mapShape(inWait)
	case "field_duration":
		return anyOf(shape("duration"), computed())
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
		return anyOf(object{"type": "array"}, computed())
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
	case "type_name": // or with null, as in JSON Schema
		return anyOf(typeNameShape(), object{"type": "array", "items": object{"type": "string"}})
	case "values":
		return object{"type": "array", "minItems": 1}
	}
	return contractShape(name)
}
