package mcp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.opentelemetry.io/otel/propagation"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// metaKey is the key in _meta under which servers find what is equal over all
// attempts of a call.
const metaKey = "idempotency_key"

// Reasons of failures of calls.
const (
	reasonLost   = "mcp_connection_lost" // whether the call had its effect is not known
	reasonSilent = "mcp_silent"
	reasonResult = "mcp_invalid_result"
)

// running is a call on its way.
type running struct {
	token string
	env   executor.Env
	call  tool.Call
	model string // whom the server's questions to a model go to

	ctx    context.Context //nolint:containedctx // of the call; what the server asks meanwhile ends with it
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	silence *time.Timer
	bound   time.Duration
	asking  int
	asked   int32
}

// begin notes a call. It must be ended.
func (s *session) begin(ctx context.Context, set *Set, env executor.Env, c tool.Call) *running {
	r := &running{env: env, call: c, model: set.model, bound: s.pool.cfg.Silence}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.silence = time.AfterFunc(r.bound, func() {
		r.cancel(failure(reasonSilent, "the MCP server %s has given no sign for %s; the call is given up", s.server.Name, r.bound))
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens++
	r.token = strconv.FormatInt(s.tokens, 10)
	s.calls[r.token] = r
	s.order = append(s.order, r)
	return r
}

func (s *session) finish(r *running) {
	r.silence.Stop()
	r.cancel(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, r.token)
	s.order = slices.DeleteFunc(s.order, func(x *running) bool { return x == r })
}

// sign notes that the server is alive.
func (r *running) sign() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asking == 0 && r.ctx.Err() == nil {
		r.silence.Reset(r.bound)
	}
}

// while does something that the server waits for, and tells how often there was
// such a thing before.
func (r *running) while() (nth int32, done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asking++
	r.asked++
	r.silence.Stop()
	return r.asked, func() {
		r.mu.Lock()
		r.asking--
		r.mu.Unlock()
		r.sign()
	}
}

type callKey struct{}

func failure(reason, format string, args ...any) *pipeline.Failure {
	f := pipeline.Failuref(pipeline.CategoryTool, format, args...)
	f.Reason = reason
	return f
}

// tool is a listed tool as one that can be called.
func (s *Set) tool(m member, l *listed, name string) tool.ServerTool {
	t := tool.ServerTool{Server: m.server.Name, Remote: l.remote}
	t.Name, t.Description, t.Schema, t.Effect = name, l.description, l.schema, l.effect
	t.Run = func(ctx context.Context, env executor.Env, c tool.Call) (tool.Result, error) {
		r, _, err := s.run(ctx, m, l, env, c)
		return r, err
	}
	return t
}

// run calls a tool. value is the result as a step gives it.
func (s *Set) run(ctx context.Context, m member, l *listed, env executor.Env, c tool.Call) (r tool.Result, value any, err error) {
	if l.resources {
		return m.session.resource(ctx, s, env, c)
	}
	got, err := m.session.call(ctx, s, env, c, l)
	if err == nil {
		if r, err = content(got); err == nil {
			value, err = output(got)
		}
	}
	if err == nil {
		m.session.server.sent.hide(&r)
		value = m.session.server.sent.hidden(value)
	}
	if err != nil {
		return tool.Result{}, nil, err
	}
	return r, value, nil
}

// said is the text of a result.
func said(r tool.Result) string {
	var texts []string
	for i := range r.Content {
		if r.Content[i].Text != "" {
			texts = append(texts, r.Content[i].Text)
		}
	}
	return strings.Join(texts, "\n")
}

// call calls a tool. A call that was lost with its connection is made again where
// that can do no harm. The error is a *pipeline.Failure of category tool, the
// context's, or one that ends the step.
func (s *session) call(ctx context.Context, set *Set, env executor.Env, c tool.Call, l *listed) (*sdk.CallToolResult, error) {
	var result *sdk.CallToolResult
	err := s.do(ctx, set, env, c, l.effect, func(ctx context.Context, client *sdk.ClientSession, r *running) (err error) {
		args := c.Arguments
		if args == nil {
			args = map[string]any{}
		}
		params := &sdk.CallToolParams{Meta: meta(ctx, c), Name: l.remote, Arguments: args}
		params.SetProgressToken(r.token)
		result, err = client.CallTool(ctx, params)
		return err
	})
	if err != nil {
		return nil, err
	}
	if why := l.violated(result); why != "" {
		return nil, failure(reasonResult, "the tool %s of the MCP server %s has broken its own word: %s", l.remote, s.server.Name, why)
	}
	return result, nil
}

// meta is what a server is told beside the arguments.
func meta(ctx context.Context, c tool.Call) sdk.Meta {
	m := sdk.Meta{}
	if c.Key != "" {
		m[metaKey] = c.Key
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	for k, v := range carrier {
		m[k] = v
	}
	return m
}

// do makes a request that belongs to a call.
func (s *session) do(ctx context.Context, set *Set, env executor.Env, c tool.Call, effect pipeline.Effect, request func(context.Context, *sdk.ClientSession, *running) error) error {
	for try := 0; ; try++ {
		l, err := s.connected(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return unreachable(&s.server, err)
		}
		err = s.once(ctx, l, set, env, c, request)
		if err == nil {
			s.mu.Lock()
			s.deaths = 0
			s.mu.Unlock()
			return nil
		}
		var refused *jsonrpc.Error
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &refused):
			return failure("mcp_refused", "the MCP server %s answers: %s", s.server.Name, s.server.blot(shownText(refused.Message)))
		case !errors.Is(err, errBroken):
			return err // what ends the call, from our side
		case effect == pipeline.EffectIdempotent && try == 0:
			continue
		}
		return failure(reasonLost, "the connection with the MCP server %s was lost during the call, which may have had its effect: %s", s.server.Name, s.server.blot(err.Error()))
	}
}

