package step

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// place puts files into the workspace.
func place(t *testing.T, env executor.Env, files map[string]string) {
	t.Helper()
	for name, text := range files {
		full := filepath.Join(env.Workspace, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const goText1 = `// Package p is a sample.
package p

import str "strings"

// T is a type.
type T struct{ *str.Builder }

// M is a method.
func (t *T) M(a, _ int, rest ...string) bool {
	for range rest {
		if a > 0 && len(rest) > 1 {
			return true
		}
	}
	return false
}
`

func TestParseCode(t *testing.T) {
	env, _ := testEnv(t)
	place(t, env, map[string]string{
		"src/a.go":              goText1,
		"src/b.py":              "import os as system\n\n\nclass A(Base):\n    async def f(self, *args):\n        return [x for x in args if x]  # filtered\n",
		"src/page.js":           "let x = 1;\n",
		"src/broken.py":         "def f(:\n",
		"src/notes.txt":         "no code",
		"src/.hidden/c.py":      "x = 1\n",
		"src/node_modules/d.py": "x = 1\n",
	})
	v, err := run(t, Config{}, env, "parse_code", params{"source": "src"})
	if err != nil {
		t.Fatal(err)
	}
	got := language(t, params{"v": v})["v"]
	files, _ := field(t, field(t, got, "parsed_code"), "files").([]any)
	for _, f := range files {
		m, _ := f.(map[string]any)
		delete(m, "source")
	}
	file := func(path, language string, lines int, more params) params {
		f := params{
			"path": path, "language": language, "supported": true, "lines": lines, "note": "",
			"functions": []any{}, "types": []any{}, "imports": []any{}, "comments": []any{}, "errors": []any{},
		}
		maps.Copy(f, more)
		return f
	}
	want := params{"parsed_code": params{
		"languages": params{"go": 1, "python": 2, "javascript": 1},
		"errors":    []any{params{"path": "src/broken.py", "line": 1, "message": "a bracket is not closed: ')' is missing"}},
		"files": []any{
			file("src/a.go", "go", 17, params{
				"functions": []any{params{"name": "M", "class": "T", "line": 10, "end_line": 17, "params": []any{"a", "_", "rest"}, "complexity": 4, "async": false, "documented": true}},
				"types":     []any{params{"name": "T", "kind": "struct", "line": 7, "end_line": 7, "bases": []any{"*str.Builder"}, "documented": true}},
				"imports":   []any{params{"module": "strings", "name": "", "alias": "str", "line": 4}},
				"comments":  []any{params{"line": 1, "text": "Package p is a sample."}, params{"line": 6, "text": "T is a type."}, params{"line": 9, "text": "M is a method."}},
			}),
			file("src/b.py", "python", 6, params{
				"functions": []any{params{"name": "f", "class": "A", "line": 5, "end_line": 6, "params": []any{"self", "*args"}, "complexity": 3, "async": true, "documented": false}},
				"types":     []any{params{"name": "A", "kind": "class", "line": 4, "end_line": 6, "bases": []any{"Base"}, "documented": false}},
				"imports":   []any{params{"module": "os", "name": "", "alias": "system", "line": 1}},
				"comments":  []any{params{"line": 6, "text": "filtered"}},
			}),
			file("src/broken.py", "python", 1, params{"supported": false, "errors": []any{params{"line": 1, "message": "a bracket is not closed: ')' is missing"}}}),
			file("src/page.js", "javascript", 1, params{"supported": false, "note": "javascript is not understood; Go and Python are"}),
		},
	}}
	if diff := cmp.Diff(any(language(t, want)), got); diff != "" {
		t.Error(diff)
	}
}

func TestCodeIsNamedInManyWays(t *testing.T) {
	env, _ := testEnv(t)
	place(t, env, map[string]string{"a.go": "package a\n", "b/c.py": "x = 1\n", "b/d.js": "1\n", "README": "text\n", "big.py": strings.Repeat("#\n", 1<<20)})
	for _, c := range []struct {
		source, languages any
		want              string
	}{
		{".", nil, "a.go b/c.py b/d.js! big.py!"},
		{"b", "Mostly Python, I think", "b/c.py"},
		{"b", []any{"JavaScript"}, "b/d.js!"},
		{"b", "whatever is there", "b/c.py b/d.js!"},
		{"**/*.{py,js}", nil, "b/c.py b/d.js! big.py!"},
		{[]any{"b/c.py", "a.go", "b"}, nil, "a.go b/c.py b/d.js!"},
		{"package x\n\nfunc f() {}\n", nil, "<text>"},
		{"x = 1\ny = 2\n", nil, "<text>"},
		{"int main() {\n}\n", nil, "<text>!"},
		{params{"path": "x.py", "language": "python", "source": "x = 1"}, nil, "x.py"},
		{"README", nil, "README!"},
	} {
		v, err := run(t, Config{}, env, "parse_code", params{"source": c.source, "languages": c.languages})
		if err != nil {
			t.Errorf("%v: %v", c.source, err)
			continue
		}
		var names []string
		list, _ := field(t, field(t, v, "parsed_code"), "files").([]any)
		for _, f := range list {
			name, _ := field(t, f, "path").(string)
			if field(t, f, "supported") == false {
				name += "!"
			}
			names = append(names, name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%v, %v: got %s, want %s", c.source, c.languages, got, c.want)
		}
	}
	for want, source := range map[string]any{
		"fetch it before":                 "https://github.com/a/b/pull/5",
		"there is no file nowhere":        "nowhere",
		"outside the workspace":           "../x",
		"no file of the workspace fits":   "*.rb",
		"is empty":                        "  ",
		"holds a map that is neither":     params{"a": 1},
		"parameter source is a number":    5,
		"nested too deeply":               []any{[]any{[]any{[]any{[]any{[]any{"a"}}}}}},
		"is not a pattern of paths below": "../*.go",
	} {
		_, err := run(t, Config{}, env, "parse_code", params{"source": source})
		failed(t, err, pipeline.CategoryValidation, want)
	}
	_, err := run(t, Config{}, env, "parse_code", params{"source": strings.Repeat("x = 1\n", 1<<18)})
	failed(t, err, pipeline.CategoryFailed, "larger than 1 MiB")
}

var wanted = regexp.MustCompile(`(?:#|//) want ([a-z -]+?)\s*$`)

// marked are the findings that the marks of a source promise: line and rule.
func marked(src string) []string {
	list := []string{}
	for i, line := range strings.Split(src, "\n") {
		if m := wanted.FindStringSubmatch(line); m != nil {
			for rule := range strings.FieldsSeq(m[1]) {
				list = append(list, fmt.Sprintf("%03d %s", i+1, rule))
			}
		}
	}
	return list
}

func found(t *testing.T, v any, without ...string) []string {
	t.Helper()
	got := []string{}
	list, _ := v.([]any)
	for _, f := range list {
		rule, _ := field(t, f, "rule").(string)
		if !slices.Contains(without, rule) {
			got = append(got, fmt.Sprintf("%03d %s", field(t, f, "line"), rule))
		}
	}
	return got
}

func sample(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "code", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSecurityFindsWhatIsMarked(t *testing.T) {
	for name, as := range map[string]string{"insecure.py": "insecure.py", "insecure.go.txt": "insecure.go", "syntax.py": "syntax.py"} {
		src := sample(t, name)
		env, _ := testEnv(t)
		place(t, env, map[string]string{as: src})
		v, err := run(t, Config{}, env, "security_analysis", params{"code": as})
		if err != nil {
			t.Fatal(err)
		}
		want := marked(src)
		slices.Sort(want)
		got := found(t, field(t, v, "findings"))
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestStyleFindsWhatIsMarked(t *testing.T) {
	for name, as := range map[string]string{"sloppy.py": "sloppy.py", "sloppy.go.txt": "sloppy.go"} {
		src := sample(t, name)
		env, _ := testEnv(t)
		place(t, env, map[string]string{as: src})
		v, err := run(t, Config{}, env, "style_analysis", params{"code": as})
		if err != nil {
			t.Fatal(err)
		}
		want := marked(src)
		if as == "sloppy.py" {
			want = append(want, "001 missing-doc", "052 trailing-whitespace")
		} else {
			want = append(want, "004 not-formatted", "024 empty-block")
		}
		slices.Sort(want)
		got := slices.DeleteFunc(found(t, field(t, v, "violations")), func(s string) bool {
			// The marks make lines longer than they were.
			return strings.HasSuffix(s, "line-too-long") && !slices.Contains(want, s)
		})
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestStyleOfTexts(t *testing.T) {
	env, _ := testEnv(t)
	for src, want := range map[string]string{
		"x = 1\nif x:\n        y = 1\n":                "",
		"\"\"\"D.\"\"\"\nx = 1\n\n\n":                  "004 trailing-blank-lines",
		"\"\"\"D.\"\"\"\nx = 1":                        "002 no-final-newline",
		"\"\"\"D.\"\"\"\nif 1:\n\tx = (1,\n\t    2)\n": "004 mixed-indentation",
		"def f(:\n    pass\n":                          "001 syntax-error",
	} {
		v, err := run(t, Config{}, env, "style_analysis", params{"code": params{"path": "a.py", "language": "python", "source": src}})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(found(t, field(t, v, "violations"), "missing-doc"), ", "); got != want {
			t.Errorf("%q: got %s, want %s", src, got, want)
		}
	}
	for guide, want := range map[string][2]int{
		"": {120, 79}, "PEP 8": {120, 79}, "PEP 8 with lines of at most 100": {100, 100}, "Google": {120, 80}, "black": {120, 88}, "72 columns": {72, 72}, "Use 4 spaces": {120, 79},
	} {
		if got := [2]int{lineLimit(guide, "go"), lineLimit(guide, "python")}; got != want {
			t.Errorf("%q: got %v, want %v", guide, got, want)
		}
	}
}

func TestSecurityThresholdAndDepth(t *testing.T) {
	env, _ := testEnv(t)
	place(t, env, map[string]string{"a.py": sample(t, "insecure.py")})
	all := 0
	for _, c := range []struct {
		threshold, depth string
		least, used      string
	}{
		{"", "", "low", "full"}, {"medium and above", "deep", "medium", "full"}, {"High or critical", "a quick look", "high", "quick"}, {"critical", "", "critical", "full"},
	} {
		v, err := run(t, Config{}, env, "security_analysis", params{"code": "a.py", "severity_threshold": c.threshold, "scan_depth": c.depth})
		if err != nil {
			t.Fatal(err)
		}
		list, _ := field(t, v, "findings").([]any)
		for _, f := range list {
			s, _ := field(t, f, "severity").(string)
			if slices.Index(severities, s) < slices.Index(severities, c.least) {
				t.Errorf("%s: a finding that is %s", c.threshold, s)
			}
		}
		if field(t, v, "threshold") != c.least || field(t, v, "depth") != c.used || (c.least != "low" && len(list) >= all) {
			t.Errorf("%+v: %d of %d findings, %v, %v", c, len(list), all, field(t, v, "threshold"), field(t, v, "depth"))
		}
		all = max(all, len(list))
	}
}

func TestKeysAreFoundInAnyLanguage(t *testing.T) {
	env, _ := testEnv(t)
	key := "AKIA" + "ABCDEFGHIJKLMNOP"
	place(t, env, map[string]string{"a.js": "let key = '" + key + "';\nlet db = 'postgres://admin:" + "s3cr3tpw@db/x';\nlet ok = 'postgres://admin:$PASS@db/x';\n"})
	v, err := run(t, Config{}, env, "security_analysis", params{"code": "a.js"})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(found(t, field(t, v, "findings")), ", "); got != "001 hard-coded-secret, 002 hard-coded-secret" {
		t.Errorf("got %s", got)
	}
	if text := string(pipeline.EncodeValue(v)); strings.Contains(text, key) || strings.Contains(text, "s3cr3tpw") {
		t.Errorf("the findings show the key: %s", text)
	}
}

func TestAnalysesTakeWhatParseCodeGives(t *testing.T) {
	env, _ := testEnv(t)
	place(t, env, map[string]string{"src/a.py": sample(t, "insecure.py"), "src/b.go": sample(t, "sloppy.go.txt"), "src/c.rb": "x\n"})
	parsed, err := run(t, Config{}, env, "parse_code", params{"source": "src"})
	if err != nil {
		t.Fatal(err)
	}
	for key, out := range map[string]string{"security_analysis": "findings", "style_analysis": "violations", "analyze_complexity": "metrics"} {
		direct, err := run(t, Config{}, env, key, params{"code": "src"})
		if err != nil {
			t.Fatal(err)
		}
		later, err := run(t, Config{}, env, key, params{"code": field(t, parsed, "parsed_code")})
		if err != nil {
			t.Fatal(err)
		}
		same(t, later, direct)
		if got := field(t, direct, out); len(pipeline.EncodeValue(got)) < 100 {
			t.Errorf("%s finds nothing: %v", key, got)
		}
		props := find(t, Config{}, key).Spec.Returns.Properties
		m, _ := direct.(params)
		for _, p := range props {
			if _, ok := m[p.Name]; !ok || len(m) != len(props) {
				t.Errorf("%s: %s is promised, or something else is given", key, p.Name)
			}
		}
	}
}

// The first three are of Campbell's paper, written in Go and Python.
var cognitiveCases = map[string]struct {
	want     int
	language string
	src      string
}{
	"sum of primes": {7, "go", `func sumOfPrimes(max int) int {
	total := 0
OUT:
	for i := 1; i <= max; i++ {
		for j := 2; j < i; j++ {
			if i%j == 0 {
				continue OUT
			}
		}
		total += i
	}
	return total
}`},
	"words": {1, "go", `func getWords(number int) string {
	switch number {
	case 1:
		return "one"
	case 2:
		return "a couple"
	default:
		return "lots"
	}
}`},
	"overridden symbol": {19, "go", `func overriddenSymbolFrom(c *classType) *symbol {
	if c.isUnknown() {
		return unknown
	}
	unknownFound := false
	for _, s := range c.lookup(name) {
		if s.isKind(MTH) && !s.isStatic() {
			if canOverride(s) {
				overriding := check(s, c)
				if overriding == nil {
					if !unknownFound {
						unknownFound = true
					}
				} else if *overriding {
					return s
				}
			}
		}
	}
	if unknownFound {
		return unknown
	}
	return nil
}`},
	"sequences": {4, "go", "func f(a, b, c, d bool) {\n\tif a && b && c || d || a && b {\n\t}\n}"},
	"literals":  {3, "go", "func f() {\n\tg := func() {\n\t\tif x {\n\t\t}\n\t}\n\tif g != nil {\n\t}\n}"},
	"recursion": {2, "go", "func f(n int) int {\n\tif n > 0 {\n\t\treturn f(n - 1)\n\t}\n\treturn 0\n}"},
	"python, overridden symbol": {19, "python", `def overridden_symbol_from(class_type):
    if class_type.is_unknown():
        return UNKNOWN
    unknown_found = False
    for s in class_type.lookup(name):
        if s.is_kind(MTH) and not s.is_static():
            if can_override(s):
                overriding = check(s, class_type)
                if overriding is None:
                    if not unknown_found:
                        unknown_found = True
                elif overriding:
                    return s
    if unknown_found:
        return UNKNOWN
    return None
`},
	"python, exceptions": {6, "python", `def f(a):
    try:
        for x in a:
            if x:
                raise ValueError
    except ValueError:
        return 1 if a else 2
    finally:
        pass
`},
	"python, wrapper":   {1, "python", "def deco(f):\n    def inner(*args):\n        if args:\n            return f(*args)\n    return inner\n"},
	"python, inner":     {2, "python", "def outer(f):\n    def inner(*args):\n        if args:\n            return f(*args)\n    return inner(f)\n"},
	"python, sequences": {4, "python", "def f(a, b, c, d):\n    if a and b and c or d or a and b:\n        pass\n"},
	"python, match":     {3, "python", "def f(a):\n    match a:\n        case 1:\n            if a:\n                pass\n        case _:\n            pass\n"},
	"python, recursion": {2, "python", "def f(n):\n    return f(n - 1) if n else 0\n"},
	"python, loop else": {2, "python", "def f(n):\n    for x in n:\n        pass\n    else:\n        pass\n"},
	"python, filtered":  {0, "python", "def f(n):\n    return [x for x in n if x]\n"},
}

func TestCognitiveComplexity(t *testing.T) {
	for name, c := range cognitiveCases {
		src := c.src
		if c.language == "go" {
			src = "package p\n\n" + src + "\n"
		}
		f := parseFile(sourceFile{path: "x", language: c.language, text: src})
		if len(f.functions) == 0 {
			t.Errorf("%s: %v", name, f.errors)
			continue
		}
		if got := f.functions[0].cognitive; got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

func TestAnalyzeComplexity(t *testing.T) {
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "analyze_complexity", params{"code": params{"path": "a.py", "language": "python", "source": `"""Doc."""

# comment
def f(a, b):
    """Doc

    of f."""
    a = b + b  # trailing
    return a


if x and y:
    f(x, y)
`}})
	if err != nil {
		t.Fatal(err)
	}
	metrics := field(t, v, "metrics")
	files, _ := field(t, metrics, "files").([]any)
	file := files[0]
	same(t, field(t, file, "lines"), params{"total": 13, "code": 5, "comment": 5, "blank": 3})
	same(t, field(t, file, "cyclomatic"), params{"sum": 3, "max": 1, "mean": 3.0})
	same(t, field(t, file, "cognitive"), params{"sum": 2, "max": 0, "mean": 2.0})
	same(t, field(t, file, "nesting"), 1)
	functions, _ := field(t, file, "functions").([]any)
	f := functions[0]
	same(t, field(t, f, "lines"), params{"total": 6, "code": 3, "comment": 3, "blank": 0})
	// def ( = + return; f a b "doc" a b b a; the docstring is an operand like any text.
	same(t, field(t, f, "halstead"), params{
		"distinct_operators": 5, "distinct_operands": 4, "operators": 5, "operands": 8, "vocabulary": 9, "length": 13,
		"volume": 41.209, "difficulty": 5.0, "effort": 206.045, "time": 11.447, "bugs": 0.014,
	})
	same(t, field(t, f, "maintainability"), 78.149)
	total := field(t, metrics, "total")
	same(t, field(t, total, "files"), 1)
	same(t, field(t, total, "lines"), field(t, file, "lines"))
}

func TestComplexityOfGoAndOfWhatIsAskedFor(t *testing.T) {
	env, _ := testEnv(t)
	place(t, env, map[string]string{"a.go": goText1, "b.rb": "x\n", "c.go": "package"})
	v, err := run(t, Config{}, env, "analyze_complexity", params{"code": ".", "metrics": []any{"McCabe's cyclomatic complexity", "depth of nesting"}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, v, params{"metrics": params{
		"measured": []any{"cyclomatic", "nesting"},
		"files": []any{params{
			"path": "a.go", "language": "go", "cyclomatic": params{"sum": 4, "max": 4, "mean": 4.0}, "nesting": 2,
			"functions": []any{params{"name": "M", "class": "T", "line": 10, "end_line": 17, "params": 3, "cyclomatic": 4, "nesting": 2}},
		}},
		"total": params{"files": 1, "functions": 1, "cyclomatic": params{"sum": 4, "max": 4, "mean": 4.0}, "nesting": 2},
		"skipped": []any{
			params{"path": "b.rb", "reason": "ruby is not understood; Go and Python are"},
			params{"path": "c.go", "reason": "it does not parse: line 1: expected 'IDENT', found 'EOF'"},
		},
	}})
}

func TestOwnSourceIsAnalysed(t *testing.T) {
	env, _ := testEnv(t)
	if err := os.CopyFS(filepath.Join(env.Workspace, "src"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"style_analysis", "security_analysis", "analyze_complexity"} {
		v, err := run(t, Config{}, env, key, params{"code": "src/*.go"})
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if _, err := json.Marshal(v); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}
