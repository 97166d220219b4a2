package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// callFacts is what is shown of a call of a model or a tool.
type callFacts struct {
	N     int32         `json:"n"`
	State string        `json:"state"`
	Agent string        `json:"agent"`
	Turn  int32         `json:"turn"`
	Phase string        `json:"phase"`
	Param string        `json:"param"`
	Name  string        `json:"name"`
	Took  time.Duration `json:"took"`
	Fail  bool          `json:"failed"`
}

// usageFacts is what something has cost.
type usageFacts struct {
	Input    int32   `json:"input_tokens"`
	Output   int32   `json:"output_tokens"`
	USD      float64 `json:"cost_usd"`
	Unpriced int32   `json:"unpriced"`
}

// pieceFacts is a piece of an answer on its way.
type pieceFacts struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Text string `json:"text"`
}

// maxPiece is how much of an answer on its way is kept, for its last line.
const maxPiece = 400

// piece takes what is only live of a call.
func (p *progress) piece(e *api.Event) {
	s := p.steps[e.GetPath()]
	var d pieceFacts
	if s == nil || json.Unmarshal([]byte(e.GetData()), &d) != nil {
		return
	}
	switch {
	case d.Kind == "reset":
		s.talk = ""
		return
	case d.Kind == "tool":
		s.talk = d.Name
		return
	}
	s.talk += d.Text
	if over := len(s.talk) - maxPiece; over > 0 {
		s.talk = strings.ToValidUTF8(s.talk[over:], "")
	}
}

// lastLine is the end of what an answer has come to, without what a terminal would
// obey.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	return strings.TrimSpace(harmlessLine(lines[len(lines)-1]))
}

// text is a call in a few words.
func (c *callFacts) text(model string, u *usageFacts) string {
	var b strings.Builder
	switch {
	case c.Name != "":
		fmt.Fprintf(&b, "calls %s", harmlessLine(c.Name))
	case c.Param != "":
		fmt.Fprintf(&b, "fills in %s", c.Param)
	case c.Agent != "":
		fmt.Fprintf(&b, "turn %d", c.Turn+1)
	default:
		b.WriteString("asks a model")
	}
	if model != "" {
		fmt.Fprintf(&b, " (%s)", model)
	}
	switch {
	case c.State == "asked":
		b.WriteString("  waits for people")
	case c.State == "started":
		b.WriteString("  ...")
	case c.Fail:
		b.WriteString("  failed")
	}
	if c.Took > 0 {
		b.WriteString("  " + span(c.Took.Round(time.Millisecond)))
	}
	if u != nil {
		fmt.Fprintf(&b, "  %d in, %d out", u.Input, u.Output)
		if u.USD > 0 || u.Unpriced > 0 {
			b.WriteString("  cost " + costText(u.USD, u.Unpriced))
		}
	}
	return b.String()
}

func (c *cli) runsCallsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "calls RUN [STEP] [N]",
		Short: "List the calls of models and tools, or show one with its prompt",
		Long:  `Lists what the steps of a run have asked models and called of tools: turns of agents, tool calls with who decided about them, and what filled in <AUTO> tags. With the path of a step only its calls; with a number that call whole: the prompt as it was sent, its parts with their sizes, and the answer.`,
		Example: `
orchestrator runs calls last
orchestrator runs calls last research
orchestrator runs calls last research 3 --json`,
		Args: args(1, 3, "the id of a run, or last; then the path of a step and the number of a call", "orchestrator runs calls last research 3"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, words[0])
				if err != nil {
					return err
				}
				if len(words) < 3 {
					return c.listCalls(ctx, cl, id, append(words[1:], "")[0])
				}
				n, err := strconv.ParseInt(words[2], 10, 32)
				if err != nil {
					return usage("orchestrator runs calls "+words[0]+" "+words[1]+" lists them", "%q is not the number of a call", words[2])
				}
				one, err := cl.calls.GetCall(ctx, &api.GetCallRequest{Id: id, Step: words[1], N: int32(n)})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(one)
				}
				printCall(c.painted(c.out), one)
				return nil
			})
		},
	}
	c.jsonFlag(cmd, `print {"calls": [...]}, or the call`)
	return cmd
}

