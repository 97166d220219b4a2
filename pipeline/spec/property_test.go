package spec

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// randomValue draws a JSON value.
func randomValue(t *rapid.T, depth int) any {
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0:
		return rapid.Bool().Draw(t, "bool")
	case 1:
		return rapid.Int64().Draw(t, "int")
	case 2:
		return rapid.Float64Range(-1e300, 1e300).Draw(t, "float")
	case 3:
		return float64(rapid.IntRange(-5, 5).Draw(t, "whole"))
	case 4, 5:
		return rapid.String().Draw(t, "text")
	case 6:
		if depth > 2 {
			return nil
		}
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) any { return randomValue(t, depth+1) }), 0, 3).Draw(t, "list")
	}
	if depth > 2 {
		return nil
	}
	return rapid.MapOfN(rapid.String(), rapid.Custom(func(t *rapid.T) any { return randomValue(t, depth+1) }), 0, 3).Draw(t, "map")
}

// fill draws a value for everything that v holds. What may be left out is left
// out at times, and always below depth.
func fill(t *rapid.T, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(rapid.IntRange(0, 3).Draw(t, "int")))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(-1e300, 1e300).Draw(t, "float"))
	case reflect.String:
		v.SetString(rapid.StringN(0, 4, 12).Draw(t, "text"))
	case reflect.Interface:
		if x := randomValue(t, 1); x != nil {
			v.Set(reflect.ValueOf(x))
		}
	case reflect.Pointer:
		if depth > 0 && rapid.IntRange(0, 3).Draw(t, "there") > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem(), depth-1)
		}
	case reflect.Slice:
		n := rapid.IntRange(0, 1).Draw(t, "length")
		if depth <= 0 || n == 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			x := v.Index(i)
			if x.Kind() == reflect.Pointer { // a list never holds null
				x.Set(reflect.New(x.Type().Elem()))
				x = x.Elem()
			}
			if x.Kind() == reflect.Interface {
				x.Set(reflect.ValueOf("x"))
				continue
			}
			fill(t, x, depth-1)
		}
	case reflect.Map: // a JSON Schema
		v.Set(reflect.ValueOf(map[string]any{"type": "object", "maxProperties": int64(3), "default": randomValue(t, 1)}))
	case reflect.Struct:
		for _, f := range v.Fields() {
			fill(t, f, depth-1)
		}
		switch x := v.Addr().Interface().(type) {
		case *pipeline.StepDef: // a step alone in its body
			x.Deps = nil
		case *pipeline.Routes:
			for _, to := range []*int{x.Success, x.Failure, x.False, x.Always} {
				if to != nil {
					*to = 0
				}
			}
		case *pipeline.Rule:
			if x.To != nil {
				*x.To = 0
			}
		case *pipeline.Auto:
			x.Prompt = &pipeline.Template{Src: "x"}
		case *pipeline.Call:
			x.Unit = 0
		}
	default:
		t.Fatalf("nothing draws a %s", v.Type())
	}
}

// TestPlanCodec: any plan comes back as it was, and equal plans give equal bytes.
func TestPlanCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &pipeline.Plan{Units: []*pipeline.Unit{{}}}
		fill(t, reflect.ValueOf(&p.Unit).Elem(), rapid.IntRange(2, 14).Draw(t, "depth"))
		fill(t, reflect.ValueOf(p.Units[0]).Elem(), 7)
		p.Format, p.Secrets, p.Bundle, p.Templates = pipeline.PlanFormat, []string{"A"}, "sha256:x", 7
		p.Root.Steps = append(p.Root.Steps, &pipeline.StepDef{ID: "last"})
		p.Root.Steps[len(p.Root.Steps)-1].Deps = nil
		if len(p.Root.Steps) > 1 {
			p.Root.Steps[1].Deps = []pipeline.Dep{{On: 0, Cause: "jump", Pos: pipeline.Pos{Line: 3}}}
		}
		b, digest, err := EncodePlan(p)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodePlan(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p, back); d != "" {
			t.Fatal(d)
		}
		if b2, digest2, _ := EncodePlan(back); string(b) != string(b2) || digest != digest2 {
			t.Fatalf("encoded differently:\n%s\n%s", b, b2)
		}
	})
}

