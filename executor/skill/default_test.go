package skill_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/sandbox/process"
	"github.com/orchestrator-project/orchestrator/executor/skill"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// samples is where the code and the data lie that the skills are tried on.
const samples = "../../examples/seeds"

func TestTheDefaultSkillsShip(t *testing.T) {
	var library skill.Library
	list, err := library.List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range list {
		s := &list[i]
		names = append(names, s.Name)
		if s.Problem != "" || s.Origin != pipeline.SkillDefault || s.Command == nil || s.Returns == nil || s.Text == "" || s.Description == "" {
			t.Errorf("%s: %+v", s.Name, s)
		}
	}
	want := []string{
		"api-caller", "cell-processor", "code-analyzer", "complex-processor", "data-analyzer", "file-processor", "medium-processor",
		"report-generator", "simple-processor", "test-fixer", "test-generator", "test-runner", "validator",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("the skills: %s", diff)
	}
}

var boxes = &sandbox.Set{Drivers: []sandbox.Driver{&process.Driver{}, sandbox.Host{}}}

// call runs a skill that ships as a step would: its parameters and its result are
// held against its manual, and it is locked in where this machine can. A skill
// that fails gives its log as the error.
func call(t *testing.T, workspace, name string, params map[string]any) (map[string]any, error) {
	t.Helper()
	var library skill.Library
	s := library.Get(name)
	if s == nil || s.Problem != "" {
		t.Fatalf("the skill %s: %+v", name, s)
	}
	files, err := library.Files(name)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for file, data := range files {
		at := filepath.Join(folder, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, data, 0o500)); err != nil {
			t.Fatal(err)
		}
	}
	asked, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	given, err := pipeline.DecodeValue(asked)
	if err != nil {
		t.Fatal(err)
	}
	given, wrong := spec.Conform(&pipeline.Type{Kind: "map", Properties: s.Parameters, Additional: s.Open}, given)
	if wrong != nil {
		return nil, fmt.Errorf("its parameters are wrong: %v", wrong)
	}
	argv := make([]string, len(s.Command))
	for i, arg := range s.Command {
		argv[i] = arg
		if file, ok := strings.CutPrefix(arg, "./"); ok {
			argv[i] = filepath.Join(folder, name, file)
		}
	}
	ran, err := boxes.Run(t.Context(), s.Sandbox, sandbox.Spec{Workspace: workspace, Readable: []string{folder}},
		sandbox.Program{Argv: argv, Environ: []string{"PATH=/usr/bin:/bin", "NO_PROXY=127.0.0.1"}, Dir: workspace}, string(pipeline.EncodeValue(given)), 1<<20)
	if f, ok := errors.AsType[*pipeline.Failure](err); ok && f.Reason == "command_not_found" {
		t.Skipf("the skills are programs of python3, which this machine lacks: %v", err)
	}
	switch {
	case err != nil:
		t.Fatalf("%s: %v", name, err)
	case ran.Exit.Code != 0:
		return nil, errors.New(ran.Stderr)
	}
	v, err := pipeline.DecodeValue([]byte(ran.Stdout))
	if err != nil {
		t.Fatalf("%s gives no JSON: %v\n%s", name, err, ran.Stdout)
	}
	if _, wrong := spec.Conform(s.Returns, v); wrong != nil {
		t.Errorf("%s gives what its manual does not promise: %v\n%s", name, wrong, ran.Stdout)
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(ran.Stdout), &out); err != nil {
		t.Fatal(err)
	}
	for key := range out {
		promised := false
		for i := range s.Returns.Properties {
			promised = promised || s.Returns.Properties[i].Name == key
		}
		if !promised {
			t.Errorf("%s gives %s, which its manual does not name", name, key)
		}
	}
	return out, nil
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func must(t *testing.T, workspace, skill string, params map[string]any) map[string]any {
	t.Helper()
	v, err := call(t, workspace, skill, params)
	if err != nil {
		t.Fatalf("%s: %v", skill, err)
	}
	return v
}

