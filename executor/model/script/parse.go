package script

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// Parse reads a script. file is its name in messages. The error is a
// *pipeline.Diagnostics with every fault and its place.
func Parse(file string, source []byte) (*Provider, error) {
	p := &parser{file: file, lines: strings.Split(string(source), "\n")}
	rules := p.document(string(source))
	if len(p.found.List) > 0 {
		return nil, &p.found
	}
	return &Provider{file: file, rules: rules}, nil
}

type parser struct {
	file  string
	lines []string
	found pipeline.Diagnostics
}

// maxFaults is how many faults are told; the rest is counted.
const maxFaults = 50

func (p *parser) fault(line, column int, code, hint, format string, args ...any) {
	if len(p.found.List) == maxFaults {
		p.found.Truncated++
		return
	}
	line, column = max(line, 1), max(column, 1)
	d := pipeline.Diagnostic{
		Code: code, Severity: pipeline.SeverityError, Message: fmt.Sprintf(format, args...), Hint: hint,
		File: p.file, Line: line, Column: column, EndLine: line, EndColumn: column + 1,
	}
	if line <= len(p.lines) {
		d.Excerpt = strings.TrimRight(p.lines[line-1], "\r")
	}
	p.found.List = append(p.found.List, d)
}

func (p *parser) at(n *yaml.Node, code, hint, format string, args ...any) {
	p.fault(n.Line, n.Column, code, hint, format, args...)
}

func (p *parser) document(source string) []rule {
	l, err := yaml.NewLoader(strings.NewReader(source))
	var doc, second yaml.Node
	if err == nil {
		err = l.Load(&doc)
	}
	var le *yaml.LoadError
	switch {
	case errors.Is(err, io.EOF):
		p.fault(1, 1, "E0103", "", "the script is empty")
		return nil
	case errors.As(err, &le):
		p.fault(le.Mark.Line, le.Mark.Column, "E0101", "", "%s", le.Message)
		return nil
	case err != nil:
		p.fault(1, 1, "E0101", "", "%v", err)
		return nil
	case doc.Kind != yaml.DocumentNode || len(doc.Content) == 0:
		p.fault(1, 1, "E0103", "", "the script is empty")
		return nil
	}
	if err := l.Load(&second); !errors.Is(err, io.EOF) {
		p.fault(second.Line, second.Column, "E0103", "", "a script is one document")
		return nil
	}
	var rules []rule
	some := false
	p.mapping(doc.Content[0], "a script", map[string]func(*yaml.Node){
		"rules": func(n *yaml.Node) {
			some = true
			if n.Kind != yaml.SequenceNode {
				p.at(n, "E0104", "", "rules is a list")
				return
			}
			for _, item := range n.Content {
				rules = append(rules, p.rule(item))
			}
		},
	})
	if !some && len(p.found.List) == 0 {
		p.at(doc.Content[0], "E0111", "", "a script has a list of rules")
	}
	return rules
}

