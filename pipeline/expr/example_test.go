package expr_test

import (
	"errors"
	"fmt"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

func Example() {
	scope := expr.MapScope{"files": []any{
		map[string]any{"name": "main.go", "lines": int64(120)},
		map[string]any{"name": "util.go", "lines": int64(8)},
	}}
	for _, src := range []string{
		"{{ files | selectattr('lines', 'gt', 100) | map(attribute='name') | list }}",
		"{{ files | sum(attribute='lines') }} lines in {{ files | length }} files",
		"{{ files[0].size }}",
	} {
		t, err := expr.Compile(src)
		if err != nil {
			fmt.Println(err)
			continue
		}
		v, err := t.Eval(&expr.Env{Scope: scope})
		if e, ok := errors.AsType[*expr.Error](err); ok {
			fmt.Printf("%s, at %q\n", e.Text, src[e.Off:e.End])
			continue
		}
		fmt.Println(expr.Text(v))
	}
	// Output:
	// ["main.go"]
	// 128 lines in 2 files
	// no attribute 'size' on a map (it has: lines, name), at "size"
}

func ExampleTemplate_Test() {
	t, err := expr.CompileCondition("not review.ok and review.issues | length > 0")
	if err != nil {
		fmt.Println(err)
		return
	}
	scope := expr.MapScope{"review": map[string]any{"ok": false, "issues": []any{"typo"}}}
	fmt.Println(t.Test(&expr.Env{Scope: scope}))
	// Output: true <nil>
}

func ExampleTemplate_Refs() {
	t, err := expr.Compile("{{ steps.parse.code | default(inputs.code) }}")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range t.Refs() {
		fmt.Print(r.Root)
		for _, s := range r.Path {
			fmt.Print(".", s.Name)
		}
		fmt.Println(" guarded:", r.Guarded)
	}
	// Output:
	// steps.parse.code guarded: true
	// inputs.code guarded: false
}
