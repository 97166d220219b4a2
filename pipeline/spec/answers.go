package spec

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// Hole is an <AUTO> tag of a plan: a value that an answer, a model or a fallback
// fills in.
type Hole struct {
	Key      string         // "step.param"; steps in blocks and called pipelines by their path, as in "loop/step.param"
	Auto     *pipeline.Auto // of the plan
	File     string         // where it stands
	Fallback bool           // it has one, or the settings of its pipeline do
}

// maxHoles bounds how many are listed, as a pipeline may be called many times.
const maxHoles = 10_000

// Holes lists the tags of a plan and of the pipelines that run within it; inner
// tags stand before the one around them.
func Holes(plan *pipeline.Plan) []Hole {
	h := holes{plan: plan}
	h.unit(&plan.Unit, "")
	return h.list
}

type holes struct {
	plan *pipeline.Plan
	list []Hole
}

func (h *holes) unit(u *pipeline.Unit, prefix string) {
	h.body(u, &u.Root, prefix)
	h.body(u, &u.Finally, prefix)
}

func (h *holes) body(u *pipeline.Unit, b *pipeline.Body, prefix string) {
	for _, s := range b.Steps {
		path := strings.TrimSuffix(prefix, "/")
		if s.ID != "" {
			path = prefix + s.ID
		}
		h.auto(u, path, s.ActionAuto)
		eachTemplate(s, func(t *pipeline.Template) {
			for _, a := range t.Autos {
				h.auto(u, path, a)
			}
		})
		if s.Loop != nil {
			h.body(u, &s.Loop.Body, path+"/")
		}
		for i := range s.Branches {
			h.body(u, &s.Branches[i].Body, path+"/")
		}
		if c := s.Call; c != nil && !c.Detach && c.Unit < len(h.plan.Units) && len(h.list) < maxHoles {
			h.unit(h.plan.Units[c.Unit], path+"/")
		}
	}
}

func (h *holes) auto(u *pipeline.Unit, path string, a *pipeline.Auto) {
	if a == nil || len(h.list) >= maxHoles {
		return
	}
	if a.Prompt != nil {
		for _, inner := range a.Prompt.Autos {
			h.auto(u, path, inner)
		}
	}
	settings := u.Settings.Auto
	h.list = append(h.list, Hole{
		Key: path + "." + a.Key, Auto: a, File: u.File,
		Fallback: a.Fallback != nil || settings != nil && settings.Fallback != nil,
	})
}

// eachTemplate calls f for the templates of a step, but not for those of the
// steps in it.
func eachTemplate(s *pipeline.StepDef, f func(*pipeline.Template)) {
	template := func(t *pipeline.Template) {
		if t != nil {
			f(t)
		}
	}
	var field func(*pipeline.Field)
	entries := func(es []pipeline.Entry) {
		for i := range es {
			field(&es[i].Value)
		}
	}
	fields := func(fs []pipeline.Field) {
		for i := range fs {
			field(&fs[i])
		}
	}
	field = func(x *pipeline.Field) {
		if x == nil {
			return
		}
		template(x.Template)
		fields(x.List)
		entries(x.Map)
	}
	template(s.Condition)
	entries(s.Parameters)
	if s.Agent != nil { // in its tools, and in other agents, nothing is filled in
		fields(s.Agent.Command)
		field(s.Agent.Instructions)
	}
	field(s.Prompt)
	field(s.Model)
	fields(s.Command)
	field(s.Run)
	entries(s.Env)
	entries(s.Set)
	template(s.Assert)
	if w := s.Wait; w != nil {
		for _, x := range []*pipeline.Field{w.For, w.Until, w.Signal, w.Files} {
			field(x)
		}
	}
	if a := s.Ask; a != nil {
		for _, x := range []*pipeline.Field{&a.Question, a.Choices, a.Default, a.Assignees} {
			field(x)
		}
	}
	if s.Call != nil {
		entries(s.Call.With)
	}
	if l := s.Loop; l != nil {
		field(l.Items)
		template(l.Condition)
		template(l.Until)
		template(l.Collect)
		entries(l.Exhausted)
	}
	field(s.Match)
	for i := range s.Branches {
		template(s.Branches[i].Condition)
	}
	if s.Compete != nil {
		field(s.Compete.Ledger)
	}
	fields(s.Artifacts)
	if s.Files != nil {
		fields(s.Files.Required)
		fields(s.Files.Optional)
	}
	if s.Returns != nil {
		field(s.Returns.File)
	}
	if s.Cache != nil {
		field(s.Cache.Key)
	}
	for i := range s.OnError {
		field(s.OnError[i].Value)
	}
	entries(s.State)
}

// passes are the numbers of passes and visits in a path.
var passes = regexp.MustCompile(`\[\d+\]|~\d+`)

// general is the key without the numbers of passes and visits, as in
// "loop/step.param" for "loop[2]/step.param".
func general(key string) string {
	path, rest, found := strings.Cut(key, ".")
	if !found {
		return key
	}
	return passes.ReplaceAllString(path, "") + "." + rest
}

