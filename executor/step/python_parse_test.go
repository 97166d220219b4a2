package step

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pyRecord is what testdata/code/record.py says of a file.
type pyRecord struct {
	File      string       `json:"file"`
	Functions []pyFunction `json:"functions"`
	Classes   []pyFunction `json:"classes"`
	Imports   [][3]string  `json:"imports"`
	Calls     []string     `json:"calls"`
	Tokens    [][]any      `json:"tokens"`

	Statements map[string]int `json:"statements"`
}

type pyFunction struct {
	Name       string   `json:"name"`
	Line       int      `json:"line"`
	EndLine    int      `json:"end_line"`
	Params     []string `json:"params"`
	Bases      int      `json:"bases"`
	Async      bool     `json:"async"`
	Decorators int      `json:"decorators"`
	Documented bool     `json:"documented"`
	Cyclomatic int      `json:"cyclomatic"`
}

// ours is the same from our parser.
func ours(t *testing.T, src string) pyRecord {
	t.Helper()
	m, err := pyParse(src)
	if err != nil {
		t.Errorf("%v", err)
		return pyRecord{}
	}
	r := pyRecord{Functions: []pyFunction{}, Classes: []pyFunction{}, Imports: [][3]string{}, Calls: []string{}, Statements: map[string]int{}}
	var visit func(list []*pyStatement, prefix string)
	visit = func(list []*pyStatement, prefix string) {
		for _, s := range list {
			inner := prefix
			switch kind := s.kind; kind {
			case "elif":
				r.Statements["if"]++
			case "else", "finally":
			default:
				r.Statements[kind]++
			}
			switch s.kind {
			case "def":
				f := pyFunction{
					Name: prefix + s.name, Line: s.line, EndLine: s.endLine, Params: []string{}, Async: s.async, Decorators: len(s.decorators),
					Documented: pyDocstring(s.body) != nil, Cyclomatic: pyCyclomatic(s.body),
				}
				for _, p := range s.params() {
					f.Params = append(f.Params, p.name)
				}
				r.Functions = append(r.Functions, f)
				inner += s.name + "."
			case "class":
				r.Classes = append(r.Classes, pyFunction{
					Name: prefix + s.name, Line: s.line, EndLine: s.endLine, Bases: len(s.bases()), Documented: pyDocstring(s.body) != nil,
				})
				inner += s.name + "."
			}
			for _, i := range s.imports() {
				r.Imports = append(r.Imports, [3]string{i.module, i.name, i.alias})
			}
			for _, e := range s.expressions() {
				pyCalls(e, func(c *pyCall) { r.Calls = append(r.Calls, c.callee) })
			}
			visit(s.body, inner)
		}
	}
	visit(m.body, "")
	slices.SortFunc(r.Imports, func(a, b [3]string) int { return slices.Compare(a[:], b[:]) })
	byLine := func(a, b pyFunction) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Name, b.Name)
	}
	slices.SortFunc(r.Functions, byLine)
	slices.SortFunc(r.Classes, byLine)
	slices.Sort(r.Calls)
	names := map[pyKind]string{
		pyName: "name", pyNumber: "number", pyString: "string", pyOp: "op", pyNewline: "newline", pyIndent: "indent", pyDedent: "dedent", pyComment: "comment",
	}
	for _, k := range m.tokens {
		e := []any{names[k.kind], k.text}
		if k.kind != pyNewline && k.kind != pyDedent {
			e = append(e, float64(k.line), float64(k.col))
		}
		r.Tokens = append(r.Tokens, e)
	}
	return r
}

// sameAsPython compares a source with Python's own record of it.
func sameAsPython(t *testing.T, src string, want pyRecord) {
	t.Helper()
	got := ours(t, src)
	got.File = want.File
	// A name that is not called as such may stand in brackets: (f)(x).
	for i := range min(len(got.Tokens), len(want.Tokens)) {
		if diff := cmp.Diff(want.Tokens[i], got.Tokens[i]); diff != "" {
			t.Errorf("token %d: %s", i, diff)
			break
		}
	}
	if len(got.Tokens) != len(want.Tokens) {
		t.Errorf("%d tokens, want %d", len(got.Tokens), len(want.Tokens))
	}
	got.Tokens, want.Tokens = nil, nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%.4000s", diff)
	}
}