// workspace is a folder with the sample code and the data of the pipelines.
func workspace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"sample_code", "data"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(samples, name))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSkillsCompute(t *testing.T) {
	dir := workspace(t)
	write(t, dir, "note.txt", "two words\n\nand four more of ünicode")
	write(t, dir, "state.json", `{"ready": true}`)
	for _, c := range []struct{ skill, params, want string }{
		{"file-processor", `{"file": "./note.txt", "operation": "analyze"}`, `{"file":"./note.txt","operation":"analyze","bytes":36,"lines":3,"words":7,"longest_line":24}`},
		{"cell-processor", `{"row": 3, "col": 20}`, `{"row":3,"col":20,"value":60}`},
		{"cell-processor", `{"row": "a", "col": true}`, `{"row":"a","col":true,"value":"a:True"}`},
		{"api-caller", `{"endpoint": "data:application/json,{%22ready%22:true}"}`, `{"success":true,"status":200,"body":{"ready":true}}`},
		{"api-caller", `{"endpoint": "data:,plain%20text"}`, `{"success":true,"status":200,"body":"plain text"}`},
		{"api-caller", `{"endpoint": "file:state.json"}`, `{"success":true,"status":200,"body":{"ready":true}}`},
		{"api-caller", `{"endpoint": "file:none.json"}`, `{"success":false,"status":0,"body":"cannot read none.json: No such file or directory"}`},
		{"validator", `{}`, `{"valid":true,"checked":0,"problems":[]}`},
		{"validator", `{"data": null}`, `{"valid":true,"checked":0,"problems":[]}`},
		{"validator", `{"data": {"a": 1, "b": ["", {"c": null}]}}`, `{"valid":false,"checked":6,"problems":["data.b[0] is empty","data.b[1].c is null"]}`},
		{"data-analyzer", `{"data": [1, 2, 3]}`, `{"complexity":"simple","kind":"list","depth":1,"values":3}`},
		{"data-analyzer", `{"data": [{"a": 1}, {"a": 2}]}`, `{"complexity":"medium","kind":"list","depth":2,"values":2}`},
		{"data-analyzer", `{"data": {"a": [{"b": false}]}}`, `{"complexity":"complex","kind":"map","depth":3,"values":1}`},
		{"simple-processor", `{}`, `{"values":0,"numbers":0,"sum":0}`},
		{"simple-processor", `{"data": {"a": 2, "b": 0.5, "c": "text", "d": true}}`, `{"values":4,"numbers":2,"sum":2.5}`},
		{"medium-processor", `{}`, `{"rows":0,"columns":[]}`},
		{"medium-processor", `{"data": [{"a": 2, "b": "x"}, {"a": 1, "b": "x"}, {"a": null}]}`, `{"rows":3,"columns":[
			{"name":"a","values":2,"distinct":2,"min":1,"max":2},{"name":"b","values":2,"distinct":1,"min":null,"max":null}]}`},
		{"medium-processor", `{"data": {"a": [1, 2], "b": [3]}}`, `{"rows":2,"columns":[
			{"name":"a","values":2,"distinct":2,"min":1,"max":2},{"name":"b","values":1,"distinct":1,"min":3,"max":3}]}`},
		{"complex-processor", `{}`, `{"values":0,"places":[]}`},
		{"complex-processor", `{"data": {"a": [{"b": 1}, {"b": "x"}], "c": true}}`, `{"values":3,"places":[
			{"path":"a[].b","types":["number","text"],"count":2},{"path":"c","types":["boolean"],"count":1}]}`},
	} {
		var params, want map[string]any
		if err := errors.Join(json.Unmarshal([]byte(c.params), &params), json.Unmarshal([]byte(c.want), &want)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, must(t, dir, c.skill, params)); diff != "" {
			t.Errorf("%s %s: %s", c.skill, c.params, diff)
		}
	}
}

