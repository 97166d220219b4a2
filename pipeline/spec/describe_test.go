package spec

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

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
