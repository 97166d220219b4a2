package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// validator says what the schema for editors finds in the source of a pipeline,
// <AUTO> tags and all.
func validator(t *testing.T, cat pipeline.Catalog) func(src []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema(cat)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(schemaURI, doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile(schemaURI)
	if err != nil {
		t.Fatal(err)
	}
	return func(src []byte) error {
		text, bad := newText("x.yaml", string(src))
		if bad != nil {
			return errors.New(bad.msg)
		}
		found := newFindings(text)
		root := load(text, found)
		if root == nil || found.errs > 0 {
			return found.diagnostics()
		}
		v := newCompiler(text, found, newCatalog(pipeline.Catalog{}), nil).plain(root)
		x, err := jsonschema.UnmarshalJSON(bytes.NewReader(pipeline.EncodeValue(v)))
		if err != nil {
			return err
		}
		return schema.Validate(x)
	}
}

// TestSchemaOfSchema: the schema is one of JSON Schema 2020-12, and every
// mapping that it names is there.
func TestSchemaOfSchema(t *testing.T) {
	for _, cat := range []pipeline.Catalog{{}, testCatalog()} {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema(cat)))
		if err != nil {
			t.Fatal(err)
		}
		meta, err := jsonschema.NewCompiler().Compile("https://json-schema.org/draft/2020-12/schema")
		if err != nil {
			t.Fatal(err)
		}
		if err := meta.Validate(doc); err != nil {
			t.Error(err)
		}
		validator(t, cat)
	}
}

// TestSchemaIsDocumented: every key of a mapping of the language says what it
// means, and no mapping takes what it does not know.
func TestSchemaIsDocumented(t *testing.T) {
	var root object
	if err := json.Unmarshal(Schema(testCatalog()), &root); err != nil {
		t.Fatal(err)
	}
	mappings := map[string]any{"pipeline": root}
	for in, name := range shapeNames {
		mappings[name] = root["$defs"].(object)[name]
		if in != inContext && mappings[name].(object)["additionalProperties"] != false {
			t.Errorf("%s takes any key", name)
		}
	}
	for name, m := range mappings {
		for key, s := range m.(object)["properties"].(object) {
			if s.(object)["description"] == nil {
				t.Errorf("%s of %s has no description", key, name)
			}
		}
	}
	for _, p := range returnsShape()["properties"].(object) {
		if p.(object)["description"] == nil {
			t.Errorf("no description: %v", p)
		}
	}
	for p := inDocument << 1; p < endOfPlaces; p <<= 1 {
		if shapeNames[p] == "" && p != inSkill {
			t.Errorf("%s is no part of the schema", p)
		}
	}
	seen := map[string]bool{}
	for _, d := range typeDocs {
		seen[d.name] = true
	}
	for _, kind := range typeNames {
		if !seen[kind] {
			t.Errorf("the type %s is not described", kind)
		}
	}
}

// TestSchemaTakesWhatCompiles: sources of the golden tests without errors have
// none in an editor.
func TestSchemaTakesWhatCompiles(t *testing.T) {
	validate := validator(t, testCatalog())
	accepted := 0
	files, _ := filepath.Glob("testdata/*/*.txtar")
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range ar.Files {
			if !strings.HasSuffix(x.Name, ".yaml") || strings.Contains(x.Name, "/") {
				continue
			}
			src := goldenSource(x.Data)
			if _, _, err := Compile(Source{File: "x", Text: src, Files: bundleOf(ar)}, testCatalog()); err != nil {
				continue
			}
			accepted++
			if err := validate(src); err != nil {
				t.Errorf("%s: %s: %v", file, x.Name, err)
			}
		}
	}
	if accepted < 10 {
		t.Errorf("only %d accepted pipelines", accepted)
	}
}

// TestSchemaTakesRandomPipelines: what an author draws at random compiles, and
// has no errors in an editor.
func TestSchemaTakesRandomPipelines(t *testing.T) {
	validate := validator(t, testCatalog())
	sub := pipeline.Bundle{"lib/sub.yaml": []byte("inputs: {x: {type: any}}\nsteps: [{id: s, action: debug, with: {x: '{{ x }}'}}]\n")}
	rapid.Check(t, func(t *rapid.T) {
		a := &author{t: t}
		d := doc{
			{"imports", doc{{"sub", "lib/sub.yaml"}}},
			{"inputs", doc{{"n", word("3")}, {"kind", doc{{"type", "any"}}}}},
			{"settings", doc{{"order", "sequence"}, {"max_transitions", word("9")}}},
			{"steps", a.body(0, true, false)},
		}
		p := &printer{block: true, quote: '"'}
		p.value(d, "")
		src := []byte(p.b.String() + "\n")
		if _, _, err := Compile(Source{File: "x.yaml", Text: src, Files: sub}, testCatalog()); err != nil {
			t.Skip("it does not compile")
		}
		if err := validate(src); err != nil {
			t.Fatalf("%v\n%s", err, src)
		}
	})
}

