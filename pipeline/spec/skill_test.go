package spec

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const skillText = `---
name: code-analyzer
description: Analyzes one file.
license: MIT
parameters:
  file: {type: path}
  depth: {type: integer, default: 2, description: how far}
returns: {score: number}
run: [./analyze.py, --json]
tools: [python]
active: false
---

# How it works
`

func TestParseSkill(t *testing.T) {
	for _, text := range []string{skillText, strings.ReplaceAll(skillText, "\n", "\r\n"), "\ufeff" + skillText} {
		got, err := ParseSkill("SKILL.md", []byte(text))
		if err != nil {
			t.Fatal(render(err))
		}
		want := &SkillFile{
			Skill: pipeline.Skill{
				Name: "code-analyzer", Description: "Analyzes one file.",
				Parameters: []pipeline.Property{
					{Name: "file", Type: pipeline.Type{Kind: "path"}, Required: true},
					{Name: "depth", Type: pipeline.Type{Kind: "integer"}, Default: int64(2), Doc: "how far"},
				},
				Returns: &pipeline.Type{Kind: "map", Properties: []pipeline.Property{{Name: "score", Type: pipeline.Type{Kind: "number"}, Required: true}}},
				Command: []string{"./analyze.py", "--json"},
			},
			Inactive: true, Tools: []string{"python"}, License: "MIT", Body: "# How it works",
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	open, err := ParseSkill("SKILL.md", []byte("---\nname: w\ndescription: d\n---\n\nWrite.\n"))
	if err != nil || !open.Open || open.Prompt != "Write." || open.Returns != nil {
		t.Errorf("%+v, %v", open, err)
	}
	if _, err := ParseSkill("x/SKILL.md", []byte("---\nname: w\n")); err == nil || !strings.HasPrefix(render(err), "x/SKILL.md:1:1: error E0101") {
		t.Errorf("%v", err)
	}
}

// FuzzSkill: any text is a skill or has findings at places.
func FuzzSkill(f *testing.F) {
	f.Add([]byte(skillText))
	f.Add([]byte("---\n---\n"))
	f.Add([]byte("---\nname: [x]\nrun: {}\nreturns: {type: list}\nparameters: 3\n---"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseSkill("SKILL.md", text)
		if err == nil {
			if s.Name == "" || s.Command == nil && s.Run == "" && s.Prompt == "" {
				t.Errorf("%+v", s)
			}
			return
		}
		var d *pipeline.Diagnostics
		if !errors.As(err, &d) || !d.HasErrors() || d.List[0].Line < 1 {
			t.Errorf("%v", err)
		}
	})
}

func TestNeeds(t *testing.T) {
	got := Needs([]byte(`
imports: {review: lib/review.yaml, out: /etc/passwd}
bundle: [scripts/**, data/*.csv]
actions: {triage: {prompt_file: prompts/triage.md}}
agents: {a: {instructions_file: prompts/who.md, skills: [code-analyzer, known]}, b: {skills: alone}}
models: {a: {provider: script, file: data/answers.yaml}, b: {provider: anthropic}}
unknown: key
steps:
  - {id: a, skill: code-analyzer, parameters: {skill: no, prompt_file: no}}
  - id: b
    for: {items: <AUTO>a: b, c</AUTO>}
    steps:
      - {id: c, agent: x, prompt_file: prompts/x.md}
      - {id: d, skill: code-analyzer}
      - {id: d, skill: "{{ x }}"}
  - id: e
    match: {on: x, cases: {A: [{id: f, skill: other}]}}
  - id: g
    pipeline: {imports: {x: y.yaml}, steps: [{id: h, skill: third}]}
finally: [{id: z, skill: last}]
`))
	want := []Need{
		{NeedImport, "lib/review.yaml", pipeline.Pos{Line: 2, Column: 19}},
		{NeedGlob, "scripts/**", pipeline.Pos{Line: 3, Column: 10}},
		{NeedGlob, "data/*.csv", pipeline.Pos{Line: 3, Column: 22}},
		{NeedPrompt, "prompts/triage.md", pipeline.Pos{Line: 4, Column: 33}},
		{NeedPrompt, "prompts/who.md", pipeline.Pos{Line: 5, Column: 33}},
		{NeedSkill, "code-analyzer", pipeline.Pos{Line: 5, Column: 58}},
		{NeedSkill, "known", pipeline.Pos{Line: 5, Column: 73}},
		{NeedSkill, "alone", pipeline.Pos{Line: 5, Column: 94}},
		{NeedModel, "data/answers.yaml", pipeline.Pos{Line: 6, Column: 38}},
		{NeedPrompt, "prompts/x.md", pipeline.Pos{Line: 13, Column: 40}},
		{NeedSkill, "other", pipeline.Pos{Line: 17, Column: 47}},
		{NeedImport, "y.yaml", pipeline.Pos{Line: 19, Column: 29}},
		{NeedSkill, "third", pipeline.Pos{Line: 19, Column: 61}},
		{NeedSkill, "last", pipeline.Pos{Line: 20, Column: 26}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "a: [", "- x", "\xff", "steps: 3"} {
		if got := Needs([]byte(bad)); len(got) > 0 {
			t.Errorf("%q needs %v", bad, got)
		}
	}
}
