package step

import (
	"context"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const transformDoc = `Gives its input in another form.

    - id: shout
      action: transform
      parameters: {input: "{{ greet.output }}", transformation: uppercase}

Of texts: uppercase, lowercase, title (the first letter of every word large), capitalize (the first letter of the text), trim, lines (a list; the final newline does not count), words (a list), split (a list, cut at separator), from_json.
Of lists: sort (numbers or texts), unique (first occurrences), flatten (one level), join (a text, with separator between).
Of both: reverse, length (of texts in characters; of maps too).
Of anything: to_json.

A number or boolean where a text is needed counts as its text. Anything else that does not fit fails the step.`

// Transform is one conversion out of a closed list.
type Transform struct {
	Input          any    `param:"required" doc:"what to convert"`
	Transformation string `param:"required" enum:"uppercase,lowercase,title,capitalize,trim,lines,words,split,from_json,sort,unique,flatten,join,reverse,length,to_json" doc:"the conversion"`
	Separator      any    `type:"string" doc:"of split and join; default: a comma for split, nothing for join"`
}

func transformAction() executor.Action {
	return executor.NewAction[Transform](executor.Describe{Name: "transform", Doc: transformDoc, Effect: pipeline.EffectPure})
}

// textForms and listForms are the conversions by what they take.
var textForms = map[string]func(t Transform, s string) (any, error){
	"uppercase":  func(_ Transform, s string) (any, error) { return strings.ToUpper(s), nil },
	"lowercase":  func(_ Transform, s string) (any, error) { return strings.ToLower(s), nil },
	"title":      func(_ Transform, s string) (any, error) { return title(s), nil },
	"capitalize": func(_ Transform, s string) (any, error) { return firstLarge(s), nil },
	"trim":       func(_ Transform, s string) (any, error) { return strings.TrimSpace(s), nil },
	"lines":      func(_ Transform, s string) (any, error) { return splitLines(s), nil },
	"words":      func(_ Transform, s string) (any, error) { return anyList(strings.Fields(s)), nil },
	"split":      func(t Transform, s string) (any, error) { return t.split(s) },
	"from_json":  func(_ Transform, s string) (any, error) { return fromJSON(s) },
}

var listForms = map[string]func(t Transform, l []any) (any, error){
	"sort":    func(_ Transform, l []any) (any, error) { return sorted(l) },
	"unique":  func(_ Transform, l []any) (any, error) { return unique(l), nil },
	"flatten": func(_ Transform, l []any) (any, error) { return flatten(l), nil },
	"join":    func(t Transform, l []any) (any, error) { return t.join(l) },
}

// Run computes only.
func (t Transform) Run(_ context.Context, _ executor.Env) (executor.Output, error) {
	v, err := t.convert()
	if err != nil {
		return executor.Output{}, err
	}
	if s, ok := v.(string); ok && len(s) > maxValue {
		return executor.Output{}, tooLarge("the text would have %s; a step gives at most %s", size(int64(len(s))), size(maxValue))
	}
	return executor.Output{Value: v}, nil
}

func (t Transform) convert() (any, error) {
	if f := textForms[t.Transformation]; f != nil {
		switch v := t.Input.(type) {
		case string:
			return f(t, v)
		case int64, float64, bool:
			return f(t, expr.Text(v))
		}
		return nil, t.misfit("a text")
	}
	if f := listForms[t.Transformation]; f != nil {
		l, ok := t.Input.([]any)
		if !ok {
			return nil, t.misfit("a list")
		}
		return f(t, l)
	}
	switch t.Transformation {
	case "to_json":
		return string(pipeline.EncodeValue(t.Input)), nil
	case "reverse":
		switch v := t.Input.(type) {
		case string:
			r := []rune(v)
			slices.Reverse(r)
			return string(r), nil
		case []any:
			l := slices.Clone(v)
			slices.Reverse(l)
			return l, nil
		}
		return nil, t.misfit("a text or a list")
	case "length":
		switch v := t.Input.(type) {
		case string:
			return int64(utf8.RuneCountInString(v)), nil
		case []any:
			return int64(len(v)), nil
		case map[string]any:
			return int64(len(v)), nil
		}
		return nil, t.misfit("a text, a list or a map")
	}
	return nil, invalid("there is no transformation %q", t.Transformation)
}

func (t Transform) misfit(want string) error {
	return invalid("transformation %s needs %s; the input is %s", t.Transformation, want, kindOf(t.Input))
}

func (t Transform) separator(def string) (string, error) {
	switch s := t.Separator.(type) {
	case nil:
		return def, nil
	case string:
		return s, nil
	}
	return "", invalid("parameter separator must be a text")
}

func (t Transform) split(s string) (any, error) {
	sep, err := t.separator(",")
	if err != nil {
		return nil, err
	}
	if sep == "" {
		return nil, invalid("parameter separator is empty; split needs something to cut at")
	}
	return anyList(strings.Split(s, sep)), nil
}

func (t Transform) join(l []any) (any, error) {
	sep, err := t.separator("")
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for i, e := range l {
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteString(expr.Text(e))
		if b.Len() > maxValue {
			return nil, tooLarge("the joined text is larger than %s", size(maxValue))
		}
	}
	return b.String(), nil
}

// title makes every word's first letter large and its others small; an
// apostrophe does not end a word.
func title(s string) string {
	start := true
	return strings.Map(func(r rune) rune {
		first := start
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r):
			start = false
		case r == '\'' || r == '’':
		default:
			start = true
		}
		if first {
			return unicode.ToTitle(r)
		}
		return unicode.ToLower(r)
	}, s)
}

func firstLarge(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToTitle(r)) + strings.ToLower(s[n:])
}

// splitLines cuts at \n and \r\n; the final newline ends the last line.
func splitLines(s string) []any {
	list := []any{}
	for line := range strings.Lines(s) {
		line = strings.TrimSuffix(line, "\n")
		list = append(list, strings.TrimSuffix(line, "\r"))
	}
	return list
}

func fromJSON(s string) (any, error) {
	v, err := pipeline.DecodeValue([]byte(s))
	if err != nil {
		return nil, invalid("the input is not JSON: %v; it begins %q", err, head(s, 80))
	}
	return v, nil
}

// sorted orders numbers by size and texts by code point.
func sorted(l []any) (any, error) {
	out := slices.Clone(l)
	var bad error
	slices.SortStableFunc(out, func(a, b any) int {
		c, ok := compare(a, b)
		if !ok && bad == nil {
			bad = invalid("sort cannot compare %s and %s", kindOf(a), kindOf(b))
		}
		return c
	})
	return out, bad
}

func unique(l []any) any {
	seen := map[string]bool{}
	out := []any{}
	for _, e := range l {
		if k := identity(e); !seen[k] {
			seen[k] = true
			out = append(out, e)
		}
	}
	return out
}

func flatten(l []any) any {
	out := []any{}
	for _, e := range l {
		if inner, ok := e.([]any); ok {
			out = append(out, inner...)
		} else {
			out = append(out, e)
		}
	}
	return out
}