func TestSkillsRefuse(t *testing.T) {
	dir := workspace(t)
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		skill  string
		params map[string]any
		says   string
	}{
		{"file-processor", map[string]any{"file": "none.txt"}, "cannot read none.txt"},
		{"file-processor", map[string]any{"file": "../secret.txt"}, "a path within the workspace"},
		{"api-caller", map[string]any{"endpoint": "file:../secret.txt"}, "outside the workspace"},
		{"api-caller", map[string]any{"endpoint": "ftp://host/x"}, "must begin with"},
		{"code-analyzer", map[string]any{"file": "../x.py"}, "a path within the workspace"},
		{"test-runner", map[string]any{"test_directory": "empty"}, "has no tests that run"},
		{"test-fixer", map[string]any{"failures": []any{map[string]any{"test": "a.b", "directory": "empty"}}}, "cannot read empty/cases.json"},
		{"report-generator", map[string]any{"analyses": []any{}, "output_file": "../report.md"}, "a path within the workspace"},
	} {
		if _, err := call(t, dir, c.skill, c.params); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %v: %v, want %q", c.skill, c.params, err, c.says)
		}
	}
}

func TestAPICallerTellsWhatTheServerSays(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ready" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprint(w, `["`+r.Method+`"]`)
	}))
	defer server.Close()
	for path, want := range map[string]map[string]any{
		"/ready": {"success": true, "status": 200.0, "body": []any{"GET"}},
		"/busy":  {"success": false, "status": 503.0, "body": []any{"GET"}},
	} {
		if diff := cmp.Diff(want, must(t, t.TempDir(), "api-caller", map[string]any{"endpoint": server.URL + path})); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	server.Close()
	v := must(t, t.TempDir(), "api-caller", map[string]any{"endpoint": server.URL})
	if v["success"] != false || v["status"] != 0.0 {
		t.Errorf("nobody answers: %v", v)
	}
}

func TestCodeAnalyzer(t *testing.T) {
	dir := workspace(t)
	v := must(t, dir, "code-analyzer", map[string]any{"file": "sample_code/inventory.py", "analysis_type": "comprehensive"})
	var issues []string
	for _, issue := range v["issues"].([]any) {
		m := issue.(map[string]any)
		issues = append(issues, fmt.Sprintf("%v %v", m["line"], m["kind"]))
	}
	want := []string{"3 unused_import", "11 bare_except", "15 mutable_default", "28 none_comparison", "33 docstring", "38 docstring"}
	if diff := cmp.Diff(want, issues); diff != "" {
		t.Errorf("issues: %s", diff)
	}
	if diff := cmp.Diff([]any{"json", "os"}, v["imports"]); diff != "" {
		t.Errorf("imports: %s", diff)
	}
	days := v["functions"].([]any)[3]
	if diff := cmp.Diff(map[string]any{
		"name": "days_left", "class": nil, "line": 26.0, "end_line": 30.0, "async": false, "documented": true, "complexity": 2.0,
		"parameters": []any{
			map[string]any{"name": "stock", "annotation": "int", "required": true, "keyword_only": false},
			map[string]any{"name": "daily_sales", "annotation": "int", "required": true, "keyword_only": false},
		},
	}, days); diff != "" {
		t.Errorf("days_left: %s", diff)
	}

	if v := must(t, dir, "code-analyzer", map[string]any{"file": "sample_code/inventory.py"}); len(v["issues"].([]any)) != 0 {
		t.Errorf("a basic analysis has issues: %v", v["issues"])
	}
	write(t, dir, "broken.py", "def f(:\n")
	v = must(t, dir, "code-analyzer", map[string]any{"file": "broken.py"})
	if issues := v["issues"].([]any); len(issues) != 1 || issues[0].(map[string]any)["kind"] != "syntax" {
		t.Errorf("a broken file: %v", issues)
	}
	if v := must(t, dir, "code-analyzer", map[string]any{"file": "data/heating.csv"}); v["language"] != "csv" || v["lines"] != 25.0 {
		t.Errorf("another file: %v", v)
	}
}
