package judge_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// suiteModule brings the required cases of the official JSON-Schema-Test-Suite for
// draft 2020-12, in its test data. It leaves out content, format and vocabulary, of
// which it says why.
const suiteModule = "github.com/google/jsonschema-go"

// remote is why some groups of cases are not answered as the suite does.
const remote = "a reference leads nowhere but into the schema itself: a schema of a pipeline, a model or a server of tools makes nobody fetch anything"

// exceptions are these groups, by the beginning of their names.
var exceptions = map[string]string{
	"refRemote.json: ": remote,
	"dynamicRef.json: strict-tree schema, guards against misspelled properties":       remote,
	"dynamicRef.json: tests for implementation dynamic anchor and reference link":     remote,
	"dynamicRef.json: $ref and $dynamicAnchor are independent of order - $defs first": remote,
	"dynamicRef.json: $ref and $dynamicAnchor are independent of order - $ref first":  remote,
	"dynamicRef.json: $ref to $dynamicRef finds detached $dynamicAnchor":              remote,
}

// suite is where the cases are.
func suite(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", suiteModule).Output()
	var module struct{ Dir string }
	if err != nil || json.Unmarshal(out, &module) != nil || module.Dir == "" {
		t.Fatalf("the module %s, which brings the suite, cannot be had: %v %s", suiteModule, err, out)
	}
	return filepath.Join(module.Dir, "jsonschema", "testdata", "draft2020-12")
}

// What models answer, and the arguments of tools, are held against schemas as the
// official suite wants it.
func TestSchemasAreReadAsTheOfficialSuiteWants(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(suite(t), "*.json"))
	if err != nil || len(files) < 40 {
		t.Fatalf("the suite has %d files, %v", len(files), err)
	}
	passed, spared := 0, map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		v, err := pipeline.DecodeValue(text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		groups, _ := v.([]any)
		for _, g := range groups {
			group, _ := g.(map[string]any)
			description, _ := group["description"].(string)
			name := filepath.Base(file) + ": " + description
			right, wrong := judged(group)
			passed += right
			if len(wrong) == 0 {
				continue
			}
			known := ""
			for e := range exceptions {
				if strings.HasPrefix(name, e) {
					known = e
				}
			}
			if known == "" || !strings.Contains(strings.Join(wrong, " "), "lies outside the schema") {
				t.Errorf("%s: %s", name, strings.Join(wrong, "; "))
			}
			spared[known] += len(wrong)
		}
	}
	for e, why := range exceptions {
		if spared[e] == 0 {
			t.Errorf("the exception %s is none any more", e)
		}
		t.Logf("%d cases of %s are left out: %s", spared[e], e, why)
	}
	t.Logf("%d cases of %d files passed", passed, len(files))
}

// judged holds the validator against a group of cases.
func judged(group map[string]any) (right int, wrong []string) {
	source, ok := group["schema"].(map[string]any)
	if !ok { // true and false are schemas, but none that an answer has
		source = map[string]any{"allOf": []any{group["schema"]}}
	}
	s, err := model.Compile(source)
	cases, _ := group["tests"].([]any)
	for _, c := range cases {
		one, _ := c.(map[string]any)
		description, _ := one["description"].(string)
		switch {
		case err != nil:
			wrong = append(wrong, description+": "+err.Error())
		case (len(s.Violations(one["data"])) == 0) != (one["valid"] == true):
			wrong = append(wrong, description)
		default:
			right++
		}
	}
	slices.Sort(wrong)
	return right, wrong
}
