package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Explanation is a pipeline told to people: what it is for, what it takes and
// gives, and what it does.
type Explanation struct {
	ID, Name, Version, Description string
	Inferred                       bool // the inputs were inferred from use
	Inputs                         []ExplainedInput
	Outputs                        []ExplainedOutput
	Steps                          []ExplainedStep // blocks before what they hold
	State                          []string
	Secrets                        []string
	Example                        string // a command line that runs it
}

// ExplainedInput is an input with its type in words.
type ExplainedInput struct {
	Name, Type, Description string
	Required                bool
	Default                 any
}

// ExplainedOutput is an output and the expression that gives it.
type ExplainedOutput struct{ Name, Value string }

// ExplainedStep is a step.
type ExplainedStep struct {
	Path, Title, Does, Doc string
	Condition              string
	Needs                  []string // ids of the steps of its list that it waits for
	Arm                    string   // of a choice: then, elif or else; finally
	Depth                  int      // of the list item that it is; one more in an arm
	Line                   int
}

// Explain describes a plan.
func Explain(plan *pipeline.Plan, cat pipeline.Catalog) Explanation {
	x := Explanation{
		ID: plan.ID, Name: plan.Name, Version: plan.Version, Description: strings.TrimSpace(plan.Description),
		Inferred: plan.Inferred, State: plan.State, Secrets: plan.Secrets,
	}
	for i := range plan.Inputs {
		in := &plan.Inputs[i]
		x.Inputs = append(x.Inputs, ExplainedInput{
			Name: in.Name, Type: TypeText(&in.Type), Description: strings.TrimSpace(in.Description), Required: in.Required, Default: in.Default,
		})
	}
	for i := range plan.Outputs {
		x.Outputs = append(x.Outputs, ExplainedOutput{plan.Outputs[i].Name, source(&plan.Outputs[i].Value)})
	}
	if !plan.HasOutputs {
		for _, s := range plan.Root.Steps {
			x.Outputs = append(x.Outputs, ExplainedOutput{s.ID, "the output of " + s.ID})
		}
	}
	x.body(&plan.Root, cat, "", "", 0)
	x.body(&plan.Finally, cat, "", "finally", 0)
	x.Example = example(plan)
	return x
}

func (x *Explanation) body(b *pipeline.Body, cat pipeline.Catalog, prefix, arm string, depth int) {
	if arm != "" {
		depth++
	}
	for _, s := range b.Steps {
		e := ExplainedStep{Path: prefix + s.ID, Title: s.Name, Arm: arm, Depth: depth, Line: s.Pos.Line}
		e.Does, e.Doc = does(s, cat)
		if s.Condition != nil {
			e.Condition = bare(s.Condition.Src)
		}
		if b.Order == "graph" {
			for _, d := range s.Deps {
				e.Needs = append(e.Needs, b.Steps[d.On].ID)
			}
		}
		x.Steps = append(x.Steps, e)
		if s.Loop != nil && !s.Loop.Single {
			x.body(&s.Loop.Body, cat, e.Path+"/", "", depth+1)
		}
		for i := range s.Branches {
			name := "else"
			if c := s.Branches[i].Condition; c != nil {
				name = "if " + bare(c.Src)
			}
			x.body(&s.Branches[i].Body, cat, e.Path+"/", name, depth+1)
		}
	}
}

