package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Explanation is a pipeline told to people: what it is for, what it takes and
// gives, what it needs, and what it does.
type Explanation struct {
	ID, Name, Version, Description string
	Inferred                       bool // the inputs were inferred from use
	Inputs                         []ExplainedInput
	Outputs                        []ExplainedOutput
	Steps                          []ExplainedStep // blocks before what they hold
	State                          []string
	Models                         []string // that it names
	AnyModel                       bool     // it asks a model and leaves open which
	Tools                          []string // the actions, skills and agents that it uses
	Secrets                        []string
	Holes                          []string // keys of the <AUTO> tags without a fallback
	Triggers                       []string // what starts runs once it is registered
	People                         bool     // it asks people
	Estimate                       Estimate
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
	Jumps                  []string // where it goes on, as in "on failure: repair"
	Arm                    string   // of a block that chooses: its condition or case; finally
	Depth                  int      // of the list item that it is; one more in an arm
	Line                   int      // in File
	File                   string   // of a called pipeline, where it is another one
}

// maxExplained is how many steps are listed before calls are left closed.
const maxExplained = 5000

// explainer builds an explanation.
type explainer struct {
	Explanation
	plan *pipeline.Plan
	cat  pipeline.Catalog
	file string
}

// Explain describes a plan.
func Explain(plan *pipeline.Plan, cat pipeline.Catalog) Explanation {
	x := explainer{plan: plan, cat: cat, Explanation: Explanation{
		ID: plan.ID, Name: plan.Name, Version: plan.Version, Description: strings.TrimSpace(plan.Description),
		Inferred: plan.Inferred, State: plan.State, Secrets: plan.Secrets,
	}}
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
	x.unit(&plan.Unit, "", 0)
	x.needs(&plan.Unit)
	for _, u := range plan.Units {
		x.needs(u)
	}
	slices.Sort(x.Models)
	slices.Sort(x.Tools)
	for _, h := range Holes(plan) {
		if !h.Fallback {
			x.Holes = append(x.Holes, h.Key)
		}
	}
	x.AnyModel = x.AnyModel || len(x.Holes) > 0
	x.Estimate = estimate(plan)
	x.Example = example(plan)
	x.Triggers = triggerTexts(plan)
	return x.Explanation
}

func (x *explainer) unit(u *pipeline.Unit, prefix string, depth int) {
	file := x.file
	if u.File != x.plan.File {
		x.file = u.File
	}
	x.body(&u.Root, prefix, "", depth)
	x.body(&u.Finally, prefix, "finally", depth)
	x.file = file
}

func (x *explainer) body(b *pipeline.Body, prefix, arm string, depth int) {
	if arm != "" {
		depth++
	}
	for _, s := range b.Steps {
		e := ExplainedStep{Path: prefix + s.ID, Title: s.Name, Arm: arm, Depth: depth, Line: s.Pos.Line, File: x.file}
		e.Does, e.Doc = does(s, x.cat)
		if s.Condition != nil {
			e.Condition = bare(templateText(s.Condition))
		}
		if b.Order == "graph" {
			for _, d := range s.Deps {
				e.Needs = append(e.Needs, b.Steps[d.On].ID)
			}
		}
		e.Jumps = jumpTexts(s, b)
		x.Steps = append(x.Steps, e)
		x.within(s, e.Path+"/", depth+1)
	}
}

// within tells what a step holds.
func (x *explainer) within(s *pipeline.StepDef, prefix string, depth int) {
	switch {
	case s.Loop != nil && s.Loop.Single && len(s.Loop.Body.Steps) == 1:
		x.within(s.Loop.Body.Steps[0], prefix, depth)
	case s.Loop != nil:
		x.body(&s.Loop.Body, prefix, "", depth)
	case s.Call != nil && !s.Call.Detach && len(x.Steps) < maxExplained:
		x.unit(x.plan.Units[s.Call.Unit], prefix, depth)
	}
	for i := range s.Branches {
		b := &s.Branches[i]
		name := ""
		switch {
		case b.Condition != nil:
			name = "if " + bare(templateText(b.Condition))
		case b.Case != nil:
			name = "case " + *b.Case
		case s.Kind == pipeline.KindIf:
			name = "else"
		case s.Kind == pipeline.KindMatch:
			name = "default"
		}
		x.body(&b.Body, prefix, name, depth)
	}
}

