package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// permit decides whether a call may begin: whether people were asked, have to be,
// and what they said. What earlier attempts have begun and not finished is begun
// again only where a crash may repeat it.
func (l *loop) permit(c *call, known *recorded) error {
	if known == nil {
		known = &recorded{}
	}
	if d := l.env.Journal.Decision(known.granted); known.begun && d != nil {
		c.inv.By = d.Actor
		if args, ok := d.Value.(map[string]any); ok {
			l.edited(c, args)
		}
	}
	if known.begun && !known.doubt {
		c.again = true
		if c.inv.Effect == pipeline.EffectAtMostOnce {
			l.doubt(c)
		}
		return nil
	}
	if known.approval == "" {
		return l.gate(c)
	}
	c.open, c.doubt, c.due = known.approval, known.doubt, deadline(c.tool.Gate, known.askedAt)
	if d := l.env.Journal.Decision(c.open); d != nil {
		l.heed(c, d)
	}
	return nil
}

// heed carries out what people have decided about a call.
func (l *loop) heed(c *call, d *pipeline.Decision) {
	c.open, c.inv.By = "", d.Actor
	switch {
	case c.doubt:
		c.again = true
		l.resolve(c, d)
	case c.tool.Human:
		l.tellAnswer(c, d)
	default:
		l.obey(c, d)
	}
}

// gate asks people about a call that needs it.
func (l *loop) gate(c *call) error {
	t := c.tool
	if t.Human {
		question, _ := c.args["question"].(string)
		choices, _ := c.args["choices"].([]any)
		if question == "" {
			question = string(pipeline.EncodeValue(any(c.args)))
		}
		l.ask(c, &pipeline.Approval{Kind: pipeline.ApprovalAsk, Question: question, Choices: choices, OnTimeout: "fail"})
		return nil
	}
	g := t.Gate
	if g == nil {
		return nil
	}
	needed := g.Always
	if !needed && g.When != nil {
		ok, err := l.given.Test(g.When, map[string]any{"args": any(c.args)})
		if needed = ok; err != nil {
			if ended := l.gone(err); ended != nil {
				return ended
			}
			needed = true // who cannot tell asks
		}
	}
	if !needed {
		return nil
	}
	if l.given.Approved != nil {
		by, ok, err := l.given.Approved(l.scope(c))
		if err != nil {
			return err
		}
		if ok {
			c.inv.By = by
			return nil
		}
	}
	l.ask(c, &pipeline.Approval{
		Kind: pipeline.ApprovalTool, OnTimeout: "reject", Scope: l.scope(c), Default: l.shown(c.args),
		Question: fmt.Sprintf("The agent %s wants to call %s with %s", l.agent.Name, c.use.Name, l.quoted(c)),
	})
	return nil
}

// quoted are a call's arguments within a question: people can see the whole of them
// beside it.
func (l *loop) quoted(c *call) string {
	return clipped(string(pipeline.EncodeValue(l.shown(c.args))), 200)
}

// gone is the error of an attempt that has lost its run, if err is that.
func (l *loop) gone(err error) error {
	if _, ok := errors.AsType[*pipeline.Failure](err); ok {
		return nil
	}
	return err
}

// scope names what an approval for the rest of the run is good for.
func (l *loop) scope(c *call) string { return l.agent.Name + "/" + c.use.Name }

// shown is a value as people may see it.
func (l *loop) shown(args map[string]any) any {
	if l.env.Redact == nil {
		return any(args)
	}
	v, err := pipeline.DecodeValue([]byte(l.env.Redact(string(pipeline.EncodeValue(any(args))))))
	if err != nil {
		return nil
	}
	return v
}

func (l *loop) ask(c *call, a *pipeline.Approval) {
	if g := c.tool.Gate; g != nil {
		a.Assignees = g.Assignees
		c.due = deadline(g, time.Now())
		a.Deadline = c.due
	}
	if l.env.Redact != nil {
		a.Question = l.env.Redact(a.Question)
	}
	c.ask = &executor.Asked{Approval: a, Type: pipeline.ToolCalled, Call: c.inv}
}

func deadline(g *pipeline.Gate, from time.Time) time.Time {
	if g == nil || g.Deadline <= 0 {
		return time.Time{}
	}
	return from.Add(g.Deadline).UTC()
}

