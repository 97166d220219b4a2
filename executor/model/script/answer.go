package script

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// names are what the templates of a rule may use.
var names = []string{"action", "agent", "model", "param", "phase", "prompt", "step", "system", "tool_results", "turn"}

// answer is what the rule says to the request, or its error once the delay is over.
func (p *Provider) answer(ctx context.Context, u *rule, r *model.Request) (model.Stream, error) {
	if u.fail != nil {
		if err := pause(ctx, u.delay); err != nil {
			return nil, err
		}
		own := *u.fail
		return nil, &own
	}
	a := &model.Response{Model: Model, Usage: u.usage, Stop: model.StopEnd, Rule: u.id, Message: model.Message{Role: model.Assistant}}
	if err := p.compose(a, u, r); err != nil {
		return nil, err
	}
	return &stream{ctx: ctx, delay: u.delay, pieces: pieces(a, max(u.chunks, 1)), answer: a}, nil
}

// compose fills in the answer.
func (p *Provider) compose(a *model.Response, u *rule, r *model.Request) error {
	scope := expr.MapScope{
		"prompt": r.LastUser(), "system": r.System, "step": string(r.Step), "action": r.Action, "model": r.Model,
		"param": r.Param, "agent": r.Agent, "turn": int64(r.Turn), "phase": string(phaseOf(r)),
	}
	if u.results {
		scope["tool_results"] = results(r)
	}
	env := &expr.Env{Scope: scope}
	say := func(kind, text string) {
		a.Message.Blocks = append(a.Message.Blocks, model.Block{Kind: kind, Text: text})
	}
	if u.reasoning != nil {
		text, err := u.reasoning.EvalString(env)
		if err != nil {
			return p.fault(u, "its reasoning: %v", err)
		}
		say(model.BlockReasoning, text)
	}
	switch {
	case u.filler:
		if r.Schema == nil {
			return p.fault(u, "it generates from a schema, and this request has none; answer it with text")
		}
		s, err := model.Compile(r.Schema)
		if err != nil {
			return err
		}
		if a.Value, err = fill(s, r.Schema, u.seed); err != nil {
			return p.fault(u, "%v", err)
		}
		say(model.BlockText, string(pipeline.EncodeValue(a.Value)))
	case u.json != nil:
		say(model.BlockText, string(u.json))
		if r.Schema != nil {
			var err error
			if a.Value, err = pipeline.DecodeValue(u.json); err != nil {
				return p.fault(u, "its json: %v", err)
			}
		}
	case u.text != nil:
		text, err := u.text.EvalString(env)
		if err != nil {
			return p.fault(u, "its text: %v", err)
		}
		say(model.BlockText, text)
		if r.Schema != nil && u.calls == nil {
			s, err := model.Compile(r.Schema)
			if err != nil {
				return err
			}
			a.Value = s.Coerce(text)
		}
	}
	return p.call(a, u, r, env)
}

// call adds the tools that the rule calls.
func (p *Provider) call(a *model.Response, u *rule, r *model.Request, env *expr.Env) error {
	if len(u.calls) == 0 {
		return nil
	}
	a.Stop = model.StopTools
	before := 0
	for i := range r.Messages {
		before += len(r.Messages[i].Calls())
	}
	for i := range u.calls {
		c := &u.calls[i]
		use := &model.ToolUse{ID: c.id, Name: c.name}
		if use.ID == "" {
			use.ID = "call_" + strconv.Itoa(before+i+1)
		}
		if c.text != nil {
			use.Arguments = *c.text
		} else {
			v, err := rendered(c.arguments, env)
			if err != nil {
				return p.fault(u, "the arguments of %s: %v", c.name, err)
			}
			use.Arguments = string(pipeline.EncodeValue(v))
		}
		a.Message.Blocks = append(a.Message.Blocks, model.Block{Kind: model.BlockToolUse, ToolUse: use})
	}
	return nil
}

