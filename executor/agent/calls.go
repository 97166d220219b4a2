package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const (
	maxArguments = 1 << 20 // of one call, in bytes, as they are recorded
	maxCalls     = 64      // of one turn
	maxWrong     = 5       // mistakes that are told of one call
)

// call is a call of a tool on its way.
type call struct {
	use   *model.ToolUse
	inv   pipeline.Invocation
	tool  *tool.Tool
	args  map[string]any
	again bool // an earlier attempt may have begun it

	result  *tool.Result // how it ended; nil: not yet
	kept    bool         // an earlier attempt has recorded the result
	note    string       // that the result carries for the model
	changed string       // likewise; it is recorded with the result
	ask     *executor.Asked
	open    pipeline.ApprovalID // that is waited for
	doubt   bool                // what ask or open is about: what became of it
	due     time.Time           // its deadline
	err     error               // that ends the attempt
}

// enlist puts a call whose time has come among those that are ready, unless it has a
// result already, and among the records what has to stand before it is made.
func (c *call) enlist(ready []*call, begin []pipeline.Event) ([]*call, []pipeline.Event) {
	if c.result != nil {
		return ready, append(begin, c.finished(0))
	}
	if !c.repeatable() {
		begin = append(begin, c.event(pipeline.InvocationStarted))
	}
	return append(ready, c), begin
}

// refuse ends a call before it began: the model reads why.
func (c *call) refuse(format string, args ...any) {
	c.result = &tool.Result{Failed: true, Content: []model.Block{{Kind: model.BlockText, Text: fmt.Sprintf(format, args...)}}}
}

func (c *call) repeatable() bool {
	return c.inv.Effect == pipeline.EffectPure || c.inv.Effect == pipeline.EffectIdempotent
}

// work carries out the calls of a turn that model call of asked for, and adds
// what they gave to the conversation. Calls that nobody has decided about when all
// others are done lay the step down.
func (l *loop) work(ctx context.Context, of int32, uses []*model.ToolUse) error {
	calls := make([]*call, len(uses))
	var begin []pipeline.Event
	var ready []*call
	for i, u := range uses {
		c, err := l.prepare(of, i, u)
		if err != nil {
			return err
		}
		calls[i] = c
		if !c.kept && !c.waits() {
			ready, begin = c.enlist(ready, begin)
		}
	}
	if err := l.looped(calls); err != nil {
		return err
	}
	var asks []*call
	if len(ready) > 0 || l.crew.others() { // else the step is laid down with its questions
		asks = asking(calls)
	}
	if len(begin)+len(asks) > 0 {
		if err := l.pose(ctx, asks, begin...); err != nil {
			return err
		}
	}
	l.live.put(calls)
	l.runAll(ctx, calls, ready)
	wait, err := l.outcome(calls)
	switch {
	case err != nil:
		return err
	case wait != nil:
		if err := l.env.Journal.Append(ctx); err != nil { // what the calls have given
			return err
		}
		return wait
	}
	blocks := make([]model.Block, len(calls))
	for i, c := range calls {
		content := c.result.Content
		if c.note != "" {
			content = append(slices.Clip(content), model.Block{Kind: model.BlockText, Text: c.note})
		}
		blocks[i] = resultBlock(c.use, content, c.result.Failed)
		blocks[i].ToolResult.From = &model.Kept{N: c.inv.N, Content: c.result.Content, Failed: c.result.Failed}
	}
	l.messages = append(l.messages, results(blocks))
	return nil
}

func resultBlock(u *model.ToolUse, content []model.Block, failed bool) model.Block {
	return model.Block{Kind: model.BlockToolResult, ToolResult: &model.ToolResult{ID: u.ID, Name: u.Name, Content: content, Failed: failed}}
}

func results(blocks []model.Block) model.Message {
	return model.Message{Role: model.User, Blocks: blocks}
}

