package expr_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

var update = flag.Bool("update", false, "write testdata/deviations.md")

// deviation is a case of the record in which we differ from Jinja2 on purpose;
// fails says that it is an error here, else value is what we give.
type deviation struct {
	value  any
	fails  bool
	reason string
}

const (
	staysText   = "A text that looks like a literal stays text, so that a value never changes its type by its content."
	sortedKeys  = "Maps iterate in the order of their keys, so that every evaluation gives the same."
	exactNumber = "Integers are exact within 64 bits, as in the stores and on the wire; beyond them it is an error."
	constants   = "Values cannot be changed: they belong to finished steps."
	aroundLone  = "Blanks and the final newline around a lone expression do not count, so that a YAML block keeps the native value."
	atOnce      = "Lists are made at once, not lazily: an undefined attribute is an error where it is read."
	ofStatement = "Statements are if, for, set and raw."
	noState     = "Functions have no memory: an evaluation gives the same each time."
	noMarkup    = "No text is marked as safe HTML; escape and its like give plain texts."
)

var deviations = map[string]deviation{
	"{{ 'a' ~ 1 ~ none }}":                              {value: "a1", reason: "Null prints empty."},
	"{{ 'x' if n > 300 }}":                              {value: nil, reason: "Without else the value is null."},
	"{{ items | tojson }}":                              {value: `["a", "b", "c"]`, reason: staysText},
	"{{ n | string }}":                                  {value: "5", reason: staysText},
	"{{n}}{{n}}":                                        {value: "55", reason: staysText},
	"{{ liststr }}":                                     {value: "[1, 2]", reason: staysText},
	"{{ truestr }}":                                     {value: "True", reason: staysText},
	"  {{ n }}  ":                                       {value: int64(5), reason: aroundLone},
	"{{ n }}\n":                                         {value: int64(5), reason: aroundLone},
	"{{ items.append('z') }}":                           {fails: true, reason: constants},
	"{{ items.pop() }}":                                 {fails: true, reason: constants},
	"{{ 12345678901234567890123 }}":                     {fails: true, reason: exactNumber},
	"{{ 10 ** 20 }}":                                    {fails: true, reason: exactNumber},
	"{{ items | map(attribute='x') | list }}":           {fails: true, reason: atOnce},
	"{{ 1, 2 }}":                                        {value: []any{int64(1), int64(2)}, reason: "The record comes from compile_expression, which takes no bare tuple; a template of Jinja2 does."},
	"{{ [1, 2.5, true] | join(',') }}":                  {value: "1,2.5,true", reason: "Booleans print as they are written in YAML and JSON."},
	"{{ 'éa ßb' | title }}":                             {value: "Éa ßb", reason: "Upper case goes character by character; a letter without a capital stays."},
	"{{ keysm.items() | list }}":                        {value: []any{[]any{"b c", int64(3)}, []any{"get", int64(2)}, []any{"items", int64(1)}}, reason: sortedKeys},
	"{{ {'b': 1, 'a': 2} | items | list }}":             {value: []any{[]any{"a", int64(2)}, []any{"b", int64(1)}}, reason: sortedKeys},
	"{{ {'b': 1, 'a': 2} | list }}":                     {value: []any{"a", "b"}, reason: sortedKeys},
	"{{ {2: 'x'}.keys() | list }}":                      {value: []any{"2"}, reason: "The keys of a map are texts, as in JSON; m[2] and m['2'] are the same."},
	"{{ '%s%s' | format(*items[:2]) }}":                 {fails: true, reason: "Arguments are written one by one, so that their number is checked before a run."},
	"{{ [7] | random }}":                                {fails: true, reason: noState},
	"{{ lipsum() }}":                                    {fails: true, reason: noState},
	"{{ 'x' is escaped }}":                              {fails: true, reason: noMarkup},
	"{{ n is callable }}":                               {fails: true, reason: "No value can be called."},
	"{% with a = 1 %}{{ a }}{% endwith %}":              {fails: true, reason: ofStatement},
	"{% filter upper %}x{% endfilter %}":                {fails: true, reason: ofStatement},
	"{% block b %}x{% endblock %}":                      {fails: true, reason: ofStatement},
	"{% autoescape true %}x{% endautoescape %}":         {fails: true, reason: noMarkup},
	"{% macro f(a) %}<{{a}}>{% endmacro %}{{ f('q') }}": {fails: true, reason: ofStatement},

	"{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}":  {fails: true, reason: constants},
	"{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}": {fails: true, reason: noState},
	"{% set j = joiner() %}{{ j() }}{{ j() }}":                   {fails: true, reason: noState},

	"{% for x in [[1, [2]]] recursive %}{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}{% endfor %}": {fails: true, reason: "Loops cannot be recursive: their work could not be bounded."},
}