// allCalls reads the calls of a step, or of all steps.
func (cl *client) allCalls(ctx context.Context, id, step string) ([]*api.Call, error) {
	var list []*api.Call
	for token := ""; ; {
		page, err := cl.calls.ListCalls(ctx, &api.ListCallsRequest{Id: id, Step: step, PageSize: 500, PageToken: token})
		if err != nil {
			return nil, err
		}
		list = append(list, page.GetCalls()...)
		if token = page.GetNextPageToken(); token == "" {
			return list, nil
		}
	}
}

func (c *cli) listCalls(ctx context.Context, cl *client, id, step string) error {
	list, err := cl.allCalls(ctx, id, step)
	if err != nil {
		return err
	}
	all := &api.ListCallsResponse{Calls: list}
	if c.asJSON {
		return c.printJSON(all)
	}
	w := c.painted(c.out)
	if len(all.GetCalls()) == 0 {
		fmt.Fprintln(w, "no calls of models or tools")
		return nil
	}
	rows := [][]string{{"STEP", "N", "CALL", "MODEL", "STATE", "TOKENS", "COST", "TOOK", "DECIDED BY"}}
	for _, x := range all.GetCalls() {
		facts := callFacts{Agent: x.GetAgent(), Turn: x.GetTurn(), Param: x.GetParam(), Name: x.GetName()}
		state, model, tokens, cost, took := x.GetState(), modelName(x), "", "", ""
		if x.GetFailed() || x.GetError() != nil {
			state = "failed"
		}
		if u := x.GetUsage(); u != nil {
			tokens, cost = fmt.Sprintf("%d/%d", u.GetInputTokens(), u.GetOutputTokens()), costText(u.GetCostUsd(), u.GetUnpricedCalls())
		}
		if x.GetTook() > 0 {
			took = span(milliseconds(x.GetTook()))
		}
		rows = append(rows, []string{x.GetStep(), strconv.Itoa(int(x.GetN())), facts.text("", nil), strings.TrimSpace(model), state, tokens, cost, took, x.GetDecidedBy()})
	}
	table(w, rows)
	return nil
}

func milliseconds(ms float64) time.Duration {
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Millisecond)
}

// printCall shows one call whole.
func printCall(w io.Writer, x *api.Call) {
	facts := callFacts{Agent: x.GetAgent(), Turn: x.GetTurn(), Param: x.GetParam(), Name: x.GetName(), State: x.GetState(), Fail: x.GetFailed(), Took: milliseconds(x.GetTook())}
	var u *usageFacts
	if g := x.GetUsage(); g != nil {
		u = &usageFacts{g.GetInputTokens(), g.GetOutputTokens(), g.GetCostUsd(), g.GetUnpricedCalls()}
	}
	fmt.Fprintf(w, "call %d of %s: %s\n", x.GetN(), x.GetStep(), facts.text(x.GetModel(), u))
	if x.GetScripted() {
		fmt.Fprintln(w, "scripted model")
	}
	if len(x.GetParts()) > 0 {
		fmt.Fprintln(w, "\nThe prompt is made of")
		rows := [][]string{}
		for _, p := range x.GetParts() {
			rows = append(rows, []string{"  " + p.GetName(), strconv.Itoa(int(p.GetBytes())) + " bytes"})
		}
		table(w, rows)
	}
	for _, part := range []struct{ title, text string }{
		{"Prompt", x.GetPrompt()}, {"Arguments", argumentsOf(x)}, {"Answer", x.GetResponse()}, {"Chosen", x.GetChoice()},
	} {
		if part.text != "" && part.text != "null" {
			fmt.Fprintf(w, "\n%s\n%s\n", part.title, harmless(indented(part.text)))
		}
	}
	if e := x.GetError(); e != nil {
		fmt.Fprintf(w, "\nError\n%s\n", harmless(e.GetMessage()))
	}
	if x.GetDecision() != "" {
		fmt.Fprintf(w, "\n%s: %s %s\n", x.GetDecidedBy(), x.GetDecision(), x.GetComment())
	}
}

func argumentsOf(x *api.Call) string {
	if x.GetKind() == "tool" {
		return x.GetRequest()
	}
	return ""
}

// indented is JSON over several lines.
func indented(text string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return text
	}
	return b.String()
}