// mapping hands each value to the reader of its key.
func (p *parser) mapping(n *yaml.Node, what string, keys map[string]func(*yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		p.at(n, "E0104", "", "%s is a map", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		read := keys[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || read == nil:
			var known []string
			for k := range keys {
				known = append(known, k)
			}
			slices.Sort(known)
			hint := "known are " + strings.Join(known, ", ")
			if s := expr.Suggest(key.Value, known); s != "" {
				hint = fmt.Sprintf("did you mean %q?", s)
			}
			p.at(key, "E0110", hint, "%s has no key %q", what, key.Value)
		case seen[key.Value]:
			p.at(key, "E0102", "", "the key %q stands here twice", key.Value)
		default:
			seen[key.Value] = true
			read(value)
		}
	}
}

func (p *parser) rule(n *yaml.Node) rule {
	u := rule{line: n.Line, id: fmt.Sprintf("%s:%d", p.file, n.Line)}
	answers := 0
	p.mapping(n, "a rule", map[string]func(*yaml.Node){
		"when": func(n *yaml.Node) { u.when = p.when(n) },
		"text": func(n *yaml.Node) { u.text = p.template(n, &u.results); answers++ },
		"json": func(n *yaml.Node) { u.json = pipeline.EncodeValue(p.value(n, 0)); answers++ },
		"error": func(n *yaml.Node) {
			u.fail = p.failure(n)
			answers++
		},
		"tool_calls": func(n *yaml.Node) { u.calls = p.calls(n, &u.results) },
		"reasoning":  func(n *yaml.Node) { u.reasoning = p.template(n, &u.results) },
		"generate": func(n *yaml.Node) {
			u.filler = true
			answers++
			p.mapping(n, "generate", map[string]func(*yaml.Node){
				"seed": func(n *yaml.Node) { u.seed = p.integer(n, math.MinInt64, math.MaxInt64) },
			})
		},
		"usage":  func(n *yaml.Node) { u.usage = p.usage(n) },
		"delay":  func(n *yaml.Node) { u.delay = p.duration(n) },
		"chunks": func(n *yaml.Node) { u.chunks = int(p.integer(n, 1, maxChunks)) },
		"times":  func(n *yaml.Node) { u.times = int(p.integer(n, 1, math.MaxInt32)) },
	})
	if u.calls != nil && (answers == 0 || answers == 1 && u.text != nil) {
		answers = 1 // a text may stand beside them
	} else if u.calls != nil {
		answers++
	}
	if answers != 1 && n.Kind == yaml.MappingNode {
		p.at(n, "E0112", "a text may stand beside tool_calls",
			"a rule has one of text, json, generate, tool_calls and error; this one has %d", answers)
	}
	if u.fail != nil {
		u.fail.Rule = u.id
	}
	return u
}

const (
	maxChunks = 10_000
	maxCalls  = 1_000
)

// calls reads tool_calls. The texts in their arguments are templates.
func (p *parser) calls(n *yaml.Node, results *bool) []toolCall {
	list := []toolCall{}
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 || len(n.Content) > maxCalls {
		p.at(n, "E0104", "", "tool_calls is a list of 1 to %d calls", maxCalls)
		return list
	}
	for _, item := range n.Content {
		c := toolCall{arguments: map[string]any{}}
		given := 0
		p.mapping(item, "a call", map[string]func(*yaml.Node){
			"name": func(n *yaml.Node) { c.name = p.text(n) },
			"id":   func(n *yaml.Node) { c.id = p.text(n) },
			"arguments": func(n *yaml.Node) {
				given++
				c.arguments = p.templates(n, p.value(n, 0), results)
			},
			"arguments_text": func(n *yaml.Node) {
				given++
				t := p.text(n)
				c.text = &t
			},
		})
		switch {
		case item.Kind == yaml.MappingNode && c.name == "":
			p.at(item, "E0111", "", "a call has the name of a tool")
		case given > 1:
			p.at(item, "E0112", "", "a call has arguments or arguments_text, not both")
		}
		list = append(list, c)
	}
	return list
}

// templates compiles the texts within a value that are templates.
func (p *parser) templates(n *yaml.Node, v any, results *bool) any {
	switch v := v.(type) {
	case string:
		if strings.Contains(v, "{{") || strings.Contains(v, "{%") {
			if t := p.compile(n, v, results); t != nil {
				return t
			}
		}
	case []any:
		for i := range v {
			v[i] = p.templates(n.Content[i], v[i], results)
		}
	case map[string]any:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			v[key] = p.templates(n.Content[i+1], v[key], results)
		}
	}
	return v
}

func (p *parser) toolResult(n *yaml.Node) *resultTest {
	t := &resultTest{any: true}
	p.mapping(n, "tool_result", map[string]func(*yaml.Node){
		"name": func(n *yaml.Node) { t.name = p.text(n) },
		"path": func(n *yaml.Node) { t.path = strings.Split(p.text(n), ".") },
		"equals": func(n *yaml.Node) {
			t.any, t.equals = false, p.value(n, 0)
		},
	})
	return t
}

