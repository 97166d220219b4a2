package spec

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// Inputs checks submitted inputs against the plan and completes them: defaults
// are filled in and values converted by type. What may be left out and has no
// default is null. The error is a *pipeline.Diagnostics with code E0502, whose
// Path is the input's name and whose place is the input's declaration.
func Inputs(plan *pipeline.Plan, given map[string]any) (map[string]any, error) {
	out := make(map[string]any, len(plan.Inputs))
	var bad []pipeline.Diagnostic
	refuse := func(name string, at pipeline.Pos, hint, format string, args ...any) {
		bad = append(bad, pipeline.Diagnostic{
			Code: "E0502", Severity: pipeline.SeverityError, Message: fmt.Sprintf(format, args...), Hint: hint,
			File: plan.File, Line: max(at.Line, 1), Column: max(at.Column, 1), EndLine: max(at.Line, 1), EndColumn: max(at.Column, 1) + 1, Path: name,
		})
	}
	names := make([]string, 0, len(plan.Inputs))
	for i := range plan.Inputs {
		in := &plan.Inputs[i]
		names = append(names, in.Name)
		v, ok := given[in.Name]
		switch {
		case !ok && in.Required:
			hint := ""
			if in.Description != "" {
				hint = in.Description
			}
			refuse(in.Name, in.Pos, hint, "input %s is required: %s", in.Name, typeText(&in.Type))
		case !ok && plan.Inferred: // stays undefined, for default and is defined
		case !ok || v == nil && !in.Required:
			out[in.Name] = in.Default
		default:
			x, m := check(&in.Type, v)
			if m != nil {
				refuse(in.Name, in.Pos, m.Hint, "input %s %s", in.Name, m)
				continue
			}
			out[in.Name] = x
		}
	}
	unknown := make([]string, 0, len(given))
	for name := range given {
		if !slices.Contains(names, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		text := fmt.Sprintf("there is no input %q", name)
		hint := "the pipeline has no inputs"
		if len(names) > 0 {
			hint = "inputs are " + quoteList(names)
		}
		if s := expr.Suggest(name, names); s != "" {
			text += fmt.Sprintf(" (did you mean %q?)", s)
		}
		refuse(name, pipeline.Pos{}, hint, "%s", text)
	}
	if bad == nil {
		return out, nil
	}
	d := &pipeline.Diagnostics{List: bad}
	if len(bad) > maxDiagnostics {
		d.List, d.Truncated = bad[:maxDiagnostics], len(bad)-maxDiagnostics
	}
	return nil, d
}

// ParseInput reads an input given as text, as on the command line, by the
// input's type. Lists may be written as YAML or as items with commas; an input of
// any type is YAML, where what looks like a block mapping is still a text.
func ParseInput(in pipeline.Input, text string) (any, error) {
	v, err := parseText(&in.Type, text)
	if err != nil {
		return nil, &pipeline.Diagnostics{List: []pipeline.Diagnostic{{
			Code: "E0502", Severity: pipeline.SeverityError, Message: fmt.Sprintf("input %s: %v", in.Name, err), Path: in.Name,
			Line: max(in.Pos.Line, 1), Column: max(in.Pos.Column, 1), EndLine: max(in.Pos.Line, 1), EndColumn: max(in.Pos.Column, 1) + 1,
		}}}
	}
	return v, nil
}

func parseText(t *pipeline.Type, text string) (any, error) {
	trimmed := strings.TrimSpace(text)
	if t.Optional && (trimmed == "null" || trimmed == "") {
		return nil, nil
	}
	switch t.Kind {
	case "integer":
		i, err := strconv.ParseInt(trimmed, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", text)
		}
		return i, nil
	case "number":
		v := mustPlain(trimmed)
		switch v.(type) {
		case int64, float64:
			return v, nil
		}
		return nil, fmt.Errorf("%q is not a number", text)
	case "boolean":
		if b, ok := mustPlain(trimmed).(bool); ok {
			return b, nil
		}
		return nil, fmt.Errorf("%q is neither true nor false", text)
	case "enum":
		for _, v := range t.Values {
			if s, ok := v.(string); ok && s == text || !ok && string(pipeline.EncodeValue(v)) == trimmed {
				return v, nil
			}
		}
		return nil, fmt.Errorf("%q is not one of %s", text, valueList(t.Values))
	case "duration":
		if _, ok := Duration(trimmed); !ok {
			return nil, fmt.Errorf("%q is not a duration such as 90s or 1h30m", text)
		}
		return trimmed, nil
	case "list":
		return parseList(t, trimmed)
	case "map":
		v, err := readYAML(trimmed)
		if err != nil {
			return nil, err
		}
		if _, ok := v.(map[string]any); !ok {
			return nil, fmt.Errorf("%q is not a map, as in {a: 1}", text)
		}
		return v, nil
	case "any":
		if trimmed == "" {
			return text, nil
		}
		v, err := readYAML(text)
		structured := strings.IndexByte("{[", trimmed[0]) >= 0 || strings.Contains(trimmed, "\n")
		if err != nil {
			if structured {
				return nil, err
			}
			return text, nil
		}
		switch v.(type) {
		case map[string]any, []any:
			if !structured {
				return text, nil
			}
		}
		return v, nil
	}
	return text, nil
}

func parseList(t *pipeline.Type, text string) (any, error) {
	if text == "" {
		return []any{}, nil
	}
	if text[0] == '[' || text[0] == '-' && strings.HasPrefix(text, "- ") {
		v, err := readYAML(text)
		if err != nil {
			return nil, err
		}
		if _, ok := v.([]any); !ok {
			return nil, fmt.Errorf("%q is not a list", text)
		}
		return v, nil
	}
	item := pipeline.Type{Kind: "any"}
	if t.Items != nil {
		item = *t.Items
	}
	var vs []any
	for part := range strings.SplitSeq(text, ",") {
		v, err := parseText(&item, strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		vs = append(vs, v)
	}
	return vs, nil
}

// ReadInputs reads a file of inputs: a mapping in YAML or JSON. The error is a
// *pipeline.Diagnostics.
func ReadInputs(text []byte) (map[string]any, error) {
	return readMapping("inputs", text, "inputs are a mapping from names to values")
}

// readMapping reads a file of values; form says what it is to be.
func readMapping(file string, text []byte, form string) (map[string]any, error) {
	trimmed := bytes.TrimSpace(text)
	if len(trimmed) == 0 {
		return map[string]any{}, nil
	}
	if trimmed[0] == '{' { // JSON may be larger than what YAML is read of
		if v, err := pipeline.DecodeValue(trimmed); err == nil {
			if m, ok := v.(map[string]any); ok {
				return m, nil
			}
		}
	}
	c, n, err := readNode(file, string(text))
	if err != nil {
		return nil, err
	}
	if n.isNull() {
		return map[string]any{}, nil
	}
	if n.kind != mapping {
		c.error(fault{code: "E0103", at: n.at, msg: form + ", not " + n.what()}, where{})
		return nil, c.found.diagnostics()
	}
	m, _ := c.plain(n).(map[string]any)
	if c.found.errs > 0 {
		return nil, c.found.diagnostics()
	}
	return m, nil
}

func readNode(file, src string) (*compiler, *node, error) {
	t, bad := newText(file, src)
	c := newCompiler(t, newFindings(t), newCatalog(pipeline.Catalog{}), nil)
	if bad != nil {
		c.found.error(*bad)
		return c, nil, c.found.diagnostics()
	}
	n := loadData(t, c.found)
	if n == nil {
		return c, nil, c.found.diagnostics()
	}
	return c, n, nil
}

// readYAML reads one value.
func readYAML(src string) (any, error) {
	c, n, err := readNode("", src)
	if err != nil {
		var d *pipeline.Diagnostics
		if errors.As(err, &d) && len(d.List) > 0 {
			return nil, errors.New(d.List[0].Message)
		}
		return nil, err
	}
	v := c.plain(n)
	if c.found.errs > 0 {
		return nil, errors.New(c.found.list[0].Message)
	}
	return v, nil
}

// plain is the value of a node in which nothing is rendered.
func (c *compiler) plain(n *node) any {
	switch n.kind {
	case list:
		vs := make([]any, len(n.items))
		for i := range n.items {
			vs[i] = c.plain(n.items[i])
		}
		return vs
	case mapping:
		m := make(map[string]any, len(n.pairs))
		for i := range n.pairs {
			m[n.pairs[i].name] = c.plain(n.pairs[i].value)
		}
		return m
	}
	v, bad := n.value()
	if bad != nil {
		c.error(*bad, where{})
	}
	return v
}
