package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func document(t *testing.T) (root string, doc []byte) {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	if doc, err = generate(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	return root, doc
}

func TestTheCommittedDocumentIsFresh(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the protos with buf")
	}
	root, doc := document(t)
	committed, err := os.ReadFile(filepath.Join(root, "server", "openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(doc, committed) {
		t.Error("server/openapi.json is stale: go run ./scripts/openapi")
	}
}

func TestTheCommittedDocumentHoldsTogether(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "server", "openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	// Every reference leads to something, and every component is a schema.
	seen := 0
	for _, m := range regexp.MustCompile(`"\$ref": "(#[^"]+)"`).FindAllSubmatch(text, -1) {
		seen++
		if ref := string(m[1]); strings.HasPrefix(ref, "#/components/schemas/") {
			if _, err := c.Compile("openapi.json" + ref); err != nil {
				t.Errorf("%s: %v", ref, err)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d references", seen)
	}
	var parts struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Summary     string
			Responses   map[string]any
			Parameters  []struct{ Name, In string }
		}
	}
	if err := json.Unmarshal(text, &parts); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for path, item := range parts.Paths {
		for method, op := range item {
			if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" || len(op.Responses) == 0 {
				t.Errorf("%s %s: incomplete or not unique: %+v", method, path, op)
			}
			ids[op.OperationID] = true
			want := strings.Count(path, "{")
			for _, p := range op.Parameters {
				if p.In == "path" {
					want--
				}
			}
			if want != 0 {
				t.Errorf("%s %s: path parameters do not fit", method, path)
			}
		}
	}
}
