package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// does says what a step does, and the first line of its action's manual.
func does(s *pipeline.StepDef, cat pipeline.Catalog) (text, doc string) {
	switch s.Kind {
	case pipeline.KindAction:
		if s.ActionAuto != nil {
			return "action of choice: " + templateText(s.ActionAuto.Prompt), ""
		}
		if server, tool, ok := pipeline.MCPTool(s.Action); ok {
			return fmt.Sprintf("tool %s of the MCP server %s", tool, server), ""
		}
		if a := cat.Actions[s.Action]; a != nil {
			doc, _, _ = strings.Cut(strings.TrimSpace(a.Doc), "\n")
		}
		return "action " + s.Action, doc
	case pipeline.KindCommand:
		if s.Run != nil {
			return "runs " + firstLine(source(s.Run)), ""
		}
		parts := make([]string, len(s.Command))
		for i := range s.Command {
			parts[i] = source(&s.Command[i])
		}
		return "runs " + strings.Join(parts, " "), ""
	case pipeline.KindSet:
		var names []string
		for _, e := range append(slices.Clip(s.Set), s.State...) {
			names = append(names, e.Name)
		}
		return "sets " + quoteList(names), ""
	case pipeline.KindFor, pipeline.KindQueue:
		text = fmt.Sprintf("for each %s of %s", s.Loop.Variable, source(s.Loop.Items))
		switch {
		case s.Loop.Parallel == -1:
			text += ", in parallel"
		case s.Loop.Parallel > 1:
			text += fmt.Sprintf(", %d at once", s.Loop.Parallel)
		}
		if s.Loop.Until != nil {
			text += ", until " + bare(templateText(s.Loop.Until))
		}
		if s.Loop.Single && len(s.Loop.Body.Steps) == 1 {
			inner, d := does(s.Loop.Body.Steps[0], cat)
			return text + ": " + inner, d
		}
		return text, ""
	case pipeline.KindWhile:
		return fmt.Sprintf("while %s, at most %d times", bare(templateText(s.Loop.Condition)), s.Loop.Max), ""
	case pipeline.KindRepeat:
		return fmt.Sprintf("repeats until %s, at most %d times", bare(templateText(s.Loop.Until)), s.Loop.Max), ""
	case pipeline.KindIf:
		return "chooses", ""
	case pipeline.KindMatch:
		return "chooses by " + bare(source(s.Match)), ""
	case pipeline.KindParallel:
		return "at the same time", ""
	case pipeline.KindCompete:
		text = "takes the best of"
		if s.Compete.Judge {
			text = "takes the one that the judge prefers of"
		}
		return text, ""
	case pipeline.KindSkill:
		return "skill " + s.Skill.Name, s.Skill.Description
	case pipeline.KindAgent:
		return "agent " + s.Agent.Name, s.Agent.Description
	case pipeline.KindAssert:
		return "fails unless " + bare(templateText(s.Assert)), ""
	case pipeline.KindWait:
		return waits(s), ""
	case pipeline.KindAsk:
		text = "asks: "
		if s.Ask.Approve {
			text = "asks for approval: "
		}
		text += firstLine(source(&s.Ask.Question))
		if s.Ask.Choices != nil {
			text += " " + source(s.Ask.Choices)
		}
		return text, ""
	case pipeline.KindCall:
		if s.Call.Detach {
			return "begins a run of " + s.Call.Name, ""
		}
		return "calls " + s.Call.Name, ""
	}
	return string(s.Kind), ""
}

func waits(s *pipeline.StepDef) string {
	w := s.Wait
	switch {
	case w.For != nil:
		return "waits for " + source(w.For)
	case w.Until != nil:
		return "waits until " + source(w.Until)
	case w.Signal != nil:
		return "waits for the signal " + source(w.Signal)
	}
	if w.Count > 1 {
		return fmt.Sprintf("waits for %d files %s", w.Count, source(w.Files))
	}
	return "waits for a file " + source(w.Files)
}

// firstLine is the first line of a text, with a sign where there are more.
func firstLine(s string) string {
	line, _, more := strings.Cut(strings.TrimSpace(s), "\n")
	if more {
		line += " ..."
	}
	return line
}

// bare is a condition without its braces.
func bare(src string) string {
	s := strings.TrimSpace(src)
	if strings.HasPrefix(s, "{{") && strings.HasSuffix(s, "}}") && strings.Count(s, "{{") == 1 {
		s = strings.TrimSpace(s[2 : len(s)-2])
	}
	return strings.Join(strings.Fields(s), " ")
}

// source is a field as it might stand in the document.
func source(f *pipeline.Field) string {
	switch {
	case f == nil:
		return ""
	case f.Template != nil:
		return templateText(f.Template)
	case f.List != nil:
		parts := make([]string, len(f.List))
		for i := range f.List {
			parts[i] = source(&f.List[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case f.Map != nil:
		parts := make([]string, len(f.Map))
		for i := range f.Map {
			parts[i] = f.Map[i].Name + ": " + source(&f.Map[i].Value)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	if s, ok := f.Const.(string); ok {
		return s
	}
	return string(pipeline.EncodeValue(f.Const))
}

// templateText is a template as it might stand in the document, with its tags.
func templateText(t *pipeline.Template) string {
	src := t.Src
	for i, a := range t.Autos {
		name := fmt.Sprintf("%s[%d]", pipeline.AutoName, i)
		tag := "<AUTO>" + templateText(a.Prompt) + "</AUTO>"
		src = strings.ReplaceAll(strings.ReplaceAll(src, "{{ "+name+" }}", tag), name, tag)
	}
	return src
}
