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

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

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
	if c.asJSON {
		return c.printJSON(&api.ListCallsResponse{Calls: list})
	}
	w := c.painted(c.out)
	if len(list) == 0 {
		what := "this run has asked no model and called no tool"
		if step != "" {
			what = "the step " + harmlessLine(step) + " has asked no model and called no tool"
		}
		fmt.Fprintln(w, what)
		return nil
	}
	rows := [][]string{{dim("STEP"), dim("N"), dim("CALL"), dim("MODEL"), dim("STATE"), dim("TOKENS"), dim("COST"), dim("TOOK"), dim("NOTE")}}
	depth := map[string]int{} // by step and call
	for _, x := range list {
		at := depth[x.GetStep()+"\x00"+strconv.Itoa(int(x.GetParent()))]
		if x.GetParent() > 0 {
			at++
		}
		depth[x.GetStep()+"\x00"+strconv.Itoa(int(x.GetN()))] = at
		facts := callFacts{Agent: x.GetAgent(), Turn: x.GetTurn(), Param: x.GetParam(), Name: x.GetName()}
		what, model, tokens, cost, took := facts.text("", nil), modelName(x), "", "", ""
		if x.GetParent() > 0 && x.GetKind() == "model" {
			what += " of " + harmlessLine(x.GetAgent())
		}
		if u := x.GetUsage(); u != nil {
			tokens, cost = fmt.Sprintf("%d/%d", u.GetInputTokens(), u.GetOutputTokens()), costText(u.GetCostUsd(), u.GetUnpricedCalls())
			if u.GetEstimated() {
				tokens = "~" + tokens
			}
		}
		if x.GetTook() > 0 {
			took = human.Span(milliseconds(x.GetTook()))
		}
		rows = append(rows, []string{
			x.GetStep(), strconv.Itoa(int(x.GetN())), strings.Repeat("  ", at) + what, strings.TrimSpace(model), callState(x), tokens, cost, took, cut(callNote(x), 60),
		})
	}
	table(w, rows)
	return nil
}

// callState is the state of a call as its row shows it.
func callState(x *api.Call) string {
	if x.GetFailed() || x.GetError() != nil {
		return painted("FAILED", "failed")
	}
	if x.GetState() == "asked" && x.GetDecision() == "" {
		return painted("WAITING", "asks people")
	}
	return x.GetState()
}

// callNote is what else there is to say of a call: why it failed, or who has
// decided about it.
func callNote(x *api.Call) string {
	switch {
	case x.GetError() != nil:
		text := harmlessLine(x.GetError().GetMessage())
		if x.GetTries() > 1 {
			text = fmt.Sprintf("%d tries: %s", x.GetTries(), text)
		}
		return text
	case x.GetFailed():
		return harmlessLine(resultText([]byte(x.GetResponse())))
	case x.GetDecidedBy() != "":
		return decidedText(x)
	}
	return ""
}

// decidedText says who has decided about a call, and how.
func decidedText(x *api.Call) string {
	text := harmlessLine(x.GetDecidedBy() + ": " + x.GetDecision())
	if x.GetEdited() {
		text += ", with other arguments"
	}
	if x.GetComment() != "" {
		text += ", " + harmlessLine(x.GetComment())
	}
	return text
}