func (p *parser) when(n *yaml.Node) []test {
	var tests []test
	equals := func(key string) func(*yaml.Node) {
		return func(n *yaml.Node) { tests = append(tests, test{key: key, how: "equals", want: p.text(n)}) }
	}
	p.mapping(n, "when", map[string]func(*yaml.Node){
		"step": equals("step"), "action": equals("action"), "model": equals("model"),
		"param": equals("param"), "agent": equals("agent"),
		"turn": func(n *yaml.Node) {
			tests = append(tests, test{key: "turn", how: "equals", want: strconv.FormatInt(p.integer(n, 0, math.MaxInt32), 10)})
		},
		"schema": func(n *yaml.Node) {
			if n.Kind != yaml.ScalarNode || (n.Value != "true" && n.Value != "false") {
				p.at(n, "E0104", "", "schema is true or false")
			}
			tests = append(tests, test{key: "schema", how: "equals", want: n.Value})
		},
		"phase": func(n *yaml.Node) {
			if n.Kind != yaml.ScalarNode || !slices.Contains(model.Phases, model.Phase(n.Value)) {
				p.at(n, "E0104", "phases are schema, answer, repair, turn, judge, compact", "there is no phase %q", n.Value)
			}
			tests = append(tests, test{key: "phase", how: "equals", want: n.Value})
		},
		"tool_result": func(n *yaml.Node) { tests = append(tests, test{key: "tool_result", result: p.toolResult(n)}) },
		"last_user": func(n *yaml.Node) {
			how := func(name string) func(*yaml.Node) {
				return func(n *yaml.Node) {
					t := test{key: "last_user", how: name, want: p.text(n)}
					if name == "matches" {
						var err error
						if t.pattern, err = regexp.Compile(t.want); err != nil {
							p.at(n, "E0104", "the syntax is RE2's", "%q is not a regular expression: %v", t.want, err)
						}
					}
					tests = append(tests, t)
				}
			}
			p.mapping(n, "last_user", map[string]func(*yaml.Node){
				"equals": how("equals"), "contains": how("contains"), "matches": how("matches"),
			})
		},
	})
	return tests
}

func (p *parser) template(n *yaml.Node, results *bool) *expr.Template {
	return p.compile(n, p.text(n), results)
}

// compile reads a template; results becomes true where it uses tool_results.
func (p *parser) compile(n *yaml.Node, text string, results *bool) *expr.Template {
	t, err := expr.Compile(text)
	if err != nil {
		var e *expr.Error
		code := "E0205"
		if errors.As(err, &e) && e.Code != "" {
			code = e.Code
		}
		p.at(n, code, "", "the text is not a template: %v", err)
		return nil
	}
	for _, r := range t.Refs() {
		*results = *results || r.Root == "tool_results"
		if !slices.Contains(names, r.Root) {
			p.at(n, "E0201", "a rule's text knows "+strings.Join(names, ", "), "the text uses the unknown name %q", r.Root)
		}
	}
	if t.Impure() {
		p.at(n, "E0206", "", "the text of a rule can use neither files nor the clock")
	}
	return t
}

// classes are what error.class may say.
var classes = []string{
	model.ClassRateLimit, model.ClassOverloaded, model.ClassServer, model.ClassNetwork, model.ClassTimeout, model.ClassMalformed,
	model.ClassAuth, model.ClassInvalid, model.ClassFiltered, model.ClassContextLength, model.ClassQuota,
}

func (p *parser) failure(n *yaml.Node) *model.Error {
	e := &model.Error{}
	p.mapping(n, "error", map[string]func(*yaml.Node){
		"status":      func(n *yaml.Node) { e.Status = int(p.integer(n, 400, 599)) },
		"message":     func(n *yaml.Node) { e.Message = p.text(n) },
		"retry_after": func(n *yaml.Node) { e.RetryAfter = p.duration(n) },
		"class": func(n *yaml.Node) {
			if e.Class = p.text(n); !slices.Contains(classes, e.Class) {
				p.at(n, "E0104", "classes are "+strings.Join(classes, ", "), "there is no class %q", e.Class)
			}
		},
	})
	if e.Class == "" {
		e.Class = classOf(e.Status)
	}
	if e.Message == "" {
		e.Message = "the script answers with an error"
	}
	if e.Status != 0 {
		e.Message = fmt.Sprintf("%s (status %d)", e.Message, e.Status)
	}
	return e
}

