package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// asks reports whether questions are asked here: where somebody can read and
// answer them.
func (c *cli) asks() bool { return c.tty != nil && c.keyboard }

// typed is what is typed, line by line; it is closed at the end of input.
func (c *cli) typed() <-chan string {
	if c.lines == nil {
		lines := make(chan string)
		go func() { // it lives as long as the process: reading cannot be given up
			defer close(lines)
			for r := bufio.NewScanner(c.in); r.Scan(); {
				lines <- r.Text()
			}
		}()
		c.lines = lines
	}
	return c.lines
}

// ask asks the oldest open question of a run at the terminal. It reports whether
// the run goes on; it does not when nobody wants to answer, or others have to.
func (c *cli) ask(ctx context.Context, f *follower) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a, w := f.open[0], c.painted(c.tty)
	tellQuestion(w, a, time.Now())
	moved := f.moved(ctx)
	editing := false
	for {
		text := prompt(a)
		if aboutCall(a) {
			text = callPrompt(a, editing)
		}
		fmt.Fprint(w, "  "+text+" ")
		var line string
		var more bool
		select {
		case line, more = <-c.typed():
		case <-c.signals.first:
		case <-moved:
			fmt.Fprintln(w, "\n  "+dim("this has been decided elsewhere"))
			return true, nil
		case <-ctx.Done():
		}
		if !more {
			fmt.Fprintln(w)
			return false, nil
		}
		req, problem := reply(a, strings.TrimSpace(line))
		if aboutCall(a) {
			req, problem = callReply(a, strings.TrimSpace(line), editing)
			if editing = req == nil && problem == ""; editing {
				continue
			}
		}
		if problem == "" {
			decided, err := f.cl.approvals.DecideApproval(ctx, req)
			switch status.Code(err) {
			case codes.OK:
				if decided.GetStatus() == "open" {
					fmt.Fprintln(w, "  "+stillOpen(decided))
					return false, nil
				}
				return true, nil
			case codes.InvalidArgument:
				problem = status.Convert(err).Message()
			case codes.Aborted, codes.PermissionDenied:
				fmt.Fprintln(w, "  "+painted("WAITING", status.Convert(err).Message()))
				now, err := f.cl.approvals.GetApproval(ctx, &api.GetApprovalRequest{Id: a.GetId()})
				return now.GetStatus() != "open", err
			default:
				return false, err
			}
		}
		fmt.Fprintln(w, "  "+painted("FAILED", problem))
	}
}

// moved is closed when the run's log goes on.
func (f *follower) moved(ctx context.Context) <-chan struct{} {
	moved := make(chan struct{})
	go func() {
		watch, err := f.cl.runs.WatchRun(ctx, &api.WatchRunRequest{Id: f.id, After: f.seq})
		if err == nil {
			for e := new(api.Event); err == nil && e.GetSeq() == 0; {
				e, err = watch.Recv()
			}
		}
		if err == nil {
			close(moved)
		}
	}()
	return moved
}

// prompt says what may be typed.
func prompt(a *api.Approval) string {
	text := strings.Join(a.GetAllowed(), ", ")
	switch {
	case may(a, "approve"):
		return "[y/n]"
	case a.GetChoices() != "":
		text = "number or value"
	case may(a, "answer") && a.GetType() != "":
		text = a.GetType()
	case may(a, "answer"):
		text = "answer"
	}
	if d := a.GetDefault(); d != "" {
		text += " [" + plainText(d) + "]"
	}
	return text + ":"
}

func may(a *api.Approval, decision string) bool { return slices.Contains(a.GetAllowed(), decision) }

// reply is the decision that a typed line means, or why it means none.
func reply(a *api.Approval, line string) (req *api.DecideApprovalRequest, problem string) {
	req = &api.DecideApprovalRequest{Id: a.GetId()}
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case may(a, "approve"):
		switch strings.ToLower(word) {
		case "y", "yes", "approve":
			req.Decision = "approve"
		case "n", "no", "reject":
			req.Decision = "reject"
		default:
			return nil, "type y to approve or n to reject; a comment may follow"
		}
		req.Comment = strings.TrimSpace(rest)
		return req, ""
	case !may(a, "answer"):
		if !may(a, word) {
			return nil, "type one of " + strings.Join(a.GetAllowed(), ", ")
		}
		req.Decision = word
		if rest = strings.TrimSpace(rest); rest != "" {
			req.Value, problem = value(a, rest)
		}
		return req, problem
	}
	req.Decision = "answer"
	if line == "" && a.GetDefault() != "" {
		req.Value = a.GetDefault()
		return req, ""
	}
	if line == "" {
		return nil, "type an answer"
	}
	if req.Value, problem = value(a, line); problem != "" {
		choices := choicesOf(a)
		if i, err := strconv.Atoi(line); err == nil && i >= 1 && i <= len(choices) {
			req.Value, problem = string(pipeline.EncodeValue(choices[i-1])), ""
		}
	}
	return req, problem
}

// choicesOf are the values that an answer may have; none: any.
func choicesOf(a *api.Approval) []any {
	v, err := pipeline.DecodeValue([]byte(a.GetChoices()))
	if err != nil {
		return nil
	}
	list, _ := v.([]any)
	return list
}