// jumpTexts tells where a step goes on.
func jumpTexts(s *pipeline.StepDef, b *pipeline.Body) []string {
	var out []string
	add := func(when string, to *int) {
		if to != nil {
			out = append(out, when+": "+b.Steps[*to].ID)
		}
	}
	if r := s.Routes; r != nil {
		add("on success", r.Success)
		add("on failure", r.Failure)
		add("when skipped", r.False)
		add("in any case", r.Always)
	}
	for i := range s.OnError {
		add("on error", s.OnError[i].To)
	}
	return out
}

// needs collects the models and tools of a pipeline.
func (x *explainer) needs(u *pipeline.Unit) {
	eachStep(u, func(s *pipeline.StepDef) {
		tool := s.Action
		asks := false
		switch {
		case s.Action != "":
			a := x.cat.Actions[s.Action]
			_, _, remote := pipeline.MCPTool(s.Action)
			asks = a == nil && !remote || a != nil && a.Model
			if a != nil && a.Tool != "" {
				tool = a.Tool
			}
		case s.Skill != nil:
			tool = "skill " + s.Skill.Name
			asks = s.Skill.Prompt != ""
		case s.Agent != nil:
			tool = "agent " + s.Agent.Name
			asks = len(s.Agent.Command) == 0
			x.agent(s.Agent)
		}
		x.uses(tool)
		if s.Model != nil {
			x.model(source(s.Model))
		} else if asks {
			x.AnyModel = true
		}
		for i := range s.OnError {
			x.model(s.OnError[i].Model)
		}
		x.People = x.People || s.Kind == pipeline.KindAsk
	})
}

func (x *explainer) uses(tool string) {
	if tool != "" && !slices.Contains(x.Tools, tool) {
		x.Tools = append(x.Tools, tool)
	}
}

func (x *explainer) model(name string) {
	if name != "" && !slices.Contains(x.Models, name) {
		x.Models = append(x.Models, name)
	}
}

// agent collects what an agent may call, and whom that may ask.
func (x *explainer) agent(a *pipeline.Agent) {
	for i := range a.Tools {
		t := &a.Tools[i]
		switch {
		case t.Agent != "":
			x.uses("agent " + t.Agent)
		case t.Pipeline != nil:
			x.uses("pipeline " + t.Pipeline.Name)
		default:
			x.uses(t.Name)
		}
		x.People = x.People || t.Gate != nil || t.Name == "ask_human"
	}
	for _, name := range a.MCP {
		x.uses(pipeline.MCPName(name, "*"))
	}
	for i := range a.Skills {
		x.uses("skill " + a.Skills[i].Name)
	}
	for i := range a.Agents {
		b := &a.Agents[i]
		if b.Model != nil {
			x.model(source(b.Model))
		}
		x.agent(b)
	}
}

// eachStep calls f for every step of a pipeline, but not for those of the
// pipelines that it calls.
func eachStep(u *pipeline.Unit, f func(*pipeline.StepDef)) {
	var body func(b *pipeline.Body)
	body = func(b *pipeline.Body) {
		for _, s := range b.Steps {
			f(s)
			if s.Loop != nil {
				body(&s.Loop.Body)
			}
			for i := range s.Branches {
				body(&s.Branches[i].Body)
			}
		}
	}
	body(&u.Root)
	body(&u.Finally)
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
		return "[a, b]"
	case "map":
		return "{key: value}"
	}
	return "TEXT"
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
	fmt.Fprintf(&b, "\n## Steps\n\n%s.\n\n", x.Estimate)
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
		if len(s.Jumps) > 0 {
			fmt.Fprintf(&b, "; %s", quoteList(s.Jumps))
		}
		b.WriteByte('\n')
	}
	x.writeNeeds(&b)
	fmt.Fprintf(&b, "\n## Run it\n\n    %s\n", x.Example)
	return b.String()
}

func (x *Explanation) writeNeeds(b *strings.Builder) {
	models := slices.Clone(x.Models)
	if x.AnyModel {
		models = append(models, "any that the server has")
	}
	for _, part := range []struct {
		name  string
		words []string
	}{{"Tools", x.Tools}, {"Models", models}, {"Secrets", x.Secrets}, {"Values to fill in", x.Holes}} {
		if len(part.words) > 0 {
			fmt.Fprintf(b, "\n## %s\n\n%s\n", part.name, quoteList(part.words))
		}
	}
}
