package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// loop is one agent at work: the step's own, or one within a call of a tool. Only
// its own goroutine touches it.
type loop struct {
	*attempt
	agent  *pipeline.Agent
	in     int32
	depth  int
	model  string
	needs  *pipeline.Needs
	system string
	skills string   // the part of system that names them
	box    tool.Box // nil: there are no tools
	limits pipeline.AgentLimits
	spent  *account
	output output

	messages []model.Message
	turn     int
	ids      map[string]bool // of calls, in this conversation
	equal    map[string]int  // how often a call was made
	live     live
	sizes    [2]int // of the tools as they were last shown: how many, bytes

	pending  []*pipeline.Event // messages to the agent that no turn has heard yet
	noted    int               // how many of past.said are among them
	again    int               // how often it was asked again for a better answer
	repair   bool              // the next turn is for a better answer
	answered string            // by which model, in the end
	provider string            // of that model
}

// account is what an agent and those within its calls have spent.
type account struct {
	up     *account
	mu     sync.Mutex
	tokens int64
	usd    float64
}

func (a *account) add(u *pipeline.Usage) {
	for ; a != nil && u != nil; a = a.up {
		a.mu.Lock()
		a.tokens += int64(u.InputTokens) + int64(u.OutputTokens)
		a.usd += u.CostUSD
		a.mu.Unlock()
	}
}

// over is the failure of an agent that has spent what it may; nil: it has not.
func (a *account) over(l *pipeline.AgentLimits, name string) *pipeline.Failure {
	a.mu.Lock()
	defer a.mu.Unlock()
	var f *pipeline.Failure
	switch {
	case l.Tokens > 0 && a.tokens >= l.Tokens:
		f = pipeline.Failuref(pipeline.CategoryFailed, "the agent %s has used %d tokens; its limit is %d", name, a.tokens, l.Tokens)
		f.Reason = ReasonTokens
	case l.USD > 0 && a.usd >= l.USD:
		f = pipeline.Failuref(pipeline.CategoryFailed, "the agent %s has spent %.4f USD; its limit is %g", name, a.usd, l.USD)
		f.Reason = ReasonUSD
	}
	return f
}

// turns takes turns until there is an answer.
func (l *loop) turns(ctx context.Context) (any, error) {
	for {
		r, err := l.take(ctx)
		if err != nil {
			return nil, err
		}
		l.answered, l.provider = r.Model, r.Provider
		uses := l.heard(r)
		l.turn++
		l.repair = false
		var v any
		done := false
		last := l.turn >= l.limits.Steps
		switch {
		case r.Stop == model.StopFiltered:
			return nil, failed(ReasonFilter, "the provider has kept back the answer of the agent %s", l.agent.Name)
		case l.output.isAnswer(uses):
			v, done, err = l.handedIn(uses[0], last)
		case len(uses) > 0 && last && r.Text() == "":
			return nil, failed(ReasonSteps, "the agent %s has no answer after %d turns, the limit of its steps", l.agent.Name, l.limits.Steps)
		case len(uses) > 0 && !last:
			err = l.work(ctx, r.N, uses)
		default:
			v, done, err = l.settle(r, last)
		}
		switch {
		case err != nil:
			return nil, err
		case done && !l.goesOn(last):
			return v, nil
		}
	}
}

// goesOn reports whether there is something to be said to an agent that has
// answered: it was told something meanwhile.
func (l *loop) goesOn(last bool) bool {
	if last || l.in != 0 {
		return false
	}
	if l.past.turn(l.in, l.turn) != nil {
		return true
	}
	l.listen()
	return len(l.pending) > 0
}

// listen gathers what was said to the step's agent.
func (l *loop) listen() {
	if l.in != 0 {
		return
	}
	for ; l.noted < len(l.past.said); l.noted++ {
		l.pending = append(l.pending, l.past.said[l.noted])
	}
	news := l.env.Journal.News()
	for i := range news {
		if news[i].Type == pipeline.SignalReceived && news[i].Data.Signal == pipeline.SignalSteer {
			l.pending = append(l.pending, &news[i])
		}
	}
}