// rendered is a value with its templates evaluated.
func rendered(v any, env *expr.Env) (any, error) {
	switch v := v.(type) {
	case *expr.Template:
		return v.Eval(env)
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			var err error
			if list[i], err = rendered(e, env); err != nil {
				return nil, err
			}
		}
		return list, nil
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range maps.All(v) {
			var err error
			if m[k], err = rendered(e, env); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
	return v, nil
}

// fault tells of a rule that fits but cannot answer.
func (p *Provider) fault(u *rule, format string, args ...any) *pipeline.Failure {
	return pipeline.Failuref(pipeline.CategoryModel, "%s:%d: the rule: %s", p.file, u.line, fmt.Sprintf(format, args...))
}

// results are the newest results of the conversation by the tool's name.
func results(r *model.Request) map[string]any {
	m := map[string]any{}
	each(r, func(name string, t *model.ToolResult) bool {
		if _, newer := m[name]; !newer {
			m[name] = value(t)
		}
		return true
	})
	return m
}

// newestResult is the last one of all; an empty name: there is none.
func newestResult(r *model.Request) (name, text string) {
	each(r, func(n string, t *model.ToolResult) bool {
		name, text = n, content(t)
		return false
	})
	return name, text
}

// each shows the results of the conversation, newest first, until do returns false.
func each(r *model.Request, do func(name string, t *model.ToolResult) bool) {
	for _, m := range slices.Backward(r.Messages) {
		for _, b := range slices.Backward(m.Blocks) {
			if t := b.ToolResult; t != nil && !do(t.Name, t) {
				return
			}
		}
	}
}

func content(t *model.ToolResult) string {
	return model.Message{Blocks: t.Content}.Text()
}

// value is a result as JSON, where it is JSON.
func value(t *model.ToolResult) any {
	text := content(t)
	if v, err := pipeline.DecodeValue([]byte(text)); err == nil {
		return v
	}
	return text
}

// resultTest is the condition tool_result.
type resultTest struct {
	name   string   // of the tool; empty: the newest result of all
	path   []string // into the result; empty: all of it
	equals any
	any    bool // it is enough that there is something
}

func (t *resultTest) holds(r *model.Request) bool {
	ok := false
	each(r, func(name string, res *model.ToolResult) bool {
		if t.name != "" && t.name != name {
			return true
		}
		v, found := at(value(res), t.path)
		if ok = found && (t.any || bytes.Equal(pipeline.EncodeValue(v), pipeline.EncodeValue(t.equals))); !ok && found && len(t.path) == 0 {
			text, isText := t.equals.(string)
			ok = isText && text == content(res)
		}
		return false
	})
	return ok
}

func (t *resultTest) String() string {
	var b strings.Builder
	b.WriteString("the newest tool result")
	if t.name != "" {
		b.WriteString(" of " + t.name)
	}
	if len(t.path) > 0 {
		b.WriteString(" has at " + strings.Join(t.path, "."))
		if t.any {
			b.WriteString(" a value")
		}
	}
	if !t.any {
		if len(t.path) == 0 {
			b.WriteString(" is")
		}
		b.WriteString(" " + string(pipeline.EncodeValue(t.equals)))
	} else if len(t.path) == 0 {
		b.WriteString(" is there")
	}
	return b.String()
}

// at follows a path of keys and indexes.
func at(v any, path []string) (any, bool) {
	for _, key := range path {
		switch c := v.(type) {
		case map[string]any:
			e, ok := c[key]
			if !ok {
				return nil, false
			}
			v = e
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(c) {
				return nil, false
			}
			v = c[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// stream hands an answer out in pieces.
type stream struct {
	ctx    context.Context //nolint:containedctx // the stream ends with it
	delay  time.Duration
	pieces []model.Piece
	answer *model.Response
	waited bool
}

// Next gives the next piece after the rule's delay.
func (s *stream) Next() (model.Piece, error) {
	if len(s.pieces) == 0 {
		if !s.waited { // an empty answer takes its time too
			s.waited = true
			if err := pause(s.ctx, s.delay); err != nil {
				return model.Piece{}, err
			}
		}
		return model.Piece{}, io.EOF
	}
	if err := pause(s.ctx, s.delay); err != nil {
		return model.Piece{}, err
	}
	p := s.pieces[0]
	s.pieces, s.waited = s.pieces[1:], true
	return p, nil
}

func (s *stream) Response() *model.Response { return s.answer }
func (s *stream) Close() error              { return nil }

// pieces cuts each block of an answer into n.
func pieces(a *model.Response, n int) []model.Piece {
	list := make([]model.Piece, 0, n*len(a.Message.Blocks))
	for i := range a.Message.Blocks {
		b := &a.Message.Blocks[i]
		p := model.Piece{Kind: b.Kind, Text: b.Text}
		if b.ToolUse != nil {
			p = model.Piece{Kind: "tool", Name: b.ToolUse.Name, Text: b.ToolUse.Arguments}
		}
		rest := p.Text
		for left := n; left > 1 && rest != ""; left-- {
			cut := (len(rest) + left - 1) / left
			for cut < len(rest) && !utf8.RuneStart(rest[cut]) {
				cut++
			}
			p.Text, rest = rest[:cut], rest[cut:]
			list = append(list, p)
		}
		if p.Text = rest; rest != "" || p.Kind == "tool" && b.ToolUse.Arguments == "" {
			list = append(list, p)
		}
	}
	return list
}

// pause waits, but no longer than the context.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the scripted answer: %w", context.Cause(ctx))
	}
}
