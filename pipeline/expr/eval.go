package expr

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// evaluator is the state of one evaluation. Its methods, and the eval methods of
// nodes, fail by a panic with *Error, which Template.eval recovers.
type evaluator struct {
	env    *Env
	locals []any // by slot; unset where not bound
	spent
	built bool // a list or map was made, so the result needs a check
	out   []byte
	regex compiledPattern // the last one, which map and select use again

	tables
}

// tables are the closed tables. Entries reach them by the evaluator, since map
// and select look names up in the table they are part of.
type tables struct {
	filters   map[string]*filter
	tests     map[string]*test
	methods   map[string]*method
	functions map[string]*function
}

type unsetType struct{}

var unset any = unsetType{}

var evaluators = sync.Pool{New: func() any {
	return &evaluator{tables: tables{filters, tests, methods, functions}}
}}

func newEvaluator(env *Env, slots int) *evaluator {
	ev, _ := evaluators.Get().(*evaluator) // the pool holds nothing else
	ev.env, ev.spent, ev.built = env, spent{}, false
	for range slots {
		ev.locals = append(ev.locals, unset)
	}
	return ev
}

func (ev *evaluator) release() {
	clear(ev.locals)
	ev.env, ev.locals, ev.out, ev.regex = nil, ev.locals[:0], ev.out[:0], compiledPattern{}
	if cap(ev.out) > 64<<10 || cap(ev.locals) > 1024 {
		ev.out, ev.locals = nil, nil
	}
	evaluators.Put(ev)
}

func fail(at Span, format string, args ...any) {
	panic(&Error{Text: fmt.Sprintf(format, args...), Off: at.Off, End: at.End})
}

func failHint(at Span, hint, format string, args ...any) {
	panic(&Error{Text: fmt.Sprintf(format, args...), Hint: hint, Off: at.Off, End: at.End})
}

// text returns how v prints.
func (ev *evaluator) text(v any, at Span) string {
	v = ev.plain(v, at)
	if s, ok := v.(string); ok {
		ev.scan(len(s), at) // whoever asks will read it
		return s
	}
	s, ok := textWithin(v, maxText)
	if !ok {
		fail(at, "%s", tooMuchText)
	}
	return ev.str(s, at)
}

// undefined is the value of a name or attribute that does not exist. Only
// default, is defined and is undefined accept it.
type undefined struct {
	at   Span
	base any // nil for a name
	name string
	root bool
	ev   *evaluator
	text string // the message, for an index
}

// namer is what a Scope or an Object may implement for better messages.
type namer interface{ Names() []string }

func (u *undefined) fail() {
	e := &Error{Code: "E0201", Off: u.at.Off, End: u.at.End}
	switch {
	case u.text != "":
		e.Text = u.text
	case u.root:
		e.Text = "'" + u.name + "' is undefined"
		if n, ok := u.ev.env.Scope.(namer); ok {
			e.Hint = didYouMean(u.name, n.Names())
		}
		if u.ev.functions[u.name] != nil {
			e.Hint = "to call the function write " + u.name + "()"
		}
	default:
		names, isMap := namesOf(u.base)
		what := "a map"
		if !isMap {
			what = typeName(plain(u.base))
		}
		e.Text = "no attribute '" + u.name + "' on " + what
		if isMap {
			e.Text += itHas(names)
			e.Hint = didYouMean(u.name, names)
		} else if u.ev.methods[u.name] != nil {
			e.Hint = "to call the method write ." + u.name + "()"
		}
	}
	panic(e)
}

func namesOf(v any) ([]string, bool) {
	switch v := v.(type) {
	case map[string]any:
		return slices.Sorted(maps.Keys(v)), true
	case namer:
		return v.Names(), true
	}
	return nil, false
}