// does says what a step does, and the first line of its action's manual.
func does(s *pipeline.StepDef, cat pipeline.Catalog) (text, doc string) {
	switch s.Kind {
	case pipeline.KindAction:
		if a := cat.Actions[s.Action]; a != nil {
			doc, _, _ = strings.Cut(strings.TrimSpace(a.Doc), "\n")
		}
		return "action " + s.Action, doc
	case pipeline.KindCommand:
		if s.Run != nil {
			line, _, more := strings.Cut(strings.TrimSpace(source(s.Run)), "\n")
			if more {
				line += " ..."
			}
			return "runs " + line, ""
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
	case pipeline.KindFor:
		text = fmt.Sprintf("for each %s of %s", s.Loop.Variable, source(s.Loop.Items))
		switch {
		case s.Loop.Parallel == -1:
			text += ", in parallel"
		case s.Loop.Parallel > 1:
			text += fmt.Sprintf(", %d at once", s.Loop.Parallel)
		}
		if s.Loop.Single && len(s.Loop.Body.Steps) == 1 {
			inner, d := does(s.Loop.Body.Steps[0], cat)
			return text + ": " + inner, d
		}
		return text, ""
	case pipeline.KindWhile:
		return fmt.Sprintf("while %s, at most %d times", bare(s.Loop.Condition.Src), s.Loop.Max), ""
	case pipeline.KindIf:
		return "chooses", ""
	}
	return string(s.Kind), ""
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
		return f.Template.Src
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

// TypeText names a type, as in list<string> or one of a, b.
func TypeText(t *pipeline.Type) string {
	s := t.Kind
	switch {
	case t.Kind == "enum":
		s = "one of " + valueList(t.Values)
	case t.Kind == "list" && t.Items != nil:
		s = "list<" + TypeText(t.Items) + ">"
	case t.Kind == "path" && t.Under != "":
		s = "path under " + t.Under
	case t.Kind == "map" && len(t.Properties) > 0:
		var parts []string
		for i := range t.Properties {
			parts = append(parts, t.Properties[i].Name+": "+TypeText(&t.Properties[i].Type))
		}
		s = "map {" + strings.Join(parts, ", ") + "}"
	}
	if t.Optional {
		return "optional " + s
	}
	return s
}

// example is a command line that runs the plan.
func example(plan *pipeline.Plan) string {
	file := plan.File
	if file == "" {
		file = plan.ID + ".yaml"
	}
	parts := []string{"orchestrator run " + shellWord(file)}
	for i := range plan.Inputs {
		if in := &plan.Inputs[i]; in.Required {
			parts = append(parts, "-i "+shellWord(in.Name+"="+sample(in.Name, &in.Type)))
		}
	}
	return strings.Join(parts, " ")
}

// sample is a value that an input might have.
func sample(name string, t *pipeline.Type) string {
	switch t.Kind {
	case "integer", "number":
		return "1"
	case "boolean":
		return "true"
	case "enum":
		if len(t.Values) > 0 {
			return strings.Trim(string(pipeline.EncodeValue(t.Values[0])), `"`)
		}
	case "duration":
		return "5m"
	case "path":
		if t.Under != "" {
			return t.Under + "/" + name
		}
		return "./" + name
	case "file":
		return "./" + name
	case "list":
		return "a,b"
	case "map":
		return "{key: value}"
	}
	return "..."
}

func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=,:@%+") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// String is the explanation as Markdown.
func (x Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n`%s` version %s\n", x.Name, x.ID, x.Version)
	if x.Description != "" {
		fmt.Fprintf(&b, "\n%s\n", x.Description)
	}
	if len(x.Inputs) > 0 {
		b.WriteString("\n## Inputs\n\n")
		if x.Inferred {
			b.WriteString("Not declared; inferred from use.\n\n")
		}
		for _, in := range x.Inputs {
			fmt.Fprintf(&b, "- `%s`: %s", in.Name, in.Type)
			switch {
			case in.Required:
				b.WriteString(", required")
			case in.Default != nil:
				fmt.Fprintf(&b, ", default `%s`", pipeline.EncodeValue(in.Default))
			}
			if in.Description != "" {
				fmt.Fprintf(&b, ". %s", in.Description)
			}
			b.WriteByte('\n')
		}
	}
	if len(x.Outputs) > 0 {
		b.WriteString("\n## Outputs\n\n")
		for _, o := range x.Outputs {
			fmt.Fprintf(&b, "- `%s`: %s\n", o.Name, o.Value)
		}
	}
	b.WriteString("\n## Steps\n\n")
	labelled := "" // the arm whose label stands above
	for _, s := range x.Steps {
		indent := strings.Repeat("  ", s.Depth)
		block, id := "", s.Path
		if i := strings.LastIndexByte(s.Path, '/'); i >= 0 {
			block, id = s.Path[:i], s.Path[i+1:]
		}
		if label := block + "/" + s.Arm; s.Arm != "" && label != labelled {
			fmt.Fprintf(&b, "%s- %s:\n", indent[2:], s.Arm)
			labelled = label
		}
		fmt.Fprintf(&b, "%s- **%s**: ", indent, id)
		if s.Title != "" {
			fmt.Fprintf(&b, "%s; ", s.Title)
		}
		b.WriteString(s.Does)
		if s.Condition != "" {
			fmt.Fprintf(&b, ", if %s", s.Condition)
		}
		if len(s.Needs) > 0 {
			fmt.Fprintf(&b, " (after %s)", quoteList(s.Needs))
		}
		b.WriteByte('\n')
	}
	if len(x.Secrets) > 0 {
		fmt.Fprintf(&b, "\n## Secrets\n\n%s\n", quoteList(x.Secrets))
	}
	fmt.Fprintf(&b, "\n## Run it\n\n    %s\n", x.Example)
	return b.String()
}
