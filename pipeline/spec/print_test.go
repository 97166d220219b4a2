package spec

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// A document, before it is written: a doc, a []any, a text, or a word, which is
// a scalar without quotes.
type (
	doc  []entry
	word string
)

type entry struct {
	key   string
	value any
}

// printer writes documents in one of several styles.
type printer struct {
	b     strings.Builder
	block bool // one key a line, else all in braces
	quote byte // of texts, where they can be quoted so
}

func (p *printer) text(s string) {
	if p.quote == '\'' && !strings.ContainsAny(s, "\n\t") {
		p.b.WriteString("'" + strings.ReplaceAll(s, "'", "''") + "'")
		return
	}
	b, _ := json.Marshal(s)
	p.b.Write(b)
}

func (p *printer) value(v any, indent string) {
	switch v := v.(type) {
	case word:
		p.b.WriteString(string(v))
	case string:
		p.text(v)
	case []any:
		p.list(v, indent)
	case doc:
		p.mapping(v, indent)
	}
}

func (p *printer) list(v []any, indent string) {
	if !p.block || len(v) == 0 {
		p.b.WriteByte('[')
		for i, x := range v {
			if i > 0 {
				p.b.WriteString(", ")
			}
			p.value(x, "")
		}
		p.b.WriteByte(']')
		return
	}
	for _, x := range v {
		p.b.WriteString("\n" + indent + "- ")
		p.value(x, indent+"  ")
	}
}

func (p *printer) mapping(v doc, indent string) {
	if !p.block || len(v) == 0 {
		p.b.WriteByte('{')
		for i, e := range v {
			if i > 0 {
				p.b.WriteString(", ")
			}
			p.text(e.key)
			p.b.WriteString(": ")
			p.value(e.value, "")
		}
		p.b.WriteByte('}')
		return
	}
	for _, e := range v {
		p.b.WriteString("\n" + indent)
		p.text(e.key)
		p.b.WriteString(": ")
		p.value(e.value, indent+"  ")
	}
}

// author draws random pipelines that are right: a step names only what has run
// before it.
type author struct {
	t    *rapid.T
	next int
	seen []string // ids that can be named
	loop bool
}

func (a *author) flip() bool                 { return rapid.Bool().Draw(a.t, "flip") }
func (a *author) one(words ...string) string { return rapid.SampledFrom(words).Draw(a.t, "word") }

func (a *author) condition() string {
	return a.one("{{ inputs.n > 2 }}", "inputs.n == 1 and kind", "{{ kind is defined }}")
}

// value draws a parameter.
func (a *author) value(depth int) any {
	switch k := rapid.IntRange(0, 6).Draw(a.t, "value"); {
	case k == 0 && depth < 2:
		return []any{a.value(depth + 1), a.value(depth + 1)}
	case k == 1 && depth < 2:
		return doc{{"key", a.value(depth + 1)}, {"x: y", a.value(depth + 1)}}
	case k == 2 && len(a.seen) > 0:
		return "{{ steps." + a.one(a.seen...) + " }}"
	case k == 3 && a.loop:
		return "{{ index }} and {{ position }}"
	case k == 4:
		return a.one("", "é # x", "- a", "yes", "0777", "a: b", " padded ", "two\nlines\n", "it's", `"q"`, "null", "~", "1e3")
	case k == 5:
		return word(a.one("1", "-2.5", "true", "null", "0x1F", "2026-01-01"))
	}
	return "{{ inputs.n + 1 }} of {{ kind }}"
}

// body draws a list of steps. apart gives steps that may stand beside each other;
// back is whether jumps may lead back.
func (a *author) body(depth int, back, apart bool) []any {
	n := rapid.IntRange(2, 3).Draw(a.t, "steps")
	ids := make([]string, n)
	for i := range ids {
		a.next++
		ids[i] = fmt.Sprint("s", a.next)
	}
	outer := len(a.seen)
	var out []any
	for i, id := range ids {
		s := doc{{"id", id}, {"name", a.one("a", "b: c")}}
		if a.flip() {
			s = append(s, entry{a.one("condition", "when"), a.condition()})
		}
		if !apart {
			if i > 0 && a.flip() {
				s = append(s, entry{a.one("needs", "depends_on"), []any{ids[i-1]}})
			}
			if i+1 < n && a.flip() {
				s = append(s, entry{a.one("on_success", "on_false"), ids[n-1]})
			}
			if back && i > 0 && a.flip() {
				s = append(s, entry{"on", doc{{"failure", doc{{"goto", ids[0]}}}}})
			}
			if i == 0 {
				s = append(s, entry{"max_visits", word("3")})
			}
		}
		out = append(out, append(s, a.doing(id, depth)...))
		if !apart {
			a.seen = append(a.seen, id)
		}
	}
	a.seen = a.seen[:outer]
	return out
}

// looped draws the body of a loop.
func (a *author) looped(depth int) []any {
	was := a.loop
	a.loop = true
	out := a.body(depth+1, true, false)
	a.loop = was
	return out
}

