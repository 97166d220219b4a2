package mcp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
)

// codeRefused is what servers are answered whose questions have no answer.
const codeRefused = -1

func refusal(format string, args ...any) error {
	return &jsonrpc.Error{Code: codeRefused, Message: fmt.Sprintf(format, args...)}
}

// within is the context of what a server asks within a call: it ends with either.
func (r *running) within(ctx context.Context) (context.Context, func()) {
	both, cancel := context.WithCancelCause(r.ctx)
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	return both, func() { stop(); cancel(nil) }
}

// ends hands an error that is not the server's to the call, whose step it ends.
func (r *running) ends(err error) bool {
	var laid *executor.Suspension
	if errors.Is(err, executor.ErrJournal) || errors.As(err, &laid) {
		r.cancel(err)
		return true
	}
	return false
}

// elicit asks people what a server wants to know.
func (l *link) elicit(ctx context.Context, req *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
	l.touch()
	p := req.Params
	r := l.s.asker(ctx, p.GetProgressToken())
	if r == nil || r.call.Ask == nil {
		return &sdk.ElicitResult{Action: "decline"}, nil // nobody is there whom it could ask
	}
	_, done := r.while()
	defer done()
	ctx, stop := r.within(ctx)
	defer stop()
	question := fmt.Sprintf("The MCP server %s asks: %s", l.s.server.Name, l.s.server.blot(shownText(p.Message)))
	if p.URL != "" {
		question += "\nIt wants this address to be opened: " + shown(p.URL)
	}
	form, why := schema(p.RequestedSchema)
	if why != "" {
		return nil, refusal("the requested schema %s", why)
	}
	var wanted map[string]any
	if p.RequestedSchema == nil {
		form = nil
	} else {
		wanted = answerable(form)
		question += "\n" + shownText(outline(form))
	}
	d, err := r.call.Ask(ctx, question, wanted)
	if err != nil {
		r.ends(err)
		return nil, refusal("nobody has answered")
	}
	switch {
	case d.Decision == "answer" && form != nil && d.Value == nil:
		return &sdk.ElicitResult{Action: "decline"}, nil
	case d.Decision == "approve" || d.Decision == "answer":
		out := &sdk.ElicitResult{Action: "accept"}
		if form != nil {
			out.Content = answerOf(form, d.Value)
		}
		return out, nil
	case d.Decision == "reject":
		return &sdk.ElicitResult{Action: "decline"}, nil
	}
	return &sdk.ElicitResult{Action: "cancel"}, nil
}

// answerable is the schema of what people may answer to a form: an object with its
// members, where there is one member alone its value, or null, which declines.
func answerable(form map[string]any) map[string]any {
	kinds := []any{"object", "null"}
	if members, _ := form["properties"].(map[string]any); len(members) == 1 {
		for _, m := range members {
			member, _ := m.(map[string]any)
			if kind, _ := member["type"].(string); kind != "" && kind != "object" && kind != "null" {
				kinds = append(kinds, kind)
			}
		}
	}
	out := maps.Clone(form)
	out["type"] = kinds
	return out
}

// outline tells people what a form asks for, a member a line.
func outline(form map[string]any) string {
	members, _ := form["properties"].(map[string]any)
	required, _ := form["required"].([]any)
	var b strings.Builder
	for _, must := range []bool{true, false} {
		for _, name := range slices.Sorted(maps.Keys(members)) {
			if slices.Contains(required, any(name)) != must {
				continue
			}
			m, _ := members[name].(map[string]any)
			kind, _ := m["type"].(string)
			about, _ := m["description"].(string)
			if about == "" {
				about, _ = m["title"].(string)
			}
			if choices := choices(m); len(choices) > 0 {
				kind = strings.TrimSpace(kind + " of " + encoded(choices))
			}
			if must {
				kind += ", required"
			}
			fmt.Fprintf(&b, "- %s (%s)", shown(name), strings.TrimPrefix(kind, ", "))
			if about != "" {
				fmt.Fprintf(&b, ": %s", shown(about))
			}
			b.WriteByte('\n')
		}
	}
	return b.String() + "The answer is an object with these members; null declines."
}

