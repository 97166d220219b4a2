package expr

import (
	"cmp"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// Equal reports whether two values are equal as in Jinja2: numbers by value, so
// that 1, 1.0 and true are equal; lists and maps by their elements.
func Equal(a, b any) bool { return (*evaluator)(nil).equal(a, b, Span{}) }

func (ev *evaluator) equal(a, b any, at Span) bool {
	ev.visit(1, at)
	a, b = plain(a), plain(b)
	switch x := a.(type) {
	case nil:
		return b == nil
	case string:
		y, ok := b.(string)
		if ok && len(x) == len(y) {
			ev.collate(len(x), at)
		}
		return ok && x == y
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !ev.equal(x[i], y[i], at) {
				return false
			}
		}
		return true
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			if w, ok := y[k]; !ok || !ev.equal(v, w, at) {
				return false
			}
		}
		return true
	}
	m, n := number(a), number(b)
	return m != nil && n != nil && compareNumbers(m, n) == 0
}

// number returns an int64 or float64; booleans count as 0 and 1; else nil.
func number(v any) any {
	switch v := v.(type) {
	case int64, float64:
		return v
	case bool:
		if v {
			return int64(1)
		}
		return int64(0)
	}
	return nil
}

func toFloat(n any) float64 {
	switch n := n.(type) {
	case int64:
		return float64(n)
	case float64:
		return n
	}
	return 0
}

// compareNumbers is exact also between large integers and floats.
func compareNumbers(a, b any) int {
	x, xi := a.(int64)
	y, yi := b.(int64)
	switch {
	case xi && yi:
		return cmp.Compare(x, y)
	case xi:
		return -compareFloat(toFloat(b), x)
	case yi:
		return compareFloat(toFloat(a), y)
	}
	return cmp.Compare(toFloat(a), toFloat(b))
}

func compareFloat(f float64, n int64) int {
	switch {
	case f >= 1<<63:
		return 1
	case f < -1<<63:
		return -1
	}
	whole := int64(f)
	if c := cmp.Compare(whole, n); c != 0 {
		return c
	}
	return cmp.Compare(f, float64(whole))
}

func (ev *evaluator) compare(op string, a, b any, at Span) bool {
	switch op {
	case "==":
		return ev.equal(a, b, at)
	case "!=":
		return !ev.equal(a, b, at)
	case "in":
		return ev.contains(b, a, at)
	case "not in":
		return !ev.contains(b, a, at)
	}
	c := ev.order(a, b, at)
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}

// order compares numbers, texts, or lists of them.
func (ev *evaluator) order(a, b any, at Span) int {
	a, b = plain(a), plain(b)
	if m, n := number(a), number(b); m != nil && n != nil {
		ev.visit(1, at)
		return compareNumbers(m, n)
	}
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			ev.collate(min(len(x), len(y)), at)
			return strings.Compare(x, y)
		}
	case []any:
		if y, ok := b.([]any); ok {
			for i := range min(len(x), len(y)) {
				if !ev.equal(x[i], y[i], at) {
					return ev.order(x[i], y[i], at)
				}
			}
			return cmp.Compare(len(x), len(y))
		}
	}
	fail(at, "%s and %s have no order", typeName(a), typeName(b))
	return 0
}

func (ev *evaluator) contains(where, x any, at Span) bool {
	switch w := where.(type) {
	case string:
		s, ok := x.(string)
		if !ok {
			fail(at, "only a text can be in a text, not %s", typeName(x))
		}
		ev.scan(len(w), at)
		return strings.Contains(w, s)
	case []any:
		for _, e := range w {
			if ev.equal(e, x, at) {
				return true
			}
		}
		return false
	case map[string]any:
		s, ok := x.(string)
		if !ok {
			return false
		}
		_, ok = w[s]
		return ok
	}
	fail(at, "'in' needs a list, a map or a text, not %s", typeName(where))
	return false
}

// arith applies + - * / // % or **.
func (ev *evaluator) arith(op string, a, b any, at Span) any {
	m, n := number(a), number(b)
	if m != nil && n != nil {
		x, xi := m.(int64)
		y, yi := n.(int64)
		if xi && yi && op != "/" && (op != "**" || y >= 0) {
			return integer(op, x, y, at)
		}
		return floating(op, m, n, at)
	}
	switch op {
	case "+":
		switch x := a.(type) {
		case string:
			if y, ok := b.(string); ok {
				ev.room(len(x)+len(y), at)
				return x + y
			}
		case []any:
			if y, ok := b.([]any); ok {
				out := ev.list(len(x)+len(y), at)
				copy(out[copy(out, x):], y)
				return out
			}
		}
	case "*":
		if m != nil {
			a, b, n = b, a, m
		}
		if times, ok := n.(int64); ok {
			switch x := a.(type) {
			case string:
				times = max(times, 0)
				if len(x) > 0 && times > maxText/int64(len(x)) {
					ev.room(maxText+1, at)
				}
				ev.room(len(x)*int(times), at)
				if x == "" {
					return ""
				}
				return strings.Repeat(x, int(times))
			case []any:
				times = max(times, 0)
				if len(x) > 0 && times > maxElements/int64(len(x)) {
					ev.hold(maxElements+1, at)
				}
				if len(x) == 0 {
					times = 0
				}
				out := ev.list(len(x)*int(times), at)
				for i := range out {
					out[i] = x[i%len(x)]
				}
				return out
			}
		}
	case "%":
		if s, ok := a.(string); ok {
			return ev.printf(s, b, at)
		}
	}
	hint := ""
	if op == "+" && (isText(a) || isText(b)) {
		hint = "join texts and other values with ~"
	}
	failHint(at, hint, "cannot compute %s %s %s", typeName(a), op, typeName(b))
	return nil
}