// value reads the text of an answer by the choices or the type of an approval,
// as JSON; problem is why it cannot be.
func value(a *api.Approval, text string) (json, problem string) {
	choices := choicesOf(a)
	for _, v := range choices {
		if b := string(pipeline.EncodeValue(v)); v == text || b == text {
			return b, ""
		}
	}
	if choices != nil {
		return "", fmt.Sprintf("%q is none of the choices: %s", text, choiceList(choices))
	}
	name := a.GetType()
	if name == "" {
		name = "any"
	}
	v, err := spec.ParseInput(pipeline.Input{Name: "answer", Type: typeOf(name)}, text)
	if err != nil {
		return "", strings.TrimPrefix(strings.Join(inputFaults("answer", err), "; "), "input answer: ")
	}
	return string(pipeline.EncodeValue(v)), ""
}

func choiceList(choices []any) string {
	texts := make([]string, len(choices))
	for i, v := range choices {
		texts[i] = plainText(string(pipeline.EncodeValue(v)))
	}
	return strings.Join(texts, ", ")
}

// plainText is a JSON value on one line; a text stands without quotes.
func plainText(text string) string {
	if v, err := pipeline.DecodeValue([]byte(text)); err == nil {
		if s, ok := v.(string); ok {
			text = strings.ReplaceAll(s, "\n", " ")
		}
	}
	return harmlessLine(text)
}

// stillOpen says that one decision was not enough.
func stillOpen(a *api.Approval) string {
	return fmt.Sprintf("noted; it takes %d equal decisions of different people", a.GetQuorum())
}

// tellQuestion shows what is asked.
func tellQuestion(w io.Writer, a *api.Approval, now time.Time) {
	lines := strings.Split(harmless(strings.TrimSpace(a.GetQuestion())), "\n")
	fmt.Fprintln(w, painted("WAITING", "? ")+strong.Render(lines[0]))
	for _, l := range lines[1:] {
		fmt.Fprintln(w, "  "+l)
	}
	if a.GetKind() == "tool" && !strings.Contains(a.GetQuestion(), a.GetDefault()) { // it tells only their beginning
		margined(w, "    ", indented(a.GetDefault()))
	}
	for i, v := range choicesOf(a) {
		fmt.Fprintf(w, "  %2d  %s\n", i+1, plainText(string(pipeline.EncodeValue(v))))
	}
	fmt.Fprintln(w, "  "+dim(conditions(a, now)))
}

// conditions is what else there is to know of an approval.
func conditions(a *api.Approval, now time.Time) string {
	parts := []string{"step " + a.GetPath(), "asked " + human.Ago(human.Moment(a.GetCreatedAt()), now)}
	if len(a.GetAssignees()) > 0 {
		parts = append(parts, "for "+strings.Join(a.GetAssignees(), ", "))
	}
	if a.GetQuorum() > 1 {
		parts = append(parts, fmt.Sprintf("%d of %d agree", len(a.GetDecisions()), a.GetQuorum()))
	}
	if due := human.Moment(a.GetDeadline()); !due.IsZero() {
		text := "until " + clock(due, now)
		switch a.GetOnTimeout() {
		case "default":
			text += ", then " + plainText(a.GetDefault())
		case "":
		default:
			text += ", then " + a.GetOnTimeout()
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " · ")
}

// clock is a moment by the wall clock, and how far away it is.
func clock(t, now time.Time) string {
	form := "15:04:05"
	if y, m, d := t.Local().Date(); now.Local().Format("2006-1-2") != fmt.Sprintf("%d-%d-%d", y, m, d) {
		form = "2006-01-02 15:04"
	}
	text := t.Local().Format(form)
	if left := t.Sub(now); left > 0 {
		text += " (in " + human.Span(left.Round(time.Second)) + ")"
	}
	return text
}

// tellQuestions says what a run waits for, and how it goes on.
func (c *cli) tellQuestions(w io.Writer, f *follower) {
	if len(f.open) == 0 { // it has moved since
		look(w, [2]string{c.again("runs watch " + f.id), "follow it further"})
		return
	}
	var hints [][2]string
	for _, a := range f.open {
		tellQuestion(w, a, time.Now())
		hints = append(hints, c.ways(a)...)
	}
	if f.cl.house != nil {
		hints = append(hints, [2]string{c.again("runs resume " + f.id), "then continue the run"})
	} else {
		hints = append(hints, [2]string{c.again("runs watch " + f.id), "follow it further"})
	}
	look(w, hints...)
}

// ways are the calls that decide an approval.
func (c *cli) ways(a *api.Approval) [][2]string {
	var list [][2]string
	for _, d := range a.GetAllowed() {
		switch d {
		case "approve":
			list = append(list, [2]string{c.again("approvals approve " + a.GetId()), "yes"})
		case "reject":
			list = append(list, [2]string{c.again("approvals reject " + a.GetId()), "no"})
		case "answer":
			what := a.GetType()
			if choices := choicesOf(a); choices != nil {
				what = "one of " + choiceList(choices)
			}
			if what == "" {
				what = "any value"
			}
			list = append(list, [2]string{c.again("approvals answer " + a.GetId() + " VALUE"), cut(what, 60)})
		case "retry":
			list = append(list, [2]string{c.again("approvals decide " + a.GetId() + " retry"), "do the step again"})
		case "done":
			list = append(list, [2]string{c.again("approvals decide " + a.GetId() + " done --value JSON"), "it has happened, with this output"})
		case "fail":
			list = append(list, [2]string{c.again("approvals decide " + a.GetId() + " fail"), "the step has failed"})
		}
	}
	return list
}