// prepare finds out what is to become of a call. The error ends the attempt.
func (l *loop) prepare(of int32, i int, u *model.ToolUse) (*call, error) {
	c := &call{use: u, inv: pipeline.Invocation{
		In: l.in, Of: of, Agent: l.agent.Name, Turn: int32(l.turn - 1), //nolint:gosec // turns are few
		ID: u.ID, Name: u.Name, Effect: pipeline.EffectAtMostOnce,
	}}
	known := l.past.call(of, u.ID)
	if known == nil {
		c.inv.N = l.env.Journal.Next()
	} else if c.inv.N = known.n; known.done != nil {
		c.inv = *known.done
		c.kept, c.result = true, &tool.Result{Content: contentOf(known.done.Response), Failed: known.done.Failed}
		return c, nil
	}
	if c.inv.Request = any(u.Arguments); len(u.Arguments) > maxArguments {
		c.inv.Request = nil
	}
	switch {
	case i >= maxCalls:
		c.refuse("At most %d calls can be made at once; make this one in the next turn.", maxCalls)
		return c, nil
	case l.output.mode == modeTool && u.Name == answerTool:
		c.refuse("Hand in the answer alone, once you have read what the other calls gave.")
		return c, nil
	}
	l.find(c)
	if c.result != nil {
		return c, nil
	}
	c.inv.Request = any(c.args)
	c.inv.Effect = c.tool.EffectWith(c.args)
	return c, l.permit(c, known)
}

// find looks for the tool and reads the arguments, strictly.
func (l *loop) find(c *call) {
	if l.box != nil {
		c.tool = l.box.Find(c.use.Name)
	}
	if c.tool == nil {
		c.refuse("There is no tool %q.%s", clipped(c.use.Name, 100), l.instead(c.use.Name))
		return
	}
	args, wrong := check(c.tool, c.use.Arguments)
	if len(wrong) > 0 {
		c.refuse("The call of %s was not made:\n- %s", c.use.Name, strings.Join(wrong, "\n- "))
		return
	}
	c.args = args
}

// instead names what a model may have meant by an unknown tool.
func (l *loop) instead(name string) string {
	var names []string
	if l.box != nil {
		for _, t := range l.box.Tools() {
			names = append(names, t.Name)
		}
	}
	switch like := expr.Suggest(name, names); {
	case len(names) == 0:
		return " You have no tools."
	case like != "":
		return fmt.Sprintf(" Did you mean %q?", like)
	case len(names) <= 20:
		return " There are " + strings.Join(names, ", ") + "."
	}
	return ""
}

