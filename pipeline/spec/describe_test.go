package spec

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// TestSchema: the schema takes what Compile takes, and knows the keys.
func TestSchema(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema(testCatalog())))
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
	validate := func(src []byte) error {
		v, err := readYAML(string(src))
		if err != nil {
			return err
		}
		x, err := jsonschema.UnmarshalJSON(bytes.NewReader(pipeline.EncodeValue(v)))
		if err != nil {
			return err
		}
		return schema.Validate(x)
	}
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
			if _, _, err := Compile(Source{File: "x", Text: src, Files: bundleOf(ar)}, testCatalog()); err != nil || bytes.Contains(src, []byte("<AUTO")) {
				continue // tags are not YAML
			}
			accepted++
			if err := validate(src); err != nil {
				t.Errorf("%s: %v", x.Name, err)
			}
		}
	}
	if accepted < 10 {
		t.Errorf("only %d accepted pipelines", accepted)
	}
	for _, src := range []string{
		"name: x", "steps: [{id: a, acton: debug}]", "steps: [{id: 1a, action: debug}]", "steps: [{id: a, action: search}]", "steps: [{id: a, action: search, parameters: {queries: 5}}]",
		"steps: [{id: a, run: x, on_failure: [b]}]", "steps: [{id: a, wait: {four: 1}}]", "steps: [{id: a, compete: {candidates: [{id: b}], judge: {runn: x}}}]", "steps: []\nsettings: {timeout: soon}", "steps: [{id: a, action: write, tool: filesystem, parameters: {}}]",
	} {
		if err := validate([]byte(src)); err == nil {
			t.Errorf("accepted: %s", src)
		}
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

func TestExplain(t *testing.T) {
	golden(t, "testdata/explain/*.txtar", ".md", func(t *testing.T, src Source) string {
		t.Helper()
		plan, _, err := Compile(src, testCatalog())
		if err != nil {
			t.Fatal(err)
		}
		return Explain(plan, testCatalog()).String()
	})
}

func TestDigest(t *testing.T) {
	a := Digest(Source{File: "a", Text: []byte("x")}, pipeline.Catalog{})
	for _, b := range []pipeline.Digest{
		Digest(Source{File: "ax", Text: nil}, pipeline.Catalog{}),
		Digest(Source{File: "a", Text: []byte("x")}, pipeline.Catalog{Digest: "d"}),
	} {
		if a == b {
			t.Error("different things have one digest")
		}
	}
	if len(a) != len("sha256:")+64 || a != Digest(Source{File: "a", Text: []byte("x")}, pipeline.Catalog{}) {
		t.Error(a)
	}
}

func TestDecodePlanRefuses(t *testing.T) {
	for _, src := range []string{
		``, `{}`, `{"format":1}`, `{"format":2,"colour":1}`, `{"format":2}{}`, `{"format":2,"root":{"steps":[null]}}`, `{"format":2,"root":{"steps":[{"id":"a","deps":[{"on":7}]}]}}`,
		`{"format":2,"units":[null]}`, `{"format":2,"root":{"steps":[{"id":"a","routes":{"always":1}}]}}`, `{"format":2,"root":{"steps":[{"id":"a","call":{"unit":0}}]}}`,
	} {
		if _, err := DecodePlan([]byte(src)); err == nil {
			t.Errorf("accepted: %s", src)
		}
	}
}

// TestCompileIsPure: one source gives one plan.
func TestCompileIsPure(t *testing.T) {
	src, err := os.ReadFile("testdata/plan/blocks.txtar")
	if err != nil {
		t.Fatal(err)
	}
	text := txtar.Parse(src).Files[0].Data
	var first []byte
	for range 20 {
		plan, _, err := Compile(Source{File: "x", Text: text}, testCatalog())
		if err != nil {
			t.Fatal(err)
		}
		b, _, _ := EncodePlan(plan)
		if first != nil && !bytes.Equal(first, b) {
			t.Fatal(cmp.Diff(json.RawMessage(first), json.RawMessage(b)))
		}
		first = b
	}
}