// doing draws what a step does.
func (a *author) doing(id string, depth int) doc {
	body := func() []any { return a.body(depth+1, true, false) }
	kinds := 9
	if depth < 2 {
		kinds = 18
	}
	debug := func() doc {
		return doc{{"action", "debug"}, {a.one("parameters", "with"), doc{{"p", a.value(0)}, {"q", a.value(0)}}}}
	}
	switch rapid.IntRange(0, kinds).Draw(a.t, "doing") {
	case 0:
		return doc{{"run", "echo hi # there"}, {"timeout", "5m"}, {"capture", "lines"}}
	case 1:
		return doc{{"command", []any{"ls", word("0.10"), "{{ kind }}"}}, {"env", doc{{"A", "{{ inputs.n }}"}}}}
	case 2:
		return doc{{"assert", a.condition()}}
	case 3:
		return doc{{"wait", doc{{a.one("for", "signal"), "5m"}}}, {"timeout", word("60")}}
	case 4:
		return doc{{"ask", doc{{"question", "why {{ kind }}?"}, {"choices", []any{"a", "b"}}, {"deadline", "1h"}}}}
	case 5:
		return doc{{"approve", "sure: yes?"}}
	case 6:
		return doc{{"call", "sub"}, {"with", doc{{"x", a.value(0)}}}}
	case 7:
		inner := doc{{"id", "in"}, {"action", "debug"}, {"with", doc{{"v", "{{ y }}"}}}}
		return doc{{"pipeline", doc{{"inputs", doc{{"y", doc{{"type", "any"}}}}}, {"steps", []any{inner}}}}, {"with", doc{{"y", a.value(0)}}}}
	case 8:
		return doc{{"set", doc{{"v" + id, a.value(0)}}}}
	case 9:
		retry := doc{{"match", doc{{"category", "timeout"}, {"code", []any{word("7")}}}}, {"do", "retry"}}
		return append(debug(), entry{"on_error", []any{retry, doc{{"do", "fallback"}, {"value", a.value(0)}}}})
	case 10:
		return doc{{"for", doc{{"items", []any{word("1"), word("2")}}, {"variable", "of_" + id}, {"on_item_error", "continue"}}}, {"steps", a.looped(depth)}}
	case 11:
		return doc{{"while", doc{{"condition", a.condition()}, {"max_iterations", word("3")}}}, {"steps", a.looped(depth)}}
	case 12:
		return doc{{"repeat", doc{{"until", a.condition()}, {"max_iterations", word("3")}, {"on_exhausted", doc{{"k", "{{ kind }}"}}}}}, {"steps", a.looped(depth)}}
	case 13:
		return doc{{"queue", doc{{"items", "{{ kind }}"}, {"max_parallel", word("1")}, {"steps", a.looped(depth)}}}}
	case 14:
		arm := func() doc { return doc{{"condition", a.condition()}, {"then", body()}} }
		return doc{{"if", arm()}, {"elif", []any{arm()}}, {"else", body()}}
	case 15:
		return doc{{"match", doc{{"on", "{{ kind }}"}, {"cases", doc{{"é", body()}, {"1", []any{}}}}, {"default", body()}}}}
	case 16:
		return doc{{"parallel", a.body(depth+1, false, true)}}
	case 17:
		judge := doc{{"action", "debug"}, {"with", doc{{"x", "{{ candidates }}"}}}}
		return doc{{"compete", doc{{"candidates", a.body(depth+1, false, true)}, {"judge", judge}}}}
	case 18:
		return doc{{"for", doc{{"items", []any{word("1")}}, {"collect", "index"}}}, {"run", "echo {{ index }}"}}
	}
	return debug()
}

// unplaced clears the positions in a plan.
func unplaced(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			unplaced(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			unplaced(v.Index(i))
		}
	case reflect.Struct:
		if p, ok := reflect.TypeAssert[*pipeline.Pos](v.Addr()); ok {
			*p = pipeline.Pos{}
			return
		}
		for _, f := range v.Fields() {
			unplaced(f)
		}
	}
}

// TestStylesOfYAML: a pipeline means the same in every style of YAML, and one
// whose steps name only what ran before is accepted.
func TestStylesOfYAML(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := &author{t: t}
		d := doc{
			{"name", "random: é"},
			{"imports", doc{{"sub", "lib/sub.yaml"}}},
			{"inputs", doc{{"n", word("3")}, {"kind", doc{{"type", "any"}}}}},
			{"settings", doc{{"order", "sequence"}, {"max_transitions", word("9")}}},
			{"steps", a.body(0, true, false)},
			{"outputs", doc{{"o", "{{ inputs.n }}"}}},
		}
		sub := pipeline.Bundle{"lib/sub.yaml": []byte("inputs: {x: {type: any}}\nsteps: [{id: s, action: debug, with: {x: '{{ x }}'}}]\n")}
		var first *pipeline.Plan
		var source string
		for _, p := range []*printer{{quote: '"'}, {block: true, quote: '\''}, {block: true, quote: '"'}} {
			p.value(d, "")
			plan, diags, err := Compile(Source{File: "x.yaml", Text: []byte(p.b.String() + "\n"), Files: sub}, testCatalog())
			if err != nil {
				for _, x := range diags.List {
					if x.Code == "E0409" { // jumps may be drawn that leave no way out
						t.Skip(x.Message)
					}
				}
				var b strings.Builder
				Format(&b, diags, false)
				t.Fatalf("%s\n%s", b.String(), p.b.String())
			}
			unplaced(reflect.ValueOf(plan))
			if first == nil {
				first, source = plan, p.b.String()
				continue
			}
			if d := cmp.Diff(first, plan); d != "" {
				t.Fatalf("%s\n%s\n%s", d, source, p.b.String())
			}
		}
	})
}
