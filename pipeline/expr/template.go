package expr

import (
	"slices"
	"strings"
	"sync"
)

// Template is a compiled text or condition. It does not change and may be used
// by many goroutines at once.
type Template struct {
	src        string
	prog       *program // the reading without joined dashes, if that parses
	bare       bool     // a condition without {{ }}
	refs       []Ref
	calls      []string
	dashes     []Dash
	deprecated []Span

	variants sync.Map // readings with some dashes joined: string -> *program or error
}

// program is one reading of a template.
type program struct {
	body  []stmt
	one   node   // the lone expression, if there is one
	sets  []stmt // the set statements before it
	text  string // the text, if there is no tag
	konst bool
	slots int
}

// Compile parses a text that may hold {{ }}, {% %} and {# #}. The error is an
// *Error, or Errors where several names or calls are wrong.
func Compile(src string) (*Template, error) {
	l := lex(src)
	defer l.release()
	return compile(src, l, false)
}

// CompileCondition parses a condition: a bare expression, or one {{ }}.
func CompileCondition(src string) (*Template, error) {
	s := strings.TrimSpace(src)
	if !strings.HasPrefix(s, "{{") && !strings.HasPrefix(s, "{%") && !strings.HasPrefix(s, "{#") {
		l := lexBare(src)
		defer l.release()
		return compile(src, l, true)
	}
	t, err := Compile(src)
	if err != nil {
		return nil, err
	}
	if t.prog.one == nil || len(t.prog.sets) > 0 {
		return nil, &Error{Code: "E0205", Text: "a condition is one expression", Hint: "write it bare, or in one {{ }}", End: len(src)}
	}
	return t, nil
}

func compile(src string, l *lexer, bare bool) (*Template, error) {
	t := &Template{src: src, bare: bare, deprecated: l.deprecated}
	prog, dashes, err := parse(src, l.tokens, bare, nil)
	t.dashes = dashes
	if len(dashes) > 0 {
		joined := map[string]bool{}
		for _, d := range dashes {
			joined[d.key()] = true
		}
		other, more, err2 := parse(src, l.tokens, bare, joined)
		switch {
		case err != nil && err2 == nil: // {{ check-in.result }} has one reading only
			prog, err = other, nil
			t.dashes = more
		case err == nil && err2 == nil:
			c := collect(other)
			mark(c.refs, dashes)
			t.refs = slices.DeleteFunc(c.refs, func(r Ref) bool { return !r.joined() })
			t.calls = c.calls
		}
	}
	if err != nil {
		return nil, err
	}
	t.prog = prog
	c := collect(prog)
	mark(c.refs, t.dashes)
	t.refs = append(c.refs, t.refs...)
	slices.SortStableFunc(t.refs, func(a, b Ref) int { return a.Off - b.Off })
	t.calls = append(c.calls, t.calls...)
	slices.Sort(t.calls)
	t.calls = slices.Compact(t.calls)
	return t, nil
}

// parse makes one reading of the tokens.
func parse(src string, tokens []token, bare bool, joined map[string]bool) (prog *program, dashes []Dash, err error) {
	p := &parser{src: src, tokens: tokens, scopes: make([]map[string]int, 1), joined: joined}
	defer func() {
		dashes = p.dashes
		if r := recover(); r != nil {
			prog = nil
			switch e := r.(type) {
			case *Error:
				err = e
			case Errors:
				err = e
			default:
				panic(r)
			}
		}
	}()
	prog = &program{}
	if bare {
		if p.peek().kind == tokEOF {
			p.fail(Span{0, len(src)}, "", "an empty condition")
		}
		prog.one = p.tuple(true)
		switch t := p.peek(); {
		case t.kind == tokEOF:
		case t.kind == tokOp && (t.text == "{" || t.text == "}"):
			p.fail(t.Span, "write the whole condition bare, or in one {{ }}", "a condition is one expression")
		default:
			p.unexpected("expected the end of the expression")
		}
		prog.body = []stmt{&outStmt{prog.one}}
	} else {
		prog.body = p.body(token{})
		prog.shape()
	}
	prog.slots = p.slots
	slices.SortStableFunc(p.faults, func(a, b *Error) int { return a.Off - b.Off })
	switch len(p.faults) {
	case 0:
		return prog, nil, nil
	case 1:
		return nil, nil, p.faults[0]
	}
	return nil, nil, p.faults
}

// shape finds out whether the body is a constant text, or one {{ }} that keeps
// its native value: blanks and set statements around it do not count.
func (prog *program) shape() {
	prog.konst = true
	var text strings.Builder
	var sets []stmt
	alone := true
	for _, s := range prog.body {
		switch s := s.(type) {
		case *textStmt:
			text.WriteString(s.text)
			if strings.TrimSpace(s.text) != "" {
				alone = false
			}
			continue
		case *outStmt:
			if prog.one != nil {
				alone = false
			}
			prog.one = s.x
		case *setStmt, *setBlockStmt:
			if prog.one == nil {
				sets = append(sets, s)
			}
		default:
			alone = false
		}
		prog.konst = false
	}
	prog.text = text.String()
	if !alone {
		prog.one = nil
	}
	if prog.one != nil {
		prog.sets = sets
	}
}