var errBroken = errors.New("the connection is broken")

// once makes a request on one connection. An error of the connection is
// errBroken, and ends it.
func (s *session) once(ctx context.Context, l *link, set *Set, env executor.Env, c tool.Call, request func(context.Context, *sdk.ClientSession, *running) error) error {
	r := s.begin(ctx, set, env, c)
	defer s.finish(r)
	returned := make(chan struct{})
	defer close(returned)
	stop := context.AfterFunc(r.ctx, func() {
		t := time.NewTimer(partingTime)
		defer t.Stop()
		select {
		case <-returned:
		case <-t.C:
			l.lose(errors.New("it takes no messages any more"))
		}
	})
	defer stop()
	err := request(context.WithValue(r.ctx, callKey{}, r), l.client, r)
	if err == nil {
		l.touch()
		return nil
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	for _, e := range []error{err, context.Cause(l.ctx)} {
		if f, ok := errors.AsType[*pipeline.Failure](e); ok && f.Reason == reasonLogin {
			return unreachable(&s.server, f)
		}
	}
	var refused *jsonrpc.Error
	switch {
	case errors.Is(err, sdk.ErrConnectionClosed), !l.works():
	case errors.As(err, &refused):
		l.touch()
		return err
	case l.answers(r.ctx): // so it is the answer that is wrong
		return failure(reasonResult, "the answer of the MCP server %s cannot be read: %s", s.server.Name, s.server.blot(shownText(err.Error())))
	}
	l.lose(err)
	if l.proc != nil { // what it said before it ended may say why
		select {
		case <-l.proc.ended:
		case <-time.After(farewell):
		}
	}
	return fmt.Errorf("%w: %w", errBroken, l.why(err))
}

// shownText is a message of a server, cut.
func shownText(text string) string {
	if len(text) > 2000 {
		text = text[:2000] + " ..."
	}
	return text
}

// asker is the call within which a server asks something: the one that it names,
// the one whose answer the question is, or else the newest that is under way.
// Where several are, a server of older versions does not say which it means.
func (s *session) asker(ctx context.Context, token any) *running {
	if r, ok := ctx.Value(callKey{}).(*running); ok {
		return r
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if token != nil {
		if r := s.calls[fmt.Sprint(token)]; r != nil {
			return r
		}
	}
	if n := len(s.order); n > 0 {
		return s.order[n-1]
	}
	return nil
}