// TestDoingExamples: what editors show of each doing is right.
func TestDoingExamples(t *testing.T) {
	validate := validator(t, testCatalog())
	const around = "imports: {review: lib/review.yaml}\nagents: {coder: {command: [codex]}}\nsteps:\n  - id: example\n    "
	files := pipeline.Bundle{
		"lib/review.yaml":           []byte("inputs: {repo: {type: any}}\nsteps: [{id: s, action: debug}]\n"),
		"skills/summarize/SKILL.md": []byte("---\nname: summarize\ndescription: makes it short\n---\nSummarize.\n"),
	}
	for _, name := range doingKeys() {
		src := []byte(around + strings.ReplaceAll(doingExamples[name], "\n", "\n    ") + "\n")
		if !strings.HasPrefix(doingExamples[name], name+":") {
			t.Errorf("%s has no example", name)
			continue
		}
		if _, notes, err := Compile(Source{File: "x.yaml", Text: src, Files: files}, testCatalog()); err != nil {
			t.Errorf("%s: %v: %+v", name, err, notes)
		}
		if err := validate(src); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	validate := validator(t, testCatalog())
	for _, src := range []string{
		"name: x",
		"steps: {a: 1}",
		"step: []",
		"steps: []\nsettings: {timeout: soon}",
		"steps: []\nsettings: {order: random}",
		"steps: []\nsettings: {max_parallel: 0}",
		"steps: []\nmodels: {a: {provider: opnai}}",
		"steps: []\nmcp_servers: {a: {command: x}}",
		"steps: []\nsettings: {budget: {token: 3}}",
		"steps: []\nagents: {a: {tools: [{nam: x}]}}",
		"steps: []\nagents: {a: {tools: [{name: x, http: {method: get}}]}}",
		"steps: []\nagents: {a: {output: {}}}",
		"steps: []\nagents: {a: {limits: {steps: 0}}}",
		"steps: [{id: a, agent: b, session: {begin: x}}]",
		"steps: [{id: a, action: generate, prompt: x, requires_model: {min_size: big}}]",
		"steps: []\nartifacts: {a: txt}",
		"steps: []\nagents: {a: {comand: [x]}}",
		"steps: []\nactions: {a: {prompt: x, parameters: {p: sting}}}",
		"steps: []\ninputs: {n: {type: integr}}",
		"steps: []\ninputs: {n: {type: integer, minn: 1}}",
		"steps: []\ninputs: {n: {default: 1, requird: false}}",
		"steps: [{action: debug}]",
		"steps: [{id: a}]",
		"steps: [{id: a, acton: debug}]",
		"steps: [{id: a, comand: [ls]}]",
		"steps: [{id: 1a, action: debug}]",
		"steps: [{id: a, run: x, needs: [{b: 1}]}]",
		"steps: [{id: a, run: x, on_failure: [b]}]",
		"steps: [{id: a, run: x, effect: none}]",
		"steps: [{id: a, run: x, capture: xml}]",
		"steps: [{id: a, run: x, timeout: 5 minutes}]",
		"steps: [{id: a, run: x, retry: {backof: linear}}]",
		"steps: [{id: a, run: x, retry: {on: [boredom]}}]",
		"steps: [{id: a, run: x, on_error: [{do: panic}]}]",
		"steps: [{id: a, run: x, on: {success: b}}]",
		"steps: [{id: a, run: x, returns: {score: numbr}}]",
		"steps: [{id: a, run: x, returns: {from: nowhere, score: number}}]",
		"steps: [{id: a, wait: {four: 1}}]",
		"steps: [{id: a, for: {item: [1]}, steps: []}]",
		"steps: [{id: a, for: {items: 1}, run: x}]",
		"steps: [{id: a, while: {condition: x}, steps: []}]",
		"steps: [{id: a, if: {condition: x, than: []}}]",
		"steps: [{id: a, parallel: [{id: b, rum: x}]}]",
		"steps: [{id: a, pipeline: {step: []}}]",
		"steps: [{id: a, compete: {candidates: [{id: b, run: x}], judge: {runn: x}}}]",
		"steps: [{id: a, action: search}]",
		"steps: [{id: a, action: search, parameters: {queries: 5}}]",
		"steps: [{id: a, action: search, with: {querys: [a]}}]",
		"steps: [{id: a, action: search, parameters: {queries: [a], depth: middling}}]",
		"steps: [{id: a, action: generate, with: {prompt: x, max_tokens: many}}]",
		"steps: [{id: a, action: generate, with: {max_tokens: 3}}]",
		"steps: [{id: a, action: generate_structured, prompt: x}]",
		"steps: [{id: a, action: write, tool: filesystem, parameters: {}}]",
		"steps: [{id: a, action: filesystem.write, parameters: {content: x}}]",
		"steps: [{id: a, action: wriite, tool: filesystem, parameters: {path: x}}]",
		"steps: [{id: a, action: generate, with: {max_tokens: 3}}]",
		"steps: [{id: a, action: generate_structured, prompt: x}]",
		"steps: [{id: a, action: write, tool: filesytem, parameters: {path: x}}]",
		"steps: [{id: a, action: filter, parameters: {data: text}}]",
		"steps: [{id: a, action: typed, parameters: {rows: [{name: x, n: some}]}}]",
		"steps: [{id: a, action: typed, parameters: {rows: [{nme: x}]}}]",
	} {
		if err := validate([]byte(src)); err == nil {
			t.Errorf("accepted: %s", src)
		}
	}
}

func TestSchemaAccepts(t *testing.T) {
	validate := validator(t, testCatalog())
	ar, err := txtar.ParseFile("testdata/plan/agents.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range ar.Files {
		if x.Name == "agents.yaml" {
			if err := validate(x.Data); err != nil {
				t.Error(err)
			}
		}
	}
	for _, src := range []string{
		"steps: []",
		"steps:",
		"inputs: {n: 3, s: text, l: [1], m: {a: 1}, e: {}, nothing: , b: true, t: {type: list<string>}, d: {default: 3}, p: {under: x}, o: {type: relpath}, v: {choices: [a, b]}}\nsteps: []",
		"parameters: {n: {type: int, help: x, minimum: 1}}\nsteps: []",
		"inputs: {m: {type: object, properties: {a: string, b: {type: array}}, required: [a], additionalProperties: true}}\nsteps: []",
		"context: {timeout: 60, max_retries: 2, anything: [1]}\nsteps: []",
		"settings: {timeout: 1h30m, retry: {on: failed}}\nsteps: []",
		"artifacts: {a: path, b: {type: path, under: out}, c: list<map>}\nsteps: []",
		"steps: [{id: a, run: x, needs: b, when: yes, with: {}}]",
		"steps: [{id: a, action: debug, depends_on: [b], condition: true, dependencies: }]",
		"steps: [{id: a, state: {n: 1}}]",
		"steps: [{id: a, skill: anything, parameters: {at: all}}]",
		"steps: [{id: a, action: anything, parameters: {of: its own}}]",
		"steps: [{id: a, action: '<AUTO>choose</AUTO>', tool: data}]",
		"steps: [{id: a, action: <AUTO>choose: one of them, or # none</AUTO>}]",
		"steps: [{id: a, action: typed, parameters: {rows: '{{ rows }}', strict: '<AUTO>strict?</AUTO>', wait: 5m, ratio: '{{ 1 / 3 }}'}}]",
		"steps: [{id: a, action: typed, parameters: {rows: [{name: x, n: '<AUTO>how many?</AUTO>'}, '{{ row }}'], strict: , wait: }}]",
		"steps: [{id: a, action: typed}]",
		"steps: [{id: a, action: generate, prompt: x, with: {max_tokens: 3}}, {id: b, action: generate, prompt_file: x.md}]",
		"steps: [{id: a, action: search, with: {queries: ['<AUTO>one</AUTO>'], depth: <AUTO>shallow or deep?</AUTO>}}]",
		"steps: [{id: a, action: filter, tool: data, parameters: {data: '{% if x %}{{ x }}{% endif %}'}}]",
		"steps: [{id: a, action: data.filter, parameters: {data: []}}]",
		"steps: [{id: a, for: {items: '<AUTO>which?</AUTO>', variable: _x}, run: x}]",
		"steps: [{id: a, run: x, returns: {by: {type: string}, cases: integer}}]",
		"steps: [{id: a, run: x, returns: {from: json out.json, by: verdict, cases: {GOOD: , BAD: {why: string}}}}]",
		"steps: [{id: a, compete: {candidates: [{id: b, run: x}], judge: {run: x}}}]",
		"steps: [{id: a, wait: {for: '{{ n }}'}}, {id: b, if: 'x > 1', run: x, timeout: '60'}]",
	} {
		if err := validate([]byte(src)); err != nil {
			t.Errorf("refused: %s: %v", src, err)
		}
	}
}

// TestSchemaIsSmall: each mapping and each action is described once.
func TestSchemaIsSmall(t *testing.T) {
	cat := testCatalog()
	small := len(Schema(cat))
	for i := range 100 {
		a := *cat.Actions["typed"]
		a.Key, a.Name = fmt.Sprint("typed", i), fmt.Sprint("typed", i)
		cat.Actions[a.Key] = &a
	}
	if more := (len(Schema(cat)) - small) / 100; small > 200_000 || more > 6_000 {
		t.Errorf("%d bytes, and %d for one more action", small, more)
	}
}

// TestKeys: every key of the table is documented or belongs to a later version,
// and spelled once in its place.
func TestKeys(t *testing.T) {
	for p := inDocument; p < endOfPlaces; p <<= 1 {
		seen := map[string]bool{}
		for _, k := range keys {
			if k.in&p == 0 {
				continue
			}
			for _, name := range append([]string{k.name}, k.aliases...) {
				if seen[name] {
					t.Errorf("%s has %s twice", p, name)
				}
				seen[name] = true
			}
			if k.later != (k.doc == "") || k.later != (k.shape == "") {
				t.Errorf("%s of %s: documented %v, of a later version %v", k.name, p, k.doc != "", k.later)
			}
		}
	}
}
