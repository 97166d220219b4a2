package spec

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// large is a pipeline of n steps that read each other's results and state.
func large(n int) []byte {
	var b bytes.Buffer
	b.WriteString("name: large\ninputs: {topic: x}\nsteps:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - id: step_%d\n    action: debug\n    parameters:\n      input: \"about {{ inputs.topic }}\"\n      é: \"{{ item_%d | default('x') }}\"\n", i, i%10)
		if i >= 3 {
			fmt.Fprintf(&b, "      data: \"{{ steps.step_%d.output }}\"\n      more: \"{{ step_%d }}\"\n    dependencies: [step_%d]\n", i-1, i/2, i-3)
		}
		fmt.Fprintf(&b, "    state: {item_%d: \"{{ step_%d.x }}\"}\n", i%10, i)
	}
	return b.Bytes()
}

func benchmark(b *testing.B, n int) {
	b.Helper()
	src := Source{File: "large.yaml", Text: large(n)}
	cat := testCatalog()
	b.SetBytes(int64(len(src.Text)))
	for b.Loop() {
		if _, _, err := Compile(src, cat); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile1000(b *testing.B)  { benchmark(b, 1000) }
func BenchmarkCompile10000(b *testing.B) { benchmark(b, 10_000) }

// BenchmarkYAML10000 is the YAML library's share.
func BenchmarkYAML10000(b *testing.B) {
	src := string(large(10_000))
	for b.Loop() {
		if _, err := parseYAML(src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode1000(b *testing.B) {
	plan, _, err := Compile(Source{Text: large(1000)}, testCatalog())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := EncodePlan(plan); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHostileTexts are refused, or compiled, in a moment.
func TestHostileTexts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	repeat := func(n int, f func(b *strings.Builder, i int)) string {
		var b strings.Builder
		for i := range n {
			f(&b, i)
		}
		return b.String()
	}
	const steps = "\nsteps: [{id: a, action: debug}]\n"
	cases := map[string]string{
		"huge":              strings.Repeat("a", 10<<20),
		"brackets":          "steps: " + strings.Repeat("[", 100_000),
		"braces":            "steps: " + strings.Repeat("{a: ", 5000) + strings.Repeat("}", 5000),
		"dashes":            "steps:\n  " + strings.Repeat("- ", 5000) + "x",
		"one long key":      "vars: {\"" + strings.Repeat("é", 500_000) + "\": 1}" + steps,
		"one line":          "vars: {x: [é, " + strings.Repeat("1, ", 500_000) + "2]}" + steps,
		"texts on one line": "vars: {x: [é, " + repeat(100_000, func(b *strings.Builder, i int) { fmt.Fprintf(b, "\"{{ 1 }}\", ") }) + "2]}" + steps,
		"bad on one line":   "vars: {x: [é, " + repeat(50_000, func(b *strings.Builder, i int) { fmt.Fprintf(b, "\"{{ nope%d }}\", ", i) }) + "2]}" + steps,
		"many keys":         "vars:\n" + repeat(50_000, func(b *strings.Builder, i int) { fmt.Fprintf(b, "  k%d: 1\n", i) }) + steps,
		"duplicate keys":    "vars:\n" + strings.Repeat("  k: 1\n", 50_000) + steps,
		"unknown names": "inputs: {}\nsteps:\n" + repeat(20_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "  - {id: s%d, action: debug, parameters: {a: \"{{ step%d }}\"}}\n", i, i)
		}),
		"inferred names": "steps:\n" + repeat(20_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "  - {id: s%d, action: debug, parameters: {a: \"{{ step%d }}\"}}\n", i, i)
		}),
		"one state": "steps:\n" + repeat(10_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "  - {id: s%d, state: {n: \"{{ n }}\"}}\n", i)
		}),
		"one state out of order": "steps:\n" + repeat(5_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "  - {id: s%d, needs: s%d, state: {n: 1}}\n", i, i+1)
		}) + "  - {id: s5000, state: {n: 2}}\n",
		"one cycle": "steps:\n" + repeat(10_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "  - {id: s%d, action: debug, needs: s%d}\n", i, (i+1)%10_000)
		}),
		"many cycles": "steps:\n" + repeat(10_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "  - {id: s%d, action: debug, needs: s%d}\n", i, i^1)
		}),
		"many elifs": "steps:\n  - id: a\n    if: {condition: x, then: []}\n    elif:\n" + repeat(10_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "      - {condition: x, then: [{id: s%d, action: debug}]}\n", i)
		}),
		"escapes":      "vars: {x: \"" + strings.Repeat("\\u00e9", 400_000) + "{{ nope }}\"}" + steps,
		"folded":       "vars:\n  x: >\n" + strings.Repeat("    word word\n\n", 100_000) + "    {{ nope }}\n" + steps,
		"placeholders": "steps:\n  - id: a\n    run: \"" + strings.Repeat("{{ x }} ", 50_000) + "\"\n",
		"unclosed":     "steps:\n  - id: a\n    run: \"" + strings.Repeat("{{ x ", 50_000) + "\"\n",
		"auto":         "vars:\n" + strings.Repeat("  k: <AUTO>a: b", 20_000) + "\n",
		"anchors":      "vars:\n" + repeat(20_000, func(b *strings.Builder, i int) { fmt.Fprintf(b, "  k%d: &a%d 1\n", i, i) }) + steps,
		"expressions":  "steps:\n  - id: a\n    condition: \"" + strings.Repeat("(", 100_000) + "\"\n",
	}
	begun := time.Now()
	if _, _, err := Compile(Source{Text: large(1000)}, testCatalog()); err != nil {
		t.Fatal(err)
	}
	limit := 20*time.Second + 40*time.Since(begun) // a quadratic way takes minutes
	for name, src := range cases {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			_, d, err := Compile(Source{File: "x.yaml", Text: []byte(src)}, testCatalog())
			var b bytes.Buffer
			Format(&b, d, false)
			took := time.Since(begun)
			if took > limit {
				t.Errorf("took %s of %s", took, limit)
			}
			if b.Len() > 200_000 {
				t.Errorf("%d bytes of findings", b.Len())
			}
			first, _, _ := strings.Cut(b.String(), "\n")
			t.Logf("%s: %v, %d findings: %.120s", took.Round(time.Millisecond), err != nil, len(d.List)+d.Truncated, first)
		})
	}
}