// take gives the next turn of the model: what was recorded, or what it says now.
func (l *loop) take(ctx context.Context) (*model.Response, error) {
	known := l.past.turn(l.in, l.turn)
	l.listen()
	heard := len(l.pending)
	if known != nil {
		heard = l.past.heard(known, l.pending)
	}
	for _, e := range l.pending[:heard] {
		text, _ := e.Data.Value.(string)
		l.messages = append(l.messages, model.UserText(text))
	}
	l.pending = l.pending[heard:]
	final := l.turn+1 >= l.limits.Steps
	if final && l.box != nil && l.turn > 0 {
		l.messages = append(l.messages, model.UserText("This is your last turn: give your answer now, without calling tools."))
	}
	if known != nil {
		l.env.Journal.Take(known.Type, known.Data.Call.Key) // no other question is answered with it
		return model.Recorded(known), nil
	}
	if f := l.spent.over(&l.limits, l.agent.Name); f != nil {
		return nil, f
	}
	if err := invariant(l.messages); err != nil {
		return nil, err
	}
	r := l.request(final)
	a, err := l.cfg.Models.Ask(ctx, l.env, r)
	if a != nil {
		l.spent.add(a.Usage)
	}
	if err != nil {
		return nil, err
	}
	if a.N == 0 { // nobody has recorded it
		a.N = l.env.Journal.Next()
	}
	return a, nil
}

// request is the question of the next turn.
func (l *loop) request(final bool) *model.Request {
	r := &model.Request{
		Run: l.env.Run, Step: l.env.Path, Action: pipeline.AgentAction, Agent: l.agent.Name, Turn: l.turn, In: l.in, Phase: model.PhaseTurn,
		Model: l.model, Needs: l.needs, System: l.system, Messages: slices.Clip(l.messages), Tools: l.defs(),
		IdempotencyKey: fmt.Sprintf("%s#%d.%d", l.env.IdempotencyKey(), l.in, l.turn),
	}
	if l.repair {
		r.Phase = model.PhaseRepair
	}
	l.output.ask(r, final)
	if final && r.Choice == "" && len(r.Tools) > 0 {
		r.Choice = "none"
	}
	r.Parts = l.parts(r)
	return r
}

// defs are the tools that the model is shown.
func (l *loop) defs() []model.ToolDef {
	if l.box == nil {
		return nil
	}
	tools := l.box.Tools()
	defs := make([]model.ToolDef, len(tools))
	for i := range tools {
		defs[i] = model.ToolDef{Name: tools[i].Name, Description: tools[i].Description, Schema: tools[i].Schema}
	}
	return defs
}

// parts tells of what the question is composed.
func (l *loop) parts(r *model.Request) []model.Part {
	if len(r.Tools) != l.sizes[0] {
		l.sizes = [2]int{len(r.Tools), 0}
		for i := range r.Tools {
			t := &r.Tools[i]
			l.sizes[1] += len(t.Name) + len(t.Description) + len(pipeline.EncodeValue(any(t.Schema)))
		}
	}
	list := make([]model.Part, 0, 4)
	if n := len(l.system) - len(l.skills); n > 0 {
		list = append(list, model.Part{Name: "instructions", Bytes: n})
	}
	if l.skills != "" {
		list = append(list, model.Part{Name: "skills", Bytes: len(l.skills)})
	}
	if l.sizes[1] > 0 {
		list = append(list, model.Part{Name: "tools", Bytes: l.sizes[1]})
	}
	return append(list, model.Part{Name: "prompt", Bytes: len(r.Messages[0].Text())})
}

// heard adds what the model has said to the conversation and gives the calls that
// it asks for, each with an ID of its own.
func (l *loop) heard(r *model.Response) []*model.ToolUse {
	m := r.Message
	m.Role = model.Assistant
	m.Blocks = slices.Clone(m.Blocks)
	var uses []*model.ToolUse
	for i := range m.Blocks {
		u := m.Blocks[i].ToolUse
		if u == nil {
			continue
		}
		id := u.ID
		for n := 1; id == "" || l.ids[id]; n++ {
			id = strings.TrimPrefix(fmt.Sprintf("%s_%d_%d", u.ID, l.turn, len(uses)+n), "_")
		}
		l.ids[id] = true
		if id != u.ID {
			c := *u
			c.ID = id
			u = &c
			m.Blocks[i].ToolUse = u
		}
		uses = append(uses, u)
	}
	if len(m.Blocks) == 0 { // services refuse messages without any
		m.Blocks = []model.Block{{Kind: model.BlockText, Text: "(nothing)"}}
	}
	l.messages = append(l.messages, m)
	return uses
}

// invariant holds a conversation against what services demand: every call of a
// tool is followed, in the next message, by its result, in the same order.
func invariant(messages []model.Message) error {
	for i := range messages {
		uses := messages[i].Calls()
		if len(uses) == 0 {
			continue
		}
		var results []*model.ToolResult
		if i+1 < len(messages) {
			for b := range messages[i+1].Blocks {
				if t := messages[i+1].Blocks[b].ToolResult; t != nil {
					results = append(results, t)
				}
			}
		}
		if !slices.EqualFunc(uses, results, func(u *model.ToolUse, t *model.ToolResult) bool { return u.ID == t.ID }) {
			return pipeline.Failuref(pipeline.CategorySystem, "the conversation is broken: message %d asks for %d calls and has %d results", i, len(uses), len(results))
		}
	}
	return nil
}