// CheckAnswers checks answers to a plan's tags, by key, and returns them
// converted by type. A key may name one pass of a loop, as in
// "loop[2]/step.param". unused lists the keys that no tag has, sorted; they are
// left out. The error is a *pipeline.Diagnostics with code E0502, whose Path is
// the key and whose place is the tag.
func CheckAnswers(plan *pipeline.Plan, answers map[string]any) (clean map[string]any, unused []string, err error) {
	if len(answers) == 0 {
		return nil, nil, nil
	}
	byKey := holesByKey(plan)
	clean = make(map[string]any, len(answers))
	var bad []pipeline.Diagnostic
	for _, key := range slices.Sorted(maps.Keys(answers)) {
		hole, known := byKey[key]
		if !known {
			hole, known = byKey[general(key)]
		}
		if !known {
			unused = append(unused, key)
			continue
		}
		v, wrong := check(&hole.Auto.Type, answers[key])
		if wrong != nil {
			bad = append(bad, hole.diagnostic("E0502", key, fmt.Sprintf("the answer to %s %s", key, wrong), wrong.Hint))
			continue
		}
		clean[key] = v
	}
	if bad != nil {
		return nil, unused, limited(bad)
	}
	return clean, unused, nil
}

// MeantAnswer asks, in brackets, whether another tag's key was meant by one that
// no tag has; empty: none is like it.
func MeantAnswer(plan *pipeline.Plan, key string) string {
	if like := expr.Suggest(general(key), slices.Sorted(maps.Keys(holesByKey(plan)))); like != "" {
		return fmt.Sprintf(" (did you mean %q?)", like)
	}
	return ""
}

// MissingAnswers names each tag that neither an answer nor a fallback fills in;
// it is asked where there is no model to do so. The error is a
// *pipeline.Diagnostics with code E0306, whose Path is the key.
func MissingAnswers(plan *pipeline.Plan, answers map[string]any) error {
	given := make(map[string]bool, len(answers))
	for key := range answers {
		given[key] = true
		given[general(key)] = true
	}
	var bad []pipeline.Diagnostic
	for _, h := range Holes(plan) {
		if h.Fallback || given[h.Key] {
			continue
		}
		bad = append(bad, h.diagnostic("E0306", h.Key, fmt.Sprintf("nothing fills in %s: it has no answer and no fallback, and there is no model", h.Key),
			fmt.Sprintf("an answers file gives it as %s: VALUE, where VALUE is %s; a model is asked where a provider has a key, or a script stands in for it (--script FILE)", h.Key, typeText(&h.Auto.Type))))
	}
	if bad == nil {
		return nil
	}
	return limited(bad)
}

func limited(list []pipeline.Diagnostic) *pipeline.Diagnostics {
	d := &pipeline.Diagnostics{List: list}
	if len(list) > maxDiagnostics {
		d.List, d.Truncated = list[:maxDiagnostics], len(list)-maxDiagnostics
	}
	return d
}

func (h *Hole) diagnostic(code, key, message, hint string) pipeline.Diagnostic {
	at := h.Auto.Pos
	at.Line, at.Column = max(at.Line, 1), max(at.Column, 1)
	return pipeline.Diagnostic{
		Code: code, Severity: pipeline.SeverityError, Message: message, Hint: hint,
		File: h.File, Line: at.Line, Column: at.Column, EndLine: at.Line, EndColumn: at.Column + len(tagOpen), Path: key,
	}
}

func holesByKey(plan *pipeline.Plan) map[string]Hole {
	m := map[string]Hole{}
	for _, h := range Holes(plan) {
		if _, known := m[h.Key]; !known {
			m[h.Key] = h
		}
	}
	return m
}

// ParseAnswer reads an answer given as text, as on the command line:
// "step.param=value", by the tag's type. The error is a *pipeline.Diagnostics.
func ParseAnswer(plan *pipeline.Plan, text string) (key string, value any, err error) {
	key, value2, found := strings.Cut(text, "=")
	key = strings.TrimSpace(key)
	refuse := func(message, hint string) error {
		return &pipeline.Diagnostics{List: []pipeline.Diagnostic{{
			Code: "E0502", Severity: pipeline.SeverityError, Message: message, Hint: hint, Path: key, Line: 1, Column: 1, EndLine: 1, EndColumn: 2,
		}}}
	}
	if !found {
		return "", nil, refuse(fmt.Sprintf("%q is not an answer", text), "it is written as step.param=value")
	}
	byKey := holesByKey(plan)
	hole, known := byKey[key]
	if !known {
		hole, known = byKey[general(key)]
	}
	if !known {
		names := slices.Sorted(maps.Keys(byKey))
		message, hint := fmt.Sprintf("nothing is filled in at %q", key), "the pipeline has no <AUTO> tags"
		if len(names) > 0 {
			hint = "there are " + quoteList(names[:min(len(names), 20)])
		}
		return "", nil, refuse(message+MeantAnswer(plan, key), hint)
	}
	v, err := parseText(&hole.Auto.Type, value2)
	if err != nil {
		return "", nil, &pipeline.Diagnostics{List: []pipeline.Diagnostic{hole.diagnostic("E0502", key, fmt.Sprintf("the answer to %s: %v", key, err), "")}}
	}
	return key, v, nil
}

// ParseAnswers reads a file of answers: a mapping from keys such as step.param
// to values, in YAML or JSON. The error is a *pipeline.Diagnostics.
func ParseAnswers(file string, text []byte) (map[string]any, error) {
	return readMapping(file, text, "answers are a mapping from keys such as step.param to values")
}