func isText(v any) bool { _, ok := v.(string); return ok }

func integer(op string, x, y int64, at Span) any {
	var r int64
	ok := true
	switch op {
	case "+":
		r = x + y
		ok = (r > x) == (y > 0)
	case "-":
		r = x - y
		ok = (r < x) == (y > 0)
	case "*":
		r, ok = multiply(x, y)
	case "//", "%":
		if y == 0 {
			fail(at, "division by zero")
		}
		if y == -1 { // the one quotient that overflows
			if op == "%" {
				return int64(0)
			}
			r, ok = -x, x != math.MinInt64
			break
		}
		q, rem := x/y, x%y
		if rem != 0 && (rem < 0) != (y < 0) {
			q, rem = q-1, rem+y
		}
		if r = q; op == "%" {
			r = rem
		}
	case "**":
		r, ok = raise(x, y)
	}
	if !ok {
		fail(at, "the result does not fit in 64 bits")
	}
	return r
}

func multiply(x, y int64) (int64, bool) {
	if x == 0 || y == 0 {
		return 0, true
	}
	r := x * y
	return r, r/y == x && !(x == -1 && y == math.MinInt64) && !(y == -1 && x == math.MinInt64)
}

func raise(x, y int64) (int64, bool) {
	r := int64(1)
	for {
		var ok bool
		if y&1 == 1 {
			if r, ok = multiply(r, x); !ok {
				return 0, false
			}
		}
		if y >>= 1; y == 0 {
			return r, true
		}
		if x, ok = multiply(x, x); !ok {
			return 0, false
		}
	}
}

func floating(op string, a, b any, at Span) any {
	x, y := toFloat(a), toFloat(b)
	var r float64
	switch op {
	case "+":
		r = x + y
	case "-":
		r = x - y
	case "*":
		r = x * y
	case "**":
		if x == 0 && y < 0 {
			fail(at, "division by zero")
		}
		if r = math.Pow(x, y); math.IsNaN(r) {
			fail(at, "this power is no real number")
		}
	default:
		if y == 0 {
			fail(at, "division by zero")
		}
		r = divide(op, a, b, x, y)
	}
	if math.IsInf(r, 0) || math.IsNaN(r) {
		fail(at, "the result is too large for a number")
	}
	return r
}

// divide follows Python: the remainder has the sign of the divisor.
func divide(op string, a, b any, x, y float64) float64 {
	if op == "/" {
		const exact = 1 << 53
		m, mi := a.(int64)
		n, ni := b.(int64)
		if mi && ni && (m > exact || m < -exact || n > exact || n < -exact) {
			f, _ := big.NewRat(m, n).Float64()
			return f
		}
		return x / y
	}
	rem := math.Mod(x, y)
	q := (x - rem) / y
	if rem != 0 && (rem < 0) != (y < 0) {
		rem += y
		q--
	} else if rem == 0 {
		rem = math.Copysign(0, y)
	}
	if op == "%" {
		return rem
	}
	if q == 0 {
		return math.Copysign(0, x/y)
	}
	f := math.Floor(q)
	if q-f > 0.5 {
		f++
	}
	return f
}

// structure is the hash of a list or map.
type structure string

// hash returns a comparable value that equal values share.
func (ev *evaluator) hash(v any, at Span) any {
	switch x := ev.plain(v, at).(type) {
	case nil:
		return nil
	case string:
		ev.scan(len(x), at)
		return x
	case []any, map[string]any:
		b := ev.appendHash(nil, x, at)
		ev.room(len(b), at)
		return structure(b)
	default:
		return hashOfNumber(number(x))
	}
}

// hashOfNumber is the number as an int64, if it is a whole one.
func hashOfNumber(n any) any {
	if f, ok := n.(float64); ok && f == math.Trunc(f) && f >= -1<<63 && f < 1<<63 {
		return int64(f)
	}
	return n
}

func (ev *evaluator) appendHash(b []byte, v any, at Span) []byte {
	ev.visit(1, at)
	v = ev.plain(v, at)
	if len(b) > maxText {
		fail(at, "the value is too large (more than 1 MiB)")
	}
	switch x := v.(type) {
	case nil:
		return append(b, '0')
	case string:
		ev.scan(len(x), at)
		b = strconv.AppendInt(append(b, 's'), int64(len(x)), 10)
		return append(append(b, ':'), x...)
	case []any:
		b = append(b, '[')
		for _, e := range x {
			b = ev.appendHash(b, e, at)
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for _, k := range slices.Sorted(maps.Keys(x)) {
			b = ev.appendHash(b, k, at)
			b = ev.appendHash(b, x[k], at)
		}
		return append(b, '}')
	}
	n := hashOfNumber(number(v))
	if i, ok := n.(int64); ok {
		return append(strconv.AppendInt(append(b, 'n'), i, 10), ';')
	}
	return append(strconv.AppendFloat(append(b, 'f'), toFloat(n), 'x', -1, 64), ';')
}
