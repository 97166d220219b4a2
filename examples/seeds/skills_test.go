package seeds_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// manual is the front matter of a SKILL.md.
type manual struct {
	Name        string         `yaml:"name"`
	Description string         `yaml:"description"`
	Parameters  map[string]any `yaml:"parameters"`
	Returns     map[string]any `yaml:"returns"`
	Run         []string       `yaml:"run"`
	Active      bool           `yaml:"active"`
}

func readManual(t *testing.T, skill string) manual {
	t.Helper()
	parts := strings.SplitN(read(t, filepath.Join("skills", skill, "SKILL.md")), "---\n", 3)
	if len(parts) != 3 || parts[0] != "" {
		t.Fatalf("the manual of %s has no front matter", skill)
	}
	var m manual
	if err := yaml.Unmarshal([]byte(parts[1]), &m); err != nil {
		t.Fatalf("the manual of %s: %v", skill, err)
	}
	return m
}

func TestManualsNameTheirSkill(t *testing.T) {
	folders, err := os.ReadDir("skills")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		m := readManual(t, folder.Name())
		if m.Name != folder.Name() || m.Description == "" || !m.Active || len(m.Returns) == 0 {
			t.Errorf("the manual of %s: %+v", folder.Name(), m)
		}
	}
}

// call runs a skill as its manual says. A skill that fails gives its log as the
// error.
func call(t *testing.T, workspace, skill string, params map[string]any) (map[string]any, error) {
	t.Helper()
	m := readManual(t, skill)
	for name := range params {
		if _, ok := m.Parameters[name]; !ok {
			t.Fatalf("%s has no parameter %s", skill, name)
		}
	}
	argv := slices.Clone(m.Run)
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("the skills are programs of %s, which this machine lacks: %v", argv[0], err)
	}
	folder, err := filepath.Abs(filepath.Join("skills", skill))
	if err != nil {
		t.Fatal(err)
	}
	for i, arg := range argv {
		if name, ok := strings.CutPrefix(arg, "./"); ok {
			argv[i] = filepath.Join(folder, name)
		}
	}
	stdin, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...) //nolint:gosec // the manuals are ours
	cmd.Dir, cmd.Stdin = workspace, bytes.NewReader(stdin)
	var log bytes.Buffer
	cmd.Stderr = &log
	stdout, err := cmd.Output()
	if err != nil {
		return nil, errors.New(log.String())
	}
	var v map[string]any
	if err := json.Unmarshal(stdout, &v); err != nil {
		t.Fatalf("%s gives no JSON: %v\n%s", skill, err, stdout)
	}
	for name := range m.Returns {
		if _, ok := v[name]; !ok {
			t.Errorf("%s does not give %s, which its manual promises", skill, name)
		}
	}
	if len(v) != len(m.Returns) {
		t.Errorf("%s gives what its manual does not name: %s", skill, stdout)
	}
	return v, nil
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
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(name)); err != nil {
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
		{"file-processor", map[string]any{"file": "../secret.txt"}, "outside the workspace"},
		{"api-caller", map[string]any{"endpoint": "file:../secret.txt"}, "outside the workspace"},
		{"api-caller", map[string]any{"endpoint": "ftp://host/x"}, "must begin with"},
		{"code-analyzer", map[string]any{"file": "../x.py"}, "outside the workspace"},
		{"test-runner", map[string]any{"test_directory": "empty"}, "has no tests that run"},
		{"test-fixer", map[string]any{"failures": []any{map[string]any{"test": "a.b", "directory": "empty"}}}, "cannot read empty/cases.json"},
		{"report-generator", map[string]any{"analyses": []any{}, "output_file": "../report.md"}, "outside the workspace"},
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
	t.Setenv("NO_PROXY", "127.0.0.1")
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