// saidBlock is a part of a message as the API gives it.
type saidBlock struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
	Use  *struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"tool_use"`
	Result *struct {
		Name    string      `json:"name"`
		Content []saidBlock `json:"content"`
	} `json:"tool_result"`
}

// resultText is what a tool has given, as text.
func resultText(response []byte) string {
	var r struct {
		Content []saidBlock `json:"content"`
	}
	if json.Unmarshal(response, &r) != nil {
		return ""
	}
	return said(r.Content)
}

// said are the blocks of a message as text.
func said(blocks []saidBlock) string {
	list := make([]string, 0, len(blocks))
	for _, b := range blocks {
		switch {
		case b.Use != nil:
			list = append(list, "calls "+b.Use.Name+" "+b.Use.Arguments)
		case b.Result != nil:
			list = append(list, "result of "+b.Result.Name+":\n"+said(b.Result.Content))
		case b.Kind == "reasoning" && b.Text != "":
			list = append(list, "(reasoning) "+b.Text)
		case b.Text != "":
			list = append(list, b.Text)
		default:
			list = append(list, "("+human.Phrase(b.Kind)+")")
		}
	}
	return strings.Join(list, "\n")
}

func milliseconds(ms float64) time.Duration {
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Millisecond)
}

// printCall shows one call whole: how it came about, the prompt as it was sent,
// and the answer.
func printCall(w io.Writer, x *api.Call) {
	facts := callFacts{Agent: x.GetAgent(), Turn: x.GetTurn(), Param: x.GetParam(), Name: x.GetName()}
	fmt.Fprintf(w, "call %d of %s: %s\n", x.GetN(), harmlessLine(x.GetStep()), facts.text("", nil))
	rows := [][]string{}
	fact := func(name, text string) {
		if text != "" {
			rows = append(rows, []string{name, text})
		}
	}
	fact("agent", harmlessLine(x.GetAgent()))
	fact("model", strings.TrimSpace(modelName(x)))
	fact("chosen", chosenText(x.GetChoice()))
	fact("state", callState(x))
	if u := x.GetUsage(); u != nil {
		tokens := fmt.Sprintf("%d in, %d out", u.GetInputTokens(), u.GetOutputTokens())
		if u.GetEstimated() {
			tokens += ", estimated"
		}
		fact("tokens", tokens)
		fact("cost", costText(u.GetCostUsd(), u.GetUnpricedCalls()))
	}
	if x.GetTook() > 0 {
		fact("took", human.Span(milliseconds(x.GetTook())))
	}
	if x.GetTries() > 1 {
		fact("tries", strconv.Itoa(int(x.GetTries())))
	}
	if x.GetDecidedBy() != "" {
		fact("decided", decidedText(x))
	}
	table(w, rows)
	printPrompt(w, x)
	if x.GetKind() == "tool" {
		titled(w, "Arguments", indented(argumentsText(x.GetRequest())))
		titled(w, "Result", resultText([]byte(x.GetResponse())))
	} else {
		titled(w, "Answer", answerText(x.GetResponse()))
	}
	if e := x.GetError(); e != nil {
		titled(w, "Error", e.GetMessage())
	}
}

// printPrompt shows the prompt of a call, with the sizes of its parts.
func printPrompt(w io.Writer, x *api.Call) {
	if len(x.GetParts()) > 0 {
		sum, width := int32(0), 0
		for _, p := range x.GetParts() {
			sum += p.GetBytes()
			width = max(width, len(p.GetName()))
		}
		digits := len(strconv.Itoa(int(sum)))
		fmt.Fprintf(w, "\nPrompt, %d bytes\n", sum)
		for _, p := range x.GetParts() {
			fmt.Fprintf(w, "  %-*s  %*d\n", width, p.GetName(), digits, p.GetBytes())
		}
	}
	var prompt struct {
		System   string `json:"system"`
		Messages []struct {
			Role   string      `json:"role"`
			Blocks []saidBlock `json:"blocks"`
		} `json:"messages"`
		Tools []struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			Schema      json.RawMessage `json:"schema"`
		} `json:"tools"`
		Schema json.RawMessage `json:"schema"`
	}
	if x.GetPrompt() == "" {
		return
	}
	if json.Unmarshal([]byte(x.GetPrompt()), &prompt) != nil {
		titled(w, "Prompt", indented(x.GetPrompt()))
		return
	}
	titled(w, "System", prompt.System)
	for _, m := range prompt.Messages {
		title := map[string]string{"user": "User", "assistant": "Model"}[m.Role]
		if len(m.Blocks) > 0 && m.Blocks[0].Result != nil {
			title = "Tools"
		}
		titled(w, title, said(m.Blocks))
	}
	if len(prompt.Tools) > 0 {
		fmt.Fprintln(w, "\nTools that it was shown")
		for _, t := range prompt.Tools {
			fmt.Fprintf(w, "  %s\n", harmlessLine(t.Name))
			margined(w, "    ", t.Description+"\n"+string(t.Schema))
		}
	}
	titled(w, "Schema of the answer", indented(string(prompt.Schema)))
}

// titled shows a text under a title; none: nothing.
func titled(w io.Writer, title, text string) {
	if text == "" || text == "null" {
		return
	}
	fmt.Fprintf(w, "\n%s\n", title)
	margined(w, "  ", text)
}

// margined shows a text with every line moved to the right.
func margined(w io.Writer, margin, text string) {
	for line := range strings.SplitSeq(harmless(strings.TrimRight(text, "\n")), "\n") {
		fmt.Fprintln(w, strings.TrimRight(margin+line, " "))
	}
}

// argumentsText are the arguments of a call; what was no JSON stands as the
// model has written it.
func argumentsText(request string) string {
	var written string
	if json.Unmarshal([]byte(request), &written) == nil {
		return written
	}
	return request
}

// answerText is what a model has answered.
func answerText(response string) string {
	var a struct {
		Message struct {
			Blocks []saidBlock `json:"blocks"`
		} `json:"message"`
		Value json.RawMessage `json:"value"`
	}
	if json.Unmarshal([]byte(response), &a) != nil {
		return indented(response)
	}
	if text := said(a.Message.Blocks); text != "" {
		return text
	}
	return indented(string(a.Value))
}

// chosenText says why a model was asked, and which were passed over.
func chosenText(choice string) string {
	var c struct {
		By, Policy, Reason string
		Passed             []struct{ Model, Reason string }
	}
	if json.Unmarshal([]byte(choice), &c) != nil {
		return ""
	}
	text := human.Phrase(c.By)
	switch c.By {
	case "policy":
		text = "by the policy " + c.Policy
	case "name":
		text = "named by the pipeline"
	case "":
	default:
		text = "by " + text
	}
	if c.Reason != "" {
		text = strings.TrimPrefix(text+": "+c.Reason, ": ")
	}
	for _, p := range c.Passed {
		text += "; not " + p.Model + ": " + p.Reason
	}
	return harmlessLine(text)
}

// indented is JSON over several lines.
func indented(text string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return text
	}
	return b.String()
}