// jinja are the names that Jinja2 3.1 has built in; we have all but those that
// a deviation of the record shows.
var jinja = map[string]struct {
	names  string
	ours   []string
	absent string
}{
	"filter": {
		"abs attr batch capitalize center count d default dictsort e escape filesizeformat first float forceescape format groupby indent int items join last length list lower map " +
			"max min pprint random reject rejectattr replace reverse round safe select selectattr slice sort string striptags sum title tojson trim truncate unique upper urlencode " +
			"urlize wordcount wordwrap xmlattr",
		expr.Filters(), "random",
	},
	"test": {
		"!= < <= == > >= boolean callable defined divisibleby eq equalto escaped even false filter float ge greaterthan gt in integer iterable le lessthan lower lt mapping ne none " +
			"number odd sameas sequence string test true undefined upper",
		expr.Tests(), "callable escaped",
	},
	"function": {"cycler dict joiner lipsum namespace range", expr.Functions(), "cycler joiner lipsum namespace"},
}

func TestEveryNameOfJinjaIsThere(t *testing.T) {
	shown := strings.Join(slices.Collect(maps.Keys(deviations)), "\n")
	for what, j := range jinja {
		for name := range strings.FieldsSeq(j.names) {
			absent := slices.Contains(strings.Fields(j.absent), name)
			if absent == slices.Contains(j.ours, name) {
				t.Errorf("%s %s: present is %v", what, name, absent)
			}
			if absent && !strings.Contains(shown, name) {
				t.Errorf("%s %s is absent, and no deviation says why", what, name)
			}
		}
	}
}

// TestDeviations holds testdata/deviations.md, which the documentation shows,
// against the table.
func TestDeviations(t *testing.T) {
	rows := map[string]string{} // by reason and template, which sorts them
	for _, file := range referenceFiles {
		for _, c := range readReference(t, file).Cases {
			d, ok := deviations[c.Template]
			if !ok {
				continue
			}
			theirs, ours := code(expr.Text([]any{c.Value})), code(expr.Text([]any{d.value}))
			if c.Error != "" {
				theirs = "an error"
			} else if c.Text != "" {
				theirs = "a value of Python's own"
			}
			if d.fails {
				ours = "an error"
			}
			rows[d.reason+c.Template] = fmt.Sprintf("| %s | %s | %s | %s |\n", code("["+c.Template+"]"), theirs, ours, d.reason)
		}
	}
	if len(rows) != len(deviations) {
		t.Errorf("%d deviations are of the record, %d are not", len(rows), len(deviations)-len(rows))
	}
	var b strings.Builder
	b.WriteString("| Template | Jinja2 3.1 | here | Why |\n|---|---|---|---|\n")
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		b.WriteString(rows[k])
	}
	const file = "testdata/deviations.md"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != b.String() {
		t.Errorf("%s is not up to date (%v): run the test with -update", file, err)
	}
}

// code shows what stands between brackets as code in a cell of a table, cut short.
func code(bracketed string) string {
	s := []rune(strings.NewReplacer("\n", `\n`, "|", `\|`).Replace(bracketed[1 : len(bracketed)-1]))
	if len(s) > 120 {
		s = append(s[:117], '.', '.', '.')
	}
	return "`" + string(s) + "`"
}
