package expr_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// value generates plain values.
func value() *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any { return anyValue(t, 3) })
}

func anyValue(t *rapid.T, depth int) any {
	kinds := 6
	if depth > 0 {
		kinds = 8
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2:
		return rapid.Int64().Draw(t, "int")
	case 3:
		return rapid.Float64Range(-1e300, 1e300).Draw(t, "float")
	case 4:
		return int64(rapid.IntRange(-3, 12).Draw(t, "small"))
	case 5:
		return rapid.String().Draw(t, "text")
	case 6:
		out := []any{}
		for range rapid.IntRange(0, 4).Draw(t, "length") {
			out = append(out, anyValue(t, depth-1))
		}
		return out
	}
	out := map[string]any{}
	for range rapid.IntRange(0, 4).Draw(t, "size") {
		out[rapid.StringN(0, 4, 8).Draw(t, "key")] = anyValue(t, depth-1)
	}
	return out
}

// expression generates sources that mostly parse.
func expression(t *rapid.T, depth int) string {
	name := rapid.SampledFrom([]string{"a", "b", "c", "nope", "a.x", "b[0]", "c.y.z", "$item", "1", "-7", "2.5", "'t'", "none", "true", "[]", "{}", "9223372036854775807", "a-b"})
	if depth == 0 {
		return name.Draw(t, "leaf")
	}
	sub := func() string { return expression(t, depth-1) }
	switch rapid.IntRange(0, 10).Draw(t, "shape") {
	case 0:
		op := rapid.SampledFrom(strings.Fields("+ - * / // % ** ~ == != < > <= >= in and or")).Draw(t, "op")
		return "(" + sub() + " " + op + " " + sub() + ")"
	case 1:
		return "(" + sub() + " not in " + sub() + ")"
	case 2:
		return "[" + sub() + ", " + sub() + "]"
	case 3:
		return "{'k': " + sub() + ", 'x': " + sub() + "}"
	case 4:
		return "(" + sub() + " if " + sub() + " else " + sub() + ")"
	case 5:
		f := rapid.SampledFrom(expr.Filters()).Draw(t, "filter")
		return "(" + sub() + " | " + f + rapid.SampledFrom([]string{"", "(" + sub() + ")", "(" + sub() + ", " + sub() + ")"}).Draw(t, "args") + ")"
	case 6:
		return "(" + sub() + " is " + rapid.SampledFrom(strings.Fields("defined none odd even string mapping iterable number lower")).Draw(t, "test") + ")"
	case 7:
		return sub() + "[" + sub() + ":" + sub() + ":" + sub() + "]"
	case 8:
		m := rapid.SampledFrom(strings.Fields("split rsplit strip upper items keys title isdigit count find format center replace partition zfill")).Draw(t, "method")
		return "(" + sub() + ")." + m + "(" + rapid.SampledFrom([]string{"", sub(), sub() + ", " + sub()}).Draw(t, "args") + ")"
	case 9:
		return "range(" + sub() + ", " + sub() + ")"
	}
	return "(not " + sub() + ")"
}

// check evaluates a source in every way and holds the result against the promises.
func check(t interface{ Fatalf(string, ...any) }, src string, env *expr.Env) {
	c, err := expr.Compile(src)
	if err != nil {
		checkError(t, src, err)
		return
	}
	for _, r := range c.Refs() {
		if r.Off < 0 || r.End > len(src) || r.Off >= r.End {
			t.Fatalf("%q: ref %s at %d:%d", src, r.Root, r.Off, r.End)
		}
	}
	v, err := c.Eval(env)
	if err != nil {
		checkError(t, src, err)
	} else if err := plainValue(v); err != nil {
		t.Fatalf("%q: %v", src, err)
	}
	if s, err := c.EvalString(env); err == nil && len(s) > 8<<20 {
		t.Fatalf("%q: a text of %d bytes", src, len(s))
	}
	if _, err := c.Test(env); err != nil {
		checkError(t, src, err)
	}
}

func checkError(t interface{ Fatalf(string, ...any) }, src string, err error) {
	var e *expr.Error
	if !errors.As(err, &e) {
		t.Fatalf("%q: the error is a %T: %v", src, err, err)
		return
	}
	if e.Off < 0 || e.Off > e.End || e.End > len(src) || e.Text == "" {
		t.Fatalf("%q: span %d:%d of %q", src, e.Off, e.End, e.Text)
	}
}

func plainValue(v any) error {
	switch v := v.(type) {
	case nil, bool, int64, string:
		return nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return errors.New("a float that is not finite")
		}
		return nil
	case []any:
		for _, x := range v {
			if err := plainValue(x); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		for _, x := range v {
			if err := plainValue(x); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("a value of the type %T", v)
}

func TestEvaluationNeverPanics(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		env := &expr.Env{Host: host, Scope: expr.MapScope{
			"a": value().Draw(t, "a"), "b": []any{value().Draw(t, "b")}, "c": expr.NullState, "item": step{output: value().Draw(t, "item")},
		}}
		check(t, "{{ "+expression(t, 3)+" }}", env)
	})
}

func TestTextOfContainersIsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := []any{value().Draw(t, "v")}
		var back any
		d := json.NewDecoder(strings.NewReader(expr.Text(v)))
		d.UseNumber()
		if err := d.Decode(&back); err != nil {
			t.Fatalf("%s: %v", expr.Text(v), err)
		}
		got, err := evaluate("{{ v | tojson | from_json }}", &expr.Env{Scope: expr.MapScope{"v": v}})
		if err != nil {
			t.Fatal(err)
		}
		if !expr.Equal(v, got) {
			t.Fatalf("%s came back as %s", expr.Text(v), expr.Text(got))
		}
	})
}

// TestArithmeticIsExact checks integers against what does not overflow, or fails.
func TestArithmeticIsExact(t *testing.T) {
	c, err := expr.Compile("{{ (a // b) * b + a % b == a }}")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64().Draw(t, "a"), rapid.Int64().Draw(t, "b")
		v, err := c.Eval(&expr.Env{Scope: expr.MapScope{"a": a, "b": b}})
		switch {
		case b == 0 || b == -1 && a == math.MinInt64:
			if err == nil {
				t.Fatal("no error")
			}
		case err != nil && !strings.Contains(err.Error(), "64 bits"):
			t.Fatal(err)
		case err == nil && v != true:
			t.Fatalf("%d and %d", a, b)
		}
	})
}

func TestSlicesFollowTheirDefinition(t *testing.T) {
	c, err := expr.Compile("{{ l[a:b:s] }}")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 6).Draw(t, "n")
		a, b := rapid.IntRange(-9, 9).Draw(t, "a"), rapid.IntRange(-9, 9).Draw(t, "b")
		s := rapid.IntRange(1, 4).Draw(t, "s")
		list, want := []any{}, []any{}
		for i := range n {
			list = append(list, int64(i))
		}
		at := func(i int) int {
			if i < 0 {
				i += n
			}
			return max(0, min(i, n))
		}
		for i := at(a); i < at(b); i += s {
			want = append(want, int64(i))
		}
		got, err := c.Eval(&expr.Env{Scope: expr.MapScope{"l": list, "a": int64(a), "b": int64(b), "s": int64(s)}})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}