// settle looks at a turn that asks for no calls: is it the answer?
func (l *loop) settle(r *model.Response, last bool) (v any, done bool, err error) {
	reason, wrong := "", ""
	switch {
	case r.Stop == model.StopMaxTokens:
		reason, wrong = ReasonCut, "Your answer was cut off, as it is too long. Answer again, and shorter."
	case strings.TrimSpace(r.Text()) == "" && r.Value == nil:
		reason, wrong = ReasonEmpty, "Your answer was empty. Answer again."
	default:
		var bad []string
		if v, bad, err = l.output.read(r); err != nil || len(bad) == 0 {
			return v, err == nil, err
		}
		reason, wrong = model.ReasonSchema, l.output.complaint(bad)
	}
	return nil, false, l.askAgain(reason, wrong, last)
}

// askAgain lets the next turn bring a better answer, if there may be one.
func (l *loop) askAgain(reason, wrong string, last bool) error {
	if l.again >= l.output.retries || last {
		kind := pipeline.CategoryModel
		if reason == model.ReasonSchema {
			kind = pipeline.CategoryContract
		}
		times := ""
		if l.again > 0 {
			times = ", also when asked again"
		}
		return &pipeline.Failure{Kind: kind, Reason: reason, Message: fmt.Sprintf("the agent %s has not given the answer that was asked for%s: %s", l.agent.Name, times, oneLine(wrong))}
	}
	l.again++
	l.repair = true
	l.messages = append(l.messages, model.UserText(wrong))
	return nil
}

func oneLine(text string) string {
	text, _, _ = strings.Cut(text, "\nAnswer again, with nothing")
	return strings.Join(strings.Fields(text), " ")
}

func failed(reason, format string, args ...any) *pipeline.Failure {
	f := pipeline.Failuref(pipeline.CategoryFailed, format, args...)
	if reason == ReasonFilter {
		f.Kind = pipeline.CategoryModel
	}
	f.Reason = reason
	return f
}

// nested lets another agent work on a prompt, within a call of this one.
func (l *loop) nested(ctx context.Context, _ executor.Env, a *pipeline.Agent, prompt string, c tool.Call) (tool.Result, error) {
	root := l.given.Agent
	if deepest := bounds(root.Limits).Depth; l.depth >= deepest {
		return tool.Result{}, pipeline.Failuref(pipeline.CategoryTool, "agents may call agents only %d deep here; do it yourself", deepest)
	}
	o := opening{agent: a, prompt: prompt, model: l.model, needs: l.needs, depth: l.depth + 1, in: c.N, spent: l.spent}
	if outer := l.live.begin(c.N); outer != nil {
		if err := l.env.Journal.Append(ctx, outer.event(pipeline.InvocationStarted)); err != nil {
			return tool.Result{}, err
		}
	}
	if a.Instructions != nil {
		v, err := l.given.Text(a.Instructions, nil)
		if err != nil {
			return tool.Result{}, err
		}
		o.instructions = strings.TrimSpace(textOf(v))
	}
	switch {
	case a.Model != nil:
		v, err := l.given.Text(a.Model, nil)
		if err != nil {
			return tool.Result{}, err
		}
		o.model, o.needs = textOf(v), a.Needs
	case a.Needs != nil:
		o.model, o.needs = "", a.Needs
	}
	if wall := a.Limits.Wall; wall > 0 {
		f := pipeline.Failuref(pipeline.CategoryTimeout, "the agent %s has worked for %s, the limit of its wall time", a.Name, wall)
		f.Reason = ReasonWall
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, wall, f)
		defer stop()
	}
	inner, err := l.open(ctx, o)
	if err != nil {
		return tool.Result{}, err
	}
	defer inner.close()
	v, err := inner.run(ctx)
	if err != nil {
		// Where it only waits for people, that is no work.
		if f, ok := errors.AsType[*pipeline.Failure](context.Cause(ctx)); ok && ctx.Err() != nil && f.Reason == ReasonWall && !suspends(err) {
			err = f
		}
		return tool.Result{}, err
	}
	return tool.Text(textOf(v)), nil
}

// textOf is a value as a model reads it.
func textOf(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return string(pipeline.EncodeValue(v))
}