// classOf is what a status of HTTP means; 0 is a server's fault too.
func classOf(status int) string {
	switch status {
	case http.StatusTooManyRequests:
		return model.ClassRateLimit
	case http.StatusServiceUnavailable, 529:
		return model.ClassOverloaded
	case http.StatusUnauthorized, http.StatusForbidden:
		return model.ClassAuth
	case http.StatusPaymentRequired:
		return model.ClassQuota
	case 0, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly:
		return model.ClassServer
	}
	if status >= 500 {
		return model.ClassServer
	}
	return model.ClassInvalid
}

func (p *parser) usage(n *yaml.Node) *pipeline.Usage {
	u := &pipeline.Usage{}
	p.mapping(n, "usage", map[string]func(*yaml.Node){
		"input_tokens":  func(n *yaml.Node) { u.InputTokens = p.tokens(n) },
		"output_tokens": func(n *yaml.Node) { u.OutputTokens = p.tokens(n) },
		"cost_usd": func(n *yaml.Node) {
			f, err := strconv.ParseFloat(n.Value, 64)
			if n.Kind != yaml.ScalarNode || err != nil || !(f >= 0 && f <= 1e6) {
				p.at(n, "E0104", "", "cost_usd is an amount in dollars")
			}
			u.CostUSD = f
		},
	})
	return u
}

// text reads a scalar as it is spelled, quoted or not.
func (p *parser) text(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		p.at(n, "E0104", "", "a text is needed here")
		return ""
	}
	return n.Value
}

func (p *parser) integer(n *yaml.Node, low, high int64) int64 {
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || err != nil || i < low || i > high {
		p.at(n, "E0104", "", "a whole number from %d to %d is needed here", low, high)
		return 0
	}
	return i
}

func (p *parser) tokens(n *yaml.Node) int32 {
	return int32(p.integer(n, 0, math.MaxInt32)) //nolint:gosec // integer keeps it in range
}

// duration reads a number of seconds, or 50ms, 5m, 1h30m.
func (p *parser) duration(n *yaml.Node) time.Duration {
	const most = 24 * time.Hour
	d, ok := spec.Duration(n.Value)
	if n.Kind != yaml.ScalarNode || !ok || d > most {
		p.at(n, "E0104", "", "a duration of at most a day is needed here: a number of seconds, or 50ms, 5m, 1h30m")
		return 0
	}
	return d
}

const maxDepth = 64

// value reads a node as a JSON value, its plain scalars by YAML 1.2's core.
func (p *parser) value(n *yaml.Node, depth int) any {
	switch {
	case depth > maxDepth:
		p.at(n, "E0103", "", "nested deeper than %d", maxDepth)
	case n.Kind == yaml.ScalarNode:
		return scalar(n)
	case n.Kind == yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, e := range n.Content {
			list[i] = p.value(e, depth+1)
		}
		return list
	case n.Kind == yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if _, twice := m[key.Value]; twice {
				p.at(key, "E0102", "", "the key %q stands here twice", key.Value)
			}
			m[p.text(key)] = p.value(n.Content[i+1], depth+1)
		}
		return m
	default:
		p.at(n, "E0103", "", "anchors and aliases have no place in a script")
	}
	return nil
}

func scalar(n *yaml.Node) any {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if n.Style&quoted != 0 {
		return n.Value
	}
	switch strings.ToLower(n.Value) {
	case "", "~", "null":
		return nil
	case "true":
		return true
	case "false":
		return false
	}
	if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
		return i
	}
	if f, err := strconv.ParseFloat(n.Value, 64); err == nil && strings.Trim(n.Value, "0123456789+-.eE") == "" {
		return f
	}
	return n.Value
}