func TestPythonAsPythonSeesIt(t *testing.T) {
	files, err := filepath.Glob("testdata/code/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no records", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			record, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want pyRecord
			if err := json.NewDecoder(bytes.NewReader(record)).Decode(&want); err != nil {
				t.Fatal(err)
			}
			src, err := os.ReadFile(strings.TrimSuffix(file, ".json") + ".py")
			if err != nil {
				t.Fatal(err)
			}
			sameAsPython(t, string(src), want)
		})
	}
}

func TestPythonThatPythonRefuses(t *testing.T) {
	for src, want := range map[string]string{
		"x = (1":                       "line 1: a bracket is not closed",
		"x = 1)":                       "line 1: ')' closes nothing",
		"x = (1]":                      "line 1: ']' stands where ')' is expected",
		"x = 'abc\ny = 2":              "line 1: a string is not closed",
		"x = '''abc\n\n":               "line 1: a string is not closed",
		"x = f'{a'":                    "line 1: a string is not closed",
		"x = f'{}'":                    "line 1: a field of an f-string is empty",
		"x = f'}'":                     "line 1: a single } stands in an f-string",
		"if x:\n        a\n    b":      "line 3: the indentation fits no outer block",
		"if x:\n\ta\n        b":        "line 3: tabs and spaces are mixed",
		"  x = 1":                      "line 1: an indentation is not expected here",
		"if x:\ny = 1":                 "line 1: if has no block",
		"if x":                         "line 1: a colon is missing after if",
		"else:\n  pass":                "line 1: else follows nothing",
		"try:\n  a\nelse:\n  b":        "line 3: else follows nothing",
		"if x: pass\nfinally: pass":    "line 2: finally follows nothing",
		"def :\n  pass":                "line 1: a def has no name",
		"@a\nx = 1":                    "line 2: a decorator stands before neither",
		"@a":                           "line 1: a decorator stands before nothing",
		"x = 5 ? 3":                    "line 1: the character '?' has no meaning here",
		"x = \\ 3":                     "line 1: a backslash stands within the line",
		"x = 1\x00":                    "line 1: a null byte",
		";":                            "line 1: a statement is missing",
		strings.Repeat("(", 300):       "line 1: brackets are nested deeper",
		strings.Repeat("f'{", 300):     "nested deeper",
		"match x:\n  case 1: a\n  b\n": "line 3: only cases stand in a match",
	} {
		_, err := pyParse(src)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s", src, err, want)
		}
	}
}

func TestPythonOfLaterVersions(t *testing.T) {
	m, err := pyParse("type Pair[T] = tuple[T, T]\ndef first[T](p: Pair[T]) -> T: return p[0]\nclass Box[T](Base): pass\n" +
		"s = f\"{names[\"first\"]} {'\\n'.join(lines)} {\n  x # why\n}\"\nq = t'{x}'\n")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	pyWalk(m.body, func(s *pyStatement) bool { got = append(got, s.kind+" "+s.name); return true })
	if want := []string{"type Pair", "def first", "return ", "class Box", "pass ", "assign ", "assign "}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if names := m.body[1].params(); len(names) != 1 || names[0].name != "p" || !slices.Equal(m.body[2].bases(), []string{"Base"}) {
		t.Errorf("got %v, %v", names, m.body[2].bases())
	}
}

// FuzzPython wants tokens that stand in the source where they say, and no panic.
func FuzzPython(f *testing.F) {
	for _, name := range []string{"syntax.py", "layout.py", "insecure.py", "sloppy.py"} {
		b, err := os.ReadFile(filepath.Join("testdata", "code", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("f'{x!r:{w}}' f\"{'a' if b else \"c\"}\"\n")
	f.Fuzz(func(t *testing.T, src string) {
		p := parseFile(sourceFile{path: "x.py", language: "python", text: src})
		tokens, err := pyTokenize(src)
		if err == nil {
			line := 0
			for _, k := range tokens {
				if k.line < line || k.endLine < k.line || !strings.Contains(src, k.text) {
					t.Fatalf("%+v after line %d", k, line)
				}
				line = k.line
			}
		}
		if p.python == nil {
			return
		}
		x := &findings{}
		styleOfText(p, x, 79)
		styleOfPython(p, x)
		securityOfPython(p, x)
		measure(p)
		for _, fn := range p.functions {
			if fn.line < 1 || fn.endLine < fn.line {
				t.Fatalf("%+v", fn)
			}
		}
	})
}