// choices are the values that a member of a form can have, in the ways in which
// forms say so; nil: it does not say.
func choices(m map[string]any) []any {
	if list, ok := m["enum"].([]any); ok {
		return list
	}
	if items, ok := m["items"].(map[string]any); ok {
		return choices(items)
	}
	var list []any
	for _, key := range []string{"oneOf", "anyOf"} {
		some, _ := m[key].([]any)
		for _, c := range some {
			if one, ok := c.(map[string]any); ok && one["const"] != nil {
				list = append(list, one["const"])
			}
		}
	}
	return list
}

// answerOf is what people answered, as the members of a form. Where it has one
// member alone, they may answer with its value.
func answerOf(form map[string]any, v any) map[string]any {
	if m, ok := v.(map[string]any); ok {
		return m
	}
	members, _ := form["properties"].(map[string]any)
	if v != nil && len(members) == 1 {
		for name := range members {
			return map[string]any{name: v}
		}
	}
	return map[string]any{}
}

// sample lets a server ask a model, within the budgets of the step whose call it
// is.
func (l *link) sample(ctx context.Context, req *sdk.CreateMessageRequest) (*sdk.CreateMessageResult, error) { //nolint:staticcheck // servers use it for as long as it is in the protocol
	l.touch()
	p := req.Params
	r := l.s.asker(ctx, p.GetProgressToken())
	if r == nil {
		return nil, refusal("no call is under way, within which a model could be asked")
	}
	nth, done := r.while()
	defer done()
	ctx, stop := r.within(ctx)
	defer stop()
	ask := &model.Request{
		Run: r.env.Run, Step: r.env.Path, In: r.call.N, Phase: model.PhaseAnswer, Model: r.model,
		System: p.SystemPrompt, MaxTokens: p.MaxTokens,
	}
	if p.Temperature != 0 {
		ask.Temperature = &p.Temperature
	}
	if r.call.Key != "" {
		ask.IdempotencyKey = fmt.Sprintf("%s/sampling/%d", r.call.Key, nth)
	}
	for _, m := range p.Messages {
		if m == nil || m.Content == nil {
			continue
		}
		role := model.User
		if m.Role == "assistant" {
			role = model.Assistant
		}
		ask.Messages = append(ask.Messages, model.Message{Role: role, Blocks: block(m.Content)})
	}
	a, err := l.s.pool.cfg.Models.Ask(ctx, r.env, ask)
	if err != nil {
		if !r.ends(err) {
			l.keep("system", "its question to a model has failed: "+err.Error())
		}
		return nil, refusal("the model has given no answer")
	}
	out := &sdk.CreateMessageResult{Model: a.Model, Role: "assistant", StopReason: "endTurn", Content: &sdk.TextContent{Text: a.Text()}} //nolint:staticcheck // as above
	if a.Stop == model.StopMaxTokens {
		out.StopReason = "maxTokens"
	}
	return out, nil
}

// message keeps what a server logs.
func (l *link) message(_ context.Context, req *sdk.LoggingMessageRequest) {
	l.touch()
	p := req.Params
	if p == nil {
		return
	}
	text, ok := p.Data.(string)
	if !ok {
		v, err := value(p.Data)
		if err != nil {
			return
		}
		text = encoded(v)
	}
	l.keep("system", string(p.Level)+": "+shownText(text))
}

// progress shows how far a call has got.
func (l *link) progress(_ context.Context, req *sdk.ProgressNotificationClientRequest) {
	l.touch()
	p := req.Params
	if p == nil {
		return
	}
	l.s.mu.Lock()
	r := l.s.calls[fmt.Sprint(p.ProgressToken)]
	l.s.mu.Unlock()
	if r == nil {
		return
	}
	r.sign()
	if r.call.Progress == nil {
		return
	}
	text := fmt.Sprintf("%g", p.Progress)
	if p.Total > 0 {
		text += fmt.Sprintf("/%g", p.Total)
	}
	if p.Message != "" {
		text += " " + shownText(p.Message)
	}
	r.call.Progress(l.s.server.blot(text) + "\n")
}