func itHas(names []string) string {
	if len(names) == 0 {
		return " (it is empty)"
	}
	const most = 8
	more := ""
	if len(names) > most {
		more = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	return " (it has: " + strings.Join(names, ", ") + more + ")"
}

// defined returns the value of x, which may be an Object or NullState.
func (ev *evaluator) defined(x node) any {
	v := x.eval(ev)
	if u, ok := v.(*undefined); ok {
		u.fail()
	}
	return v
}

// val returns the plain value of x.
func (ev *evaluator) val(x node) any { return ev.plain(ev.defined(x), x.at()) }

func (ev *evaluator) plain(v any, at Span) any {
	v = plain(v)
	switch v.(type) {
	case nil, bool, int64, float64, string, []any, map[string]any:
		return v
	}
	fail(at, "a value of the Go type %T is none of the language", v)
	return nil
}

func plain(v any) any {
	for range 8 {
		switch x := v.(type) {
		case nil, bool, int64, float64, string, []any, map[string]any:
			return v
		case nullState:
			return nil
		case Object:
			v = x.Value()
		default:
			return v
		}
	}
	return nil
}

// result evaluates the lone expression of a template. What the evaluation built
// is checked: shared lists would print much longer than they are.
func (ev *evaluator) result(x node) any {
	v := ev.val(x)
	if !ev.built {
		return v
	}
	left := maxText
	v, _ = ev.settle(v, x.at(), &left)
	return v
}

// settle replaces Objects inside v by their values and counts the size; changed
// says that the result is another value than v.
func (ev *evaluator) settle(v any, at Span, left *int) (_ any, changed bool) {
	switch v.(type) {
	case nullState, Object:
		v, changed = ev.plain(v, at), true
	}
	size := 8
	if s, ok := v.(string); ok {
		size = len(s)
	}
	if *left -= size; *left < 0 {
		fail(at, "the value is too large (more than 1 MiB)")
	}
	switch x := v.(type) {
	case []any:
		var out []any
		for i, e := range x {
			if y, ok := ev.settle(e, at, left); ok {
				if out == nil {
					out = slices.Clone(x)
				}
				out[i] = y
			}
		}
		if out != nil {
			return out, true
		}
	case map[string]any:
		var out map[string]any
		for k, e := range x {
			*left -= len(k)
			if y, ok := ev.settle(e, at, left); ok {
				if out == nil {
					out = maps.Clone(x)
				}
				out[k] = y
			}
		}
		if out != nil {
			return out, true
		}
	default:
		ev.plain(v, at)
	}
	return v, changed
}

// render runs statements and returns what they print.
func (ev *evaluator) render(body []stmt) string {
	start := len(ev.out)
	for _, s := range body {
		s.run(ev)
	}
	s := string(ev.out[start:])
	ev.out = ev.out[:start]
	return s
}

func (ev *evaluator) write(s string, at Span) {
	ev.scan(len(s), at)
	if len(ev.out)+len(s) > maxText {
		fail(at, "the output is too long (more than 1 MiB)")
	}
	ev.out = append(ev.out, s...)
}

func (s *textStmt) run(ev *evaluator) { ev.write(s.text, Span{}) }

func (s *outStmt) run(ev *evaluator) {
	v := ev.val(s.x)
	if t, ok := v.(string); ok {
		ev.write(t, s.x.at())
		return
	}
	w := writer{b: ev.out, limit: maxText}
	if !w.value(v, false) {
		fail(s.x.at(), "the output is too long (more than 1 MiB)")
	}
	ev.scan(len(w.b)-len(ev.out), s.x.at())
	ev.out = w.b
}

func (ev *evaluator) runAll(body []stmt) {
	for _, s := range body {
		s.run(ev)
	}
}

func (s *ifStmt) run(ev *evaluator) {
	for i, c := range s.conds {
		if Truthy(ev.val(c)) {
			ev.runAll(s.bodies[i])
			return
		}
	}
	ev.runAll(s.els)
}

func (s *setStmt) run(ev *evaluator) { ev.assign(s.targets, ev.defined(s.x), s.Span) }

func (s *setBlockStmt) run(ev *evaluator) {
	ev.locals[s.slot] = ev.str(ev.render(s.body), Span{})
}

// assign binds a value to one slot, or its elements to several.
func (ev *evaluator) assign(targets []int, v any, at Span) {
	if len(targets) == 1 {
		ev.locals[targets[0]] = v
		return
	}
	items := ev.iterate(v, at)
	if len(items) != len(targets) {
		fail(at, "cannot unpack %d values into %d names", len(items), len(targets))
	}
	for i, t := range targets {
		ev.locals[t] = items[i]
	}
}

func (s *forStmt) run(ev *evaluator) {
	items := ev.iterate(ev.defined(s.over), s.Span)
	if s.filter != nil {
		var kept []any
		for _, x := range items {
			ev.assign(s.targets, x, s.Span)
			if Truthy(ev.val(s.filter)) {
				kept = append(kept, x)
			}
		}
		ev.hold(len(kept), s.Span)
		items = kept
	}
	if len(items) == 0 {
		ev.runAll(s.els)
	}
	loop := &loopState{items: items}
	for i, x := range items {
		ev.tick(s.Span)
		for _, slot := range s.own {
			ev.locals[slot] = unset
		}
		loop.i = i
		ev.locals[s.loop] = loop
		ev.assign(s.targets, x, s.Span)
		ev.runAll(s.body)
	}
}

// iterate returns the elements of a list, the keys of a map in order, or the
// characters of a text. Callers do not change what it returns.
func (ev *evaluator) iterate(v any, at Span) []any {
	switch v := ev.plain(v, at).(type) {
	case []any:
		ev.visit(len(v), at)
		return v
	case map[string]any:
		return ev.texts(slices.Sorted(maps.Keys(v)), at)
	case string:
		out := ev.list(utf8.RuneCountInString(v), at)
		i := 0
		for _, r := range v {
			out[i] = string(r)
			i++
		}
		return out
	default:
		fail(at, "%s cannot be iterated over", typeName(v))
		return nil
	}
}

// loopState is the value of loop.
type loopState struct {
	items   []any
	i       int
	seen    any // of loop.changed
	changed bool
}

// Attr implements Object.
func (l *loopState) Attr(name string) (any, bool) {
	n := len(l.items)
	switch name {
	case "index":
		return int64(l.i + 1), true
	case "index0":
		return int64(l.i), true
	case "revindex":
		return int64(n - l.i), true
	case "revindex0":
		return int64(n - l.i - 1), true
	case "first":
		return l.i == 0, true
	case "last":
		return l.i == n-1, true
	case "length":
		return int64(n), true
	case "depth": // counts recursion in Jinja2, which we do not have
		return int64(1), true
	case "depth0":
		return int64(0), true
	case "previtem":
		if l.i > 0 {
			return l.items[l.i-1], true
		}
	case "nextitem":
		if l.i < n-1 {
			return l.items[l.i+1], true
		}
	}
	return nil, false
}

// Names lists the attributes for messages.
func (l *loopState) Names() []string {
	return []string{"index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "previtem", "nextitem"}
}

// Value implements Object.
func (l *loopState) Value() any {
	return map[string]any{"index": int64(l.i + 1), "length": int64(len(l.items))}
}
