package step

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const filterDoc = `Keeps the rows of a table for which conditions hold.

    - id: hot
      action: filter
      parameters:
        data: "{{ weather.data }}"
        where:
          - {column: tmax, op: ">=", value: 30}
          - {column: station, op: in, value: [north, south]}

where is a list of conditions, or a map of columns and the values they must have: {station: north}. Operators: == != < <= > >= (or eq ne lt le gt ge), in, not_in, contains (a text or list that holds value), starts_with, ends_with, matches (a regular expression, RE2, anywhere in the text), is_null, not_null.

A null or missing value fits only != , not_in and is_null. A column that no row has, and an order between values of different kinds, fail the step: a typing error must not look like an empty result.`

// Filter is a table with conditions on its rows.
type Filter struct {
	Data  []any  `param:"required" doc:"the rows, a list of maps"`
	Where any    `param:"required" doc:"a list of {column, op, value}, or a map {column: value}"`
	Match string `default:"\"all\"" enum:"all,any" doc:"whether all conditions must hold, or any"`
}

type filterResult struct {
	Data    []any `doc:"the rows that were kept, in their order"`
	Rows    int64 `doc:"how many were kept"`
	Dropped int64 `doc:"how many were not"`
}

func filterAction() executor.Action {
	return executor.NewAction[Filter](executor.Describe{
		Tool: "data", Name: "filter", Bare: true, Doc: filterDoc, Effect: pipeline.EffectPure, Returns: filterResult{},
	})
}

// condition is one test of a row.
type condition struct {
	column, op string
	value      any
	pattern    *regexp.Regexp // of matches
}

var opNames = map[string]string{"eq": "==", "=": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

var ops = []string{
	"==", "!=", "<", "<=", ">", ">=", "in", "not_in", "contains", "starts_with", "ends_with", "matches", "is_null", "not_null",
}

// Run tests every row.
func (f Filter) Run(_ context.Context, _ executor.Env) (executor.Output, error) {
	rows, err := table("data", f.Data)
	if err != nil {
		return executor.Output{}, err
	}
	conditions, err := f.conditions()
	if err != nil {
		return executor.Output{}, err
	}
	for _, c := range conditions {
		if err := knownColumn(rows, c.column); err != nil {
			return executor.Output{}, err
		}
	}
	kept := []any{}
	for i, row := range rows {
		keep := f.Match != "any"
		for _, c := range conditions {
			ok, err := c.holds(row[c.column])
			if err != nil {
				return executor.Output{}, invalid("row %d, column %s: %v", i, c.column, err)
			}
			if f.Match == "any" {
				keep = keep || ok
			} else {
				keep = keep && ok
			}
		}
		if keep {
			kept = append(kept, f.Data[i])
		}
	}
	return executor.Output{Value: map[string]any{
		"data": kept, "rows": int64(len(kept)), "dropped": int64(len(rows) - len(kept)),
	}}, nil
}

func (f Filter) conditions() ([]condition, error) {
	var list []condition
	switch w := f.Where.(type) {
	case map[string]any:
		for column, v := range w {
			c := condition{column: column, op: "==", value: v}
			if _, ok := v.([]any); ok {
				c.op = "in"
			}
			list = append(list, c)
		}
		slices.SortFunc(list, func(a, b condition) int { return strings.Compare(a.column, b.column) })
	case []any:
		for i, e := range w {
			m, ok := e.(map[string]any)
			if !ok {
				return nil, invalid("where[%d] is %s; a condition is a map {column, op, value}", i, kindOf(e))
			}
			c, err := readCondition(fmt.Sprintf("where[%d]", i), m)
			if err != nil {
				return nil, err
			}
			list = append(list, c)
		}
	default:
		return nil, invalid("parameter where is a list of conditions or a map of columns, not %s", kindOf(f.Where))
	}
	if len(list) == 0 {
		return nil, invalid("parameter where holds no condition")
	}
	return list, nil
}

func readCondition(place string, m map[string]any) (condition, error) {
	c := condition{op: "=="}
	for k, v := range m {
		ok := true
		switch k {
		case "column":
			c.column, ok = v.(string)
		case "op":
			c.op, ok = v.(string)
		case "value":
			c.value = v
		default:
			return c, invalid("%s has a key %q; a condition has column, op and value", place, k)
		}
		if !ok {
			return c, invalid("%s.%s must be a text", place, k)
		}
	}
	if c.column == "" {
		return c, invalid("%s names no column", place)
	}
	if name, ok := opNames[c.op]; ok {
		c.op = name
	}
	if !slices.Contains(ops, c.op) {
		return c, invalid("%s.op is %q; it can be %s", place, c.op, strings.Join(ops, " "))
	}
	_, isList := c.value.([]any)
	text, isText := c.value.(string)
	switch c.op {
	case "in", "not_in":
		if !isList {
			return c, invalid("%s: %s needs a list as its value, not %s", place, c.op, kindOf(c.value))
		}
	case "starts_with", "ends_with", "matches":
		if !isText {
			return c, invalid("%s: %s needs a text as its value, not %s", place, c.op, kindOf(c.value))
		}
	case "<", "<=", ">", ">=":
		if _, ok := compare(c.value, c.value); !ok {
			return c, invalid("%s: %s needs a number or a text as its value, not %s", place, c.op, kindOf(c.value))
		}
	}
	if c.op == "matches" {
		var err error
		if c.pattern, err = regexp.Compile(text); err != nil {
			return c, invalid("%s.value is not a regular expression: %v", place, err)
		}
	}
	return c, nil
}

// holds tests one value. The error says why it cannot.
func (c condition) holds(v any) (bool, error) {
	switch c.op {
	case "is_null":
		return v == nil, nil
	case "not_null":
		return v != nil, nil
	case "==":
		return identity(v) == identity(c.value), nil
	case "!=":
		return identity(v) != identity(c.value), nil
	case "in", "not_in":
		list, _ := c.value.([]any)
		id := identity(v)
		found := slices.ContainsFunc(list, func(e any) bool { return identity(e) == id })
		return found == (c.op == "in"), nil
	}
	if v == nil {
		return false, nil
	}
	text, isText := v.(string)
	want, _ := c.value.(string)
	switch c.op {
	case "contains":
		if list, ok := v.([]any); ok {
			id := identity(c.value)
			return slices.ContainsFunc(list, func(e any) bool { return identity(e) == id }), nil
		}
		if _, ok := c.value.(string); !ok || !isText {
			return false, fmt.Errorf("contains looks for a text in a text or for a value in a list, not for %s in %s", kindOf(c.value), kindOf(v))
		}
		return strings.Contains(text, want), nil
	case "starts_with", "ends_with", "matches":
		if !isText {
			return false, fmt.Errorf("%s needs a text, not %s", c.op, kindOf(v))
		}
		switch c.op {
		case "starts_with":
			return strings.HasPrefix(text, want), nil
		case "ends_with":
			return strings.HasSuffix(text, want), nil
		}
		return c.pattern.MatchString(text), nil
	}
	order, ok := compare(v, c.value)
	if !ok {
		return false, fmt.Errorf("%s and %s have no order", kindOf(v), kindOf(c.value))
	}
	switch c.op {
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">":
		return order > 0, nil
	}
	return order >= 0, nil
}
