package web

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// reasons are the reasons of runs and steps that need more than their own words.
var reasons = map[string]string{
	"timer":           "waits for a time",
	"signal":          "waits for a signal",
	"files":           "waits for files",
	"approval":        "waits for a decision",
	"retry":           "waits for its next attempt",
	"retrying":        "waits for its next attempt",
	"woken":           "goes on",
	"jumped":          "a jump led past it",
	"max_visits":      "a jump back would have gone too often",
	"exhausted":       "came to its maximum of passes",
	"no_winner":       "no candidate came through",
	"condition_false": "its condition is false",
	"upstream_failed": "a step that it needs failed",
	"run_stopped":     "the run was stopped",
	"timeout":         "took too long",
	"owner_died":      "its server went away",
	"handed_over":     "its server handed it over",
	"auto_unresolved": "nothing filled in a value",
	"outcome_unknown": "nobody knows whether it took effect",
	"schema_violated": "a value does not fit its type",
}

// reasonWords says why a run or step is as it is.
func reasonWords(reason string) string {
	if text, ok := reasons[reason]; ok {
		return text
	}
	return human.Phrase(reason)
}

// doing says what a step does: the name of its action, or its kind and what
// that names.
func doing(kind, action string) string {
	switch {
	case action == "":
		return kind
	case kind == "" || kind == "action" || kind == action:
		return action
	}
	return kind + " " + action
}

// kindIcon is the icon of a kind of step.
func kindIcon(kind string) string {
	switch kind {
	case "for", "while", "repeat", "queue":
		return "loop"
	case "if", "match":
		return "branch"
	case "action", "skill", "command", "agent", "set", "assert", "wait", "ask", "call", "parallel", "compete":
		return kind
	}
	return "action"
}

// waitIcon is the icon of what a step waits for.
func waitIcon(w *api.Waiting) string {
	switch w.GetFor() {
	case "signal", "files":
		return w.GetFor()
	case "approval":
		return "ask"
	case "retry":
		return "again"
	}
	return "wait"
}

// split takes the visit off the last part of a path: draft~2 is the second visit
// of draft, to which a jump has led back. The first visit is 0.
func split(name string) (string, int32) {
	if name, visit, ok := strings.Cut(name, "~"); ok {
		return name, number(visit)
	}
	return name, 0
}

// eventBrief is what an event carries that its summary speaks of.
type eventBrief struct {
	Run, Step struct {
		Status  string
		Reason  string
		Error   *struct{ Message string }
		Waiting *struct{ For, Signal, Files string }
	}
	Decision *struct {
		Decision, Comment, Actor string
		Value                    json.RawMessage
	}
	State                 map[string]json.RawMessage
	Signal, Actor, Reason string
	Value                 json.RawMessage
	Child                 string
	Workspace             *struct{ Files, Size int64 }
	Call                  *callBrief
	Usage                 *struct {
		Input  int32 `json:"input_tokens"`
		Output int32 `json:"output_tokens"`
	}
}

// callBrief is what is told of a call of a model or a tool.
type callBrief struct {
	Agent, Name, Param, State string
	Turn                      int32
	Failed                    bool
}

// text is the call in a few words.
func (c *callBrief) text() string {
	text := "asks a model"
	switch {
	case c.Name != "":
		text = "calls " + c.Name
	case c.Param != "":
		text = "fills in " + c.Param
	case c.Agent != "":
		text = "turn " + itoa(c.Turn+1) + " of " + c.Agent
	}
	switch {
	case c.State == "asked":
		text += ", waits for people"
	case c.State == "started":
		text += ", begun"
	case c.Failed:
		text += ", failed"
	}
	return text
}

// summary says in a line what an event tells, where that is more than its type.
func summary(e *api.Event, b *eventBrief) string {
	const most = 80
	switch e.GetType() {
	case "auto_resolved":
		if a, ok := autoOf(e); ok {
			return a.GetParam() + " = " + clip(typed(a.GetValue()), most) + " (" + filledBy(a) + ")"
		}
	case "model_called", "tool_called":
		if b.Call != nil {
			text := b.Call.text()
			if u := b.Usage; u != nil {
				text += ", " + count(u.Input) + " tokens in, " + count(u.Output) + " out"
			}
			return text
		}
	case "approval_decided":
		if d := b.Decision; d != nil {
			who := &api.Decision{Decision: d.Decision, Actor: d.Actor}
			text := by(who) + " " + said(who)
			if v := string(d.Value); v != "" && v != "null" {
				text += ": " + clip(typed(v), most)
			}
			if d.Comment != "" {
				text += " (" + clip(d.Comment, most) + ")"
			}
			return text
		}
	case "signal_received":
		return signalSummary(b)
	case "checkpoint", "workspace_lost":
		if w := b.Workspace; w != nil {
			return filesSummary(e.GetType(), b.Reason, w.Files, w.Size)
		}
	case "step_waiting":
		if w := b.Step.Waiting; w != nil {
			return "waits for " + waitWord(&api.Waiting{For: w.For, Signal: w.Signal, Files: w.Files})
		}
	case "state_set":
		if len(b.State) > 0 {
			return "sets " + strings.Join(sortedKeys(b.State), ", ")
		}
	case "run_waiting", "run_resumed":
		if b.Reason != "" {
			return reasonWords(b.Reason)
		}
	}
	of := b.Step
	if of.Status == "" {
		of = b.Run
	}
	switch {
	case of.Error != nil:
		return clip(of.Error.Message, 160)
	case of.Reason != "":
		return reasonWords(of.Reason)
	case b.Signal != "":
		return "took the signal " + b.Signal
	case b.Child != "":
		return "started run " + short(b.Child)
	}
	return ""
}

// filesSummary says what became of the files of a run's workspace.
func filesSummary(typ, reason string, files, size int64) string {
	text := fmt.Sprintf("%d files with %s", files, bytesOf(size))
	switch {
	case typ == "checkpoint":
		return text + " in the workspace"
	case reason == "too_large":
		return text + " stayed on another machine: they are too large to move"
	}
	return text + " could not be restored"
}

// signalSummary says which signal came.
func signalSummary(b *eventBrief) string {
	text := ""
	switch b.Signal {
	case "":
		return ""
	case "cancel":
		text = "asked to cancel"
	case "timeout":
		text = "its time is over"
	case "handed_over":
		return reasonWords("handed_over")
	default:
		text = "signal " + b.Signal
		if v := string(b.Value); v != "" && v != "null" {
			text += " with " + clip(typed(v), 80)
		}
	}
	if b.Actor != "" {
		text += " by " + b.Actor
	}
	return text
}