// Source returns what was compiled.
func (t *Template) Source() string { return t.src }

// Const returns the text of a template without any expression or statement.
func (t *Template) Const() (string, bool) { return t.prog.text, t.prog.konst && !t.bare }

// Refs returns the references to free names in order of appearance. Of a dashed
// chain it lists both readings: the parts, and the joined name.
func (t *Template) Refs() []Ref { return slices.Clone(t.refs) }

// Dashes returns the chains that may be one name; see Dash.
func (t *Template) Dashes() []Dash { return slices.Clone(t.dashes) }

// Deprecated returns the names spelled $item, which mean item.
func (t *Template) Deprecated() []Span { return slices.Clone(t.deprecated) }

// Calls returns the global functions called, sorted.
func (t *Template) Calls() []string { return slices.Clone(t.calls) }

// Impure reports whether the value depends on more than the scope: on the time
// or on files.
func (t *Template) Impure() bool {
	return slices.ContainsFunc(t.calls, func(name string) bool { return functions[name].impure })
}

// Eval returns the native value where the template is one {{ }}, with nothing
// but blanks and set statements around it; else the text. Lists and maps of the
// result may share structure with the scope: callers do not change them.
func (t *Template) Eval(env *Env) (any, error) {
	return t.eval(env, func(ev *evaluator, prog *program) any {
		if prog.one == nil {
			return ev.render(prog.body)
		}
		for _, s := range prog.sets {
			s.run(ev)
		}
		return ev.result(prog.one)
	})
}

// EvalString returns the value as a text.
func (t *Template) EvalString(env *Env) (string, error) {
	v, err := t.Eval(env)
	if err != nil {
		return "", err
	}
	if s, ok := v.(string); ok {
		return s, nil
	}
	s, ok := textWithin(v, maxText)
	if !ok {
		return "", &Error{Text: tooMuchText, End: len(t.src)}
	}
	return s, nil
}

// Test evaluates a condition. Null is false; booleans, numbers, lists and maps are
// true or false as in Jinja2; a text must spell true or false.
func (t *Template) Test(env *Env) (bool, error) {
	v, err := t.Eval(env)
	if err != nil {
		return false, err
	}
	s, ok := v.(string)
	if !ok {
		return Truthy(v), nil
	}
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	at := Span{0, len(t.src)}
	if t.prog.one != nil {
		at = t.prog.one.at()
	}
	return false, &Error{
		Text: "a condition needs true or false, not the text " + quoteShort(s),
		Hint: "compare it, as in x == 'yes', or ask x | length > 0", Off: at.Off, End: at.End,
	}
}

func (t *Template) eval(env *Env, f func(*evaluator, *program) any) (v any, err error) {
	if env == nil {
		env = &Env{}
	}
	if t.prog.konst {
		return t.prog.text, nil
	}
	prog := t.prog
	if len(t.dashes) > 0 {
		if prog, err = t.reading(env); err != nil {
			return nil, err
		}
	}
	ev := newEvaluator(env, prog.slots)
	defer func() {
		ev.release()
		if r := recover(); r != nil {
			e, ok := r.(*Error)
			if !ok {
				panic(r)
			}
			v, err = nil, e
		}
	}()
	return f(ev, prog), nil
}

// reading picks the program in which each dashed chain is what the scope says.
func (t *Template) reading(env *Env) (*program, error) {
	joined := map[string]bool{}
	var key strings.Builder
	for _, d := range t.dashes {
		if d.isName(env.Scope) {
			joined[d.key()] = true
			key.WriteString(d.key() + "\n")
		}
	}
	if len(joined) == 0 {
		return t.prog, nil
	}
	v, ok := t.variants.Load(key.String())
	if !ok {
		cut := lex
		if t.bare {
			cut = lexBare
		}
		l := cut(t.src)
		defer l.release()
		prog, _, err := parse(t.src, l.tokens, t.bare, joined)
		v = prog
		if err != nil {
			v = err
		}
		t.variants.Store(key.String(), v)
	}
	if prog, ok := v.(*program); ok {
		return prog, nil
	}
	err, _ := v.(error)
	return nil, err
}

// isName reports whether the scope has the joined name and none of its parts.
func (d Dash) isName(scope Scope) bool {
	if scope == nil {
		return false
	}
	has := scope.Lookup
	if len(d.Base) > 0 {
		v, ok := scope.Lookup(d.Base[0])
		for _, name := range d.Base[1:] {
			if !ok {
				return false
			}
			v, ok = member(v, name)
		}
		if !ok {
			return false
		}
		has = func(name string) (any, bool) { return member(v, name) }
	}
	if _, ok := has(d.Name); !ok {
		return false
	}
	for i, part := range strings.Split(d.Name, "-") {
		if i == 0 {
			if _, ok := has(part); ok {
				return false
			}
		} else if _, ok := scope.Lookup(part); ok {
			return false
		}
	}
	return true
}