// TestCyclesAreRefused: a graph is accepted exactly when its declared and
// inferred edges, and those of jumps, have no cycle.
func TestCyclesAreRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "steps")
		var b strings.Builder
		b.WriteString("steps:\n")
		edges := make([][]int, n)
		for i := range n {
			fmt.Fprintf(&b, "  - id: s%d\n    action: debug\n", i)
			var needs, refs []string
			for range rapid.IntRange(0, 2).Draw(t, "edges") {
				k := rapid.IntRange(0, n-1).Draw(t, "on")
				if k == i {
					continue
				}
				edges[i] = append(edges[i], k)
				if rapid.Bool().Draw(t, "declared") {
					needs = append(needs, fmt.Sprint("s", k))
				} else {
					refs = append(refs, fmt.Sprintf("\"{{ s%d }}\"", k))
				}
			}
			fmt.Fprintf(&b, "    needs: [%s]\n    parameters: {x: [%s]}\n", strings.Join(needs, ", "), strings.Join(refs, ", "))
		}
		steps := strings.SplitAfter(b.String(), "    action: debug\n") // the i-th ends in step i
		for i := range n - 1 {
			if to := rapid.IntRange(0, n-1).Draw(t, "jump"); to > i {
				steps[i] += fmt.Sprintf("    on_success: s%d\n", to)
				for k := i + 1; k <= to; k++ {
					edges[k] = append(edges[k], i)
				}
			}
		}
		src := strings.Join(steps, "")
		plan, d, err := Compile(Source{File: "x", Text: []byte(src)}, testCatalog())
		if cyclic := !acyclic(edges); cyclic != (err != nil) {
			t.Fatalf("cyclic %v, error %v\n%s", cyclic, err, src)
		}
		if err != nil {
			for _, x := range d.List {
				if x.Code != "E0403" {
					t.Fatalf("%s: %s", x.Code, x.Message)
				}
			}
			return
		}
		got := make([][]int, n)
		for i, s := range plan.Root.Steps {
			for _, d := range s.Deps {
				got[i] = append(got[i], d.On)
			}
		}
		for i := range edges {
			for _, k := range edges[i] {
				if !reaches(got, i, k) {
					t.Fatalf("s%d does not wait for s%d\n%s", i, k, src)
				}
			}
		}
	})
}

func acyclic(edges [][]int) bool {
	state := make([]int, len(edges))
	var visit func(i int) bool
	visit = func(i int) bool {
		switch state[i] {
		case 1:
			return false
		case 2:
			return true
		}
		state[i] = 1
		for _, k := range edges[i] {
			if !visit(k) {
				return false
			}
		}
		state[i] = 2
		return true
	}
	for i := range edges {
		if !visit(i) {
			return false
		}
	}
	return true
}

// TestStateOrder: two steps that share a state variable, one of them setting it,
// are ordered: by the declared edges if these do, else as listed.
func TestStateOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 7).Draw(t, "steps")
		reads, writes := make([]bool, n), make([]bool, n)
		declared := make([][]int, n)
		rank := rapid.Permutation(seq(n)).Draw(t, "rank")
		var b strings.Builder
		b.WriteString("steps:\n")
		for i := range n {
			reads[i], writes[i] = rapid.Bool().Draw(t, "reads"), rapid.Bool().Draw(t, "writes")
			fmt.Fprintf(&b, "  - id: s%d\n    action: debug\n", i)
			var needs []string
			for k := range n {
				if rank[k] < rank[i] && rapid.IntRange(0, 3).Draw(t, "need") == 0 {
					declared[i] = append(declared[i], k)
					needs = append(needs, fmt.Sprint("s", k))
				}
			}
			fmt.Fprintf(&b, "    needs: [%s]\n", strings.Join(needs, ", "))
			if reads[i] {
				b.WriteString("    parameters: {x: \"{{ v }}\"}\n")
			}
			if writes[i] {
				b.WriteString("    state: {v: 1}\n")
			}
		}
		if !slices.Contains(writes, true) {
			return
		}
		want := make([][]int, n)
		for i := range n {
			want[i] = slices.Clone(declared[i])
			for k := range i {
				if (writes[i] && (reads[k] || writes[k]) || writes[k] && (reads[i] || writes[i])) && !reaches(declared, k, i) && !reaches(declared, i, k) {
					want[i] = append(want[i], k)
				}
			}
		}
		plan, _, err := Compile(Source{File: "x", Text: []byte(b.String())}, testCatalog())
		if (err == nil) != acyclic(want) {
			t.Fatalf("%v, wanted acyclic %v\n%s", err, acyclic(want), b.String())
		}
		if err != nil {
			return
		}
		got := make([][]int, n)
		for i, s := range plan.Root.Steps {
			for _, d := range s.Deps {
				got[i] = append(got[i], d.On)
			}
		}
		for i := range n {
			for k := range n {
				if i != k && reaches(got, i, k) != reaches(want, i, k) {
					t.Fatalf("s%d after s%d: %v\n%s", i, k, reaches(got, i, k), b.String())
				}
			}
		}
	})
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// reaches reports whether from depends on to.
func reaches(edges [][]int, from, to int) bool {
	for _, k := range edges[from] {
		if k == to || reaches(edges, k, to) {
			return true
		}
	}
	return false
}