func clipped(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// check reads the arguments of a call and lists what is wrong with them.
func check(t *tool.Tool, text string) (map[string]any, []string) {
	args, wrong := tool.Check(t, text)
	if len(wrong) > maxWrong {
		wrong = append(wrong[:maxWrong], fmt.Sprintf("and %d more", len(wrong)-maxWrong))
	}
	return args, wrong
}

// looped counts equal calls: the last one that is let pass carries a warning, and
// the one after it ends the agent.
func (l *loop) looped(calls []*call) error {
	for _, c := range calls {
		key := c.use.Name + "\x00" + c.use.Arguments
		if args, err := pipeline.DecodeValue([]byte(c.use.Arguments)); err == nil {
			key = c.use.Name + "\x00" + string(pipeline.EncodeValue(args))
		}
		l.equal[key]++
		switch n := l.equal[key]; {
		case n > l.limits.RepeatCalls:
			f := pipeline.Failuref(pipeline.CategoryTool, "the agent %s has made the same call of %s %d times", l.agent.Name, clipped(c.use.Name, 100), n)
			f.Reason = ReasonLoop
			return f
		case n == l.limits.RepeatCalls && n > 1:
			c.note = fmt.Sprintf("This was the same call for the %d. time. One more of it ends your work: do something else, or answer.", n)
		}
	}
	return nil
}

// live are the calls of a turn by N, for those that turn out to be agents.
type live struct {
	mu    sync.Mutex
	calls map[int32]*call
}

func (l *live) put(calls []*call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = make(map[int32]*call, len(calls))
	for _, c := range calls {
		l.calls[c.inv.N] = c
	}
}

// begin gives a call whose number has to be known to later attempts, as other
// calls stand within it; nil: it is known already.
func (l *live) begin(n int32) *call {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.calls[n]; c != nil && !c.again && c.repeatable() {
		return c
	}
	return nil
}

// event tells of a call.
func (c *call) event(state string) pipeline.Event {
	inv := c.inv
	inv.State = state
	return pipeline.Event{Type: pipeline.ToolCalled, Data: pipeline.Data{Call: &inv}}
}

// finished tells how a call ended. What it asked for is told only if nothing else
// has told it.
func (c *call) finished(took time.Duration) pipeline.Event {
	e := c.event(pipeline.InvocationFinished)
	e.Data.Call.Response, e.Data.Call.Failed, e.Data.Call.Took = contentValue(c.result.Content), c.result.Failed, took
	return e
}

// carryOut runs one call and records what it gave.
func (l *loop) carryOut(ctx context.Context, c *call) {
	if ctx.Err() != nil { // nothing begins any more
		c.err = context.Cause(ctx)
		return
	}
	began := time.Now()
	work, stop := ctx, func() {}
	if !c.repeatable() {
		work, stop = executor.Sheltered(ctx, l.cfg.Grace)
	}
	defer stop()
	r, err := l.execute(work, c)
	switch {
	case err == nil:
		c.result = &r
	case errors.Is(err, executor.ErrJournal):
		c.err = err
		return
	case suspends(err):
		c.err = err
		return
	case work.Err() != nil:
		c.err = context.Cause(ctx)
		return
	default:
		c.result = &tool.Result{Failed: true, Content: append(r.Content, model.Block{Kind: model.BlockText, Text: l.told(err)})}
	}
	if c.changed != "" {
		c.result.Content = append(c.result.Content, model.Block{Kind: model.BlockText, Text: c.changed})
	}
	if len(c.result.Content) == 0 {
		c.result.Content = []model.Block{{Kind: model.BlockText, Text: "(nothing)"}}
	}
	if e := c.finished(time.Since(began)); c.repeatable() {
		l.env.Journal.Later(e)
		return
	}
	write, done := executor.Sheltered(ctx, l.cfg.Grace)
	defer done()
	if err := l.env.Journal.Append(write, c.finished(time.Since(began))); err != nil {
		c.err = err
	}
}

func suspends(err error) bool {
	_, ok := errors.AsType[*executor.Suspension](err)
	return ok
}

// told is an error as the model reads it.
func (l *loop) told(err error) string {
	text := err.Error()
	if l.env.Redact != nil {
		text = l.env.Redact(text)
	}
	return clipped(text, 8<<10)
}

// invoke calls the tool. A panic is an error of the tool.
func (l *loop) invoke(ctx context.Context, c *call) (r tool.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			if l.env.Log != nil {
				l.env.Log("system", fmt.Sprintf("the tool %s panicked: %v\n%s\n", c.use.Name, p, debug.Stack()))
			}
			r, err = tool.Result{}, pipeline.Failuref(pipeline.CategoryTool, "the tool %s broke down", c.use.Name)
		}
	}()
	return c.tool.Run(ctx, l.env, tool.Call{
		N: c.inv.N, ID: c.use.ID, Arguments: c.args, Key: fmt.Sprintf("%s#%d.%s", l.env.IdempotencyKey(), c.inv.Of, c.use.ID),
		Depth: l.depth, Again: c.again, Progress: l.progress(c), Ask: l.elicit(c),
	})
}

func (l *loop) progress(c *call) func(string) {
	return func(text string) {
		if l.env.Delta != nil {
			l.env.Delta(pipeline.Delta{Call: c.inv.N, Agent: l.agent.Name, Kind: "tool", Name: c.use.Name, Text: text})
		}
	}
}