// doubt asks what is to become of a call that may have had its effect.
func (l *loop) doubt(c *call) {
	c.doubt = true
	l.ask(c, &pipeline.Approval{
		Kind: pipeline.ApprovalDecide, OnTimeout: "fail",
		Question: fmt.Sprintf("The process that called %s for the agent %s with %s is gone, and the call may have taken effect. It may be made only once. "+
			"Shall it be made again (retry), count as done with the result that you give (done), or fail (fail)?",
			c.use.Name, l.agent.Name, clipped(string(pipeline.EncodeValue(l.shown(c.args))), 4<<10)),
	})
}

// resolve carries out what was decided about a call in doubt. retry: it is made again.
func (l *loop) resolve(c *call, d *pipeline.Decision) {
	switch d.Decision {
	case "retry":
	case "done":
		c.result = given(d.Value)
	default:
		c.refuse("Nobody knows whether the call took effect; it counts as failed%s", by(d))
	}
}

// tellAnswer gives a model what people have answered.
func (l *loop) tellAnswer(c *call, d *pipeline.Decision) {
	if d.Decision != "answer" {
		c.refuse("Nobody has answered in time.")
		return
	}
	c.result = given(d.Value)
}

// obey carries out what was decided about a call that needed approval.
func (l *loop) obey(c *call, d *pipeline.Decision) {
	switch d.Decision {
	case "approve":
		if d.Value == nil {
			return
		}
		args, ok := d.Value.(map[string]any)
		wrong := []string{"the arguments must be a JSON object"}
		if ok {
			args, wrong = check(c.tool, string(pipeline.EncodeValue(d.Value)))
		}
		if len(wrong) > 0 {
			l.ask(c, &pipeline.Approval{
				Kind: pipeline.ApprovalTool, OnTimeout: "reject", Scope: l.scope(c), Default: l.shown(c.args),
				Question: fmt.Sprintf("The arguments that %s gave for %s do not fit: %s. The agent %s wants to call it with %s",
					d.Actor, c.use.Name, wrong[0], l.agent.Name, l.quoted(c)),
			})
			return
		}
		l.edited(c, args)
	case "answer":
		c.result = given(d.Value)
	default:
		if d.Actor == pipeline.DeadlineActor {
			c.refuse("The call was denied: nobody approved it in time.")
			return
		}
		c.refuse("The call was denied%s", by(d))
	}
}

// edited lets a call begin with the arguments that a person has given; the model
// is told.
func (l *loop) edited(c *call, args map[string]any) {
	c.args, c.inv.Request = args, any(args)
	c.changed = "A person has changed the arguments to " + clipped(string(pipeline.EncodeValue(l.shown(args))), 4<<10) + "."
}

func by(d *pipeline.Decision) string {
	text := " by " + d.Actor
	if d.Comment != "" {
		return text + ": " + d.Comment
	}
	return text + "."
}

// given is a result that a person gives.
func given(v any) *tool.Result {
	r := tool.Text(textOf(v))
	return &r
}

// elicit lets a tool ask people while it runs. A question that an earlier attempt
// of the call has asked is not asked again.
func (l *loop) elicit(c *call) func(context.Context, string, map[string]any) (*pipeline.Decision, error) {
	return func(ctx context.Context, question string, schema map[string]any) (*pipeline.Decision, error) {
		if l.env.Redact != nil {
			question = l.env.Redact(question)
		}
		request := map[string]any{"question": question, "schema": any(schema)}
		for _, e := range l.past.asked[c.inv.N] {
			was := e.Data.Call
			if m, ok := was.Request.(map[string]any); !ok || m["question"] != any(question) {
				continue
			}
			if d := l.env.Journal.Decision(was.Approval); d != nil {
				return d, nil
			}
			return l.env.Journal.Await(ctx, was.Approval)
		}
		a := &pipeline.Approval{ID: pipeline.NewApprovalID(), Kind: pipeline.ApprovalAsk, Question: question, OnTimeout: "fail"}
		if schema != nil {
			a.Schema = &pipeline.Type{Kind: "any", Schema: any(schema)}
		}
		if g := c.tool.Gate; g != nil {
			a.Assignees = g.Assignees
		}
		return l.env.Journal.Ask(ctx, a, pipeline.Invocation{
			N: l.env.Journal.Next(), In: c.inv.N, Agent: l.agent.Name, Turn: c.inv.Turn, Name: c.use.Name, Request: request,
		})
	}
}