// TestScalarPlaces: an undefined name is found at its place in every style of
// scalar.
func TestScalarPlaces(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "é", "it's", "\"q\"", "日本", "x y", "\\", "a\tb"})
	rapid.Check(t, func(t *rapid.T) {
		var lines []string
		for range rapid.IntRange(0, 4).Draw(t, "lines") {
			lines = append(lines, strings.Join(rapid.SliceOfN(word, 0, 4).Draw(t, "words"), " "))
		}
		at := rapid.IntRange(0, len(lines)).Draw(t, "at")
		lines = slices.Insert(lines, at, "é {{ zebra }} z")
		text := strings.Join(lines, "\n")
		var n yaml.Node
		n.SetString(text)
		n.Style = rapid.SampledFrom([]yaml.Style{0, yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle, yaml.LiteralStyle, yaml.FoldedStyle}).Draw(t, "style")
		doc := map[string]any{"inputs": map[string]any{}, "steps": []any{map[string]any{"id": "s", "action": "debug", "parameters": map[string]*yaml.Node{"é": &n}}}}
		src, err := yaml.Dump(doc, yaml.WithLineWidth(rapid.SampledFrom([]int{20, 80, -1}).Draw(t, "width")))
		if err != nil || !strings.Contains(string(src), "zebra") {
			t.Skip("the writer folds the name or refuses the text")
		}
		_, d, err := Compile(Source{File: "x", Text: src}, testCatalog())
		if err == nil || d.List[0].Code != "E0201" {
			t.Fatalf("%v\n%s", err, src)
		}
		for i, l := range strings.Split(string(src), "\n") {
			if before, _, ok := strings.Cut(l, "zebra"); ok {
				if col := utf8.RuneCountInString(before) + 1; d.List[0].Line != i+1 || d.List[0].Column != col || d.List[0].EndColumn != col+5 {
					t.Fatalf("found at %d:%d-%d, stands at %d:%d\n%s", d.List[0].Line, d.List[0].Column, d.List[0].EndColumn, i+1, col, src)
				}
			}
		}
	})
}

// FuzzCompile: nothing crashes; findings have places in the source and are
// printed once; an accepted plan is sound and survives its codec.
func FuzzCompile(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.txtar")
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, x := range ar.Files {
			if strings.HasSuffix(x.Name, ".yaml") {
				f.Add(goldenSource(x.Data))
			}
		}
	}
	cat := testCatalog()
	f.Fuzz(func(t *testing.T, src []byte) {
		plan, d, err := Compile(Source{File: "f.yaml", Text: src}, cat)
		seen := map[string]bool{}
		text := strings.ReplaceAll(strings.ReplaceAll(strings.TrimPrefix(string(src), "\ufeff"), "\r\n", "\n"), "\r", "\n")
		lines := strings.Split(text, "\n")
		for _, x := range d.List {
			key := fmt.Sprint(x.Code, x.Line, x.Column, x.EndLine, x.EndColumn, x.Message)
			if seen[key] {
				t.Errorf("printed twice: %s", key)
			}
			seen[key] = true
			if x.Line < 1 || x.Line > len(lines) || x.Column < 1 || x.Column > len([]rune(lines[x.Line-1]))+1 {
				t.Errorf("%s is outside the source: %d:%d", x.Code, x.Line, x.Column)
			}
		}
		var b strings.Builder
		Format(&b, d, true)
		if err != nil {
			var refusal *pipeline.Diagnostics
			if plan != nil || !errors.As(err, &refusal) || !d.HasErrors() {
				t.Errorf("refused without a reason: %v", err)
			}
			return
		}
		enc, _, err := EncodePlan(plan)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodePlan(enc)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(plan, back); d != "" {
			t.Error(d)
		}
		sound(t, plan)
		_ = Explain(plan, cat).String()
	})
}

// sound checks what every consumer of a plan relies on.
func sound(t *testing.T, plan *pipeline.Plan) {
	t.Helper()
	ids := make([]bool, plan.Templates)
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
			return
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
			return
		case reflect.Struct:
		default:
			return
		}
		switch x := v.Addr().Interface().(type) {
		case *pipeline.Template:
			if x.ID < 0 || x.ID >= len(ids) || ids[x.ID] {
				t.Fatalf("template %d of %d", x.ID, plan.Templates)
			}
			ids[x.ID] = true
			compile := expr.Compile
			if x.Condition {
				compile = expr.CompileCondition
			}
			if _, err := compile(x.Src); err != nil {
				t.Errorf("%q: %v", x.Src, err)
			}
		case *pipeline.Body:
			edges := make([][]int, len(x.Steps))
			for i, s := range x.Steps {
				for _, d := range s.Deps {
					edges[i] = append(edges[i], d.On)
				}
				if s.Call != nil && (s.Call.Unit < 0 || s.Call.Unit >= len(plan.Units)) {
					t.Errorf("%s calls unit %d", s.ID, s.Call.Unit)
				}
			}
			if !acyclic(edges) {
				t.Error("the plan has a cycle")
			}
		}
		for _, f := range v.Fields() {
			walk(f)
		}
	}
	walk(reflect.ValueOf(plan))
	if slices.Contains(ids, false) {
		t.Errorf("templates without a place: %v", ids)
	}
}
