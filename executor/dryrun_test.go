package executor_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// planned writes what a dry run tells, one step a line.
func planned(list []pipeline.Planned) []string {
	var lines []string
	for _, p := range list {
		line := string(p.Path) + " " + string(p.Kind) + " " + p.WouldRun
		for _, part := range [][2]string{{"$ ", p.Command}, {"> ", p.Prompt}, {"# ", p.Reason}} {
			if part[1] != "" {
				line += " " + part[0] + strings.ReplaceAll(part[1], "\n", "|")
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func TestDryRun(t *testing.T) {
	e := start(t, storetest.Open(t), troubled)
	tests := []struct {
		name    string
		src     string
		files   map[string]string
		inputs  map[string]any
		answers map[string]any
		want    []string
	}{
		{
			name: "commands, as far as they are known",
			src: "inputs: {name: \"Ann's\"}\nvars: {v: '{{ name | upper }}'}\nsteps:\n- {id: a, command: [echo, '{{ v }}', 'a b']}\n" +
				"- {id: b, run: 'echo {{ a | sh }} {{ name | sh }} {{ run.id }}'}\n- {id: c, run: 'cat {{ pipeline.dir }}/{{ list_files(\"*\") | length }}'}",
			want: []string{
				`a command yes $ echo 'ANN'\''S' 'a b'`,
				`b command yes $ echo {{ a | sh }} 'Ann'\''s' {{ run.id }} # not known yet: step a`,
				`c command yes $ cat {{ pipeline.dir }}/{{ list_files("*") | length }} # not known yet: where the pipeline's files will be`,
			},
		},
		{
			name: "conditions and what depends on them",
			src: "inputs: {n: 3}\nsteps:\n- {id: no, run: 'true', if: '{{ n > 5 }}'}\n- {id: after, run: 'echo {{ no.status }}', if: '{{ no is none }}'}\n" +
				"- {id: some, run: 'true', if: '{{ after == \"x\" }}'}\n- {id: short, run: 'true', if: '{{ n > 5 and after == \"x\" }}'}\n- {id: wrong, run: 'true', if: '{{ 1 / (n - 3) }}'}",
			want: []string{
				"no command no # its condition is false",
				"after command yes $ echo skipped",
				"some command unknown $ true # depends on step after",
				"short command no # its condition is false",
				"wrong command no # its condition cannot be evaluated: division by zero",
			},
		},
		{
			name: "what set and pure actions compute is known",
			src: "inputs: {n: 3}\nsteps:\n- {id: s, set: {k: '{{ n + 1 }}'}}\n- {id: t, action: transform, with: {input: [3, 1, 2], transformation: sort}}\n" +
				"- {id: a, run: 'echo {{ k }} {{ s.k }} {{ t | tojson }}', state: {m: '{{ a }}'}}\n- {id: b, run: 'echo {{ m }}', needs: a}",
			want: []string{"s set yes", "t action yes $ transform input='[3,1,2]' transformation=sort", "a command yes $ echo 4 4 [1, 2, 3]", "b command yes $ echo {{ m }} # not known yet: step a"},
		},
		{
			name: "blocks, each once",
			src: "inputs: {xs: {type: list, default: [1, 2]}, mode: fast}\nsteps:\n" +
				"- id: l\n  for: {items: '{{ xs }}'}\n  steps:\n  - {id: a, run: 'echo {{ item }} {{ mode }}'}\n" +
				"- id: zero\n  for: {items: []}\n  action: debug\n- id: one\n  for: {items: '{{ l.results }}'}\n  run: 'echo {{ item }}'\n" +
				"- id: i\n  if: {condition: '{{ mode == \"fast\" }}', then: [{id: x, run: 'true'}]}\n  else: [{id: y, run: 'true'}]\n" +
				"- id: m\n  match: {on: '{{ l.iterations }}', cases: {A: [{id: p, run: 'true'}]}}\n" +
				"- id: w\n  while: {condition: '{{ (n or 0) < 1 }}', max_iterations: 3}\n  steps:\n  - {id: z, set: {n: '{{ (n or 0) + 1 }}'}, if: '{{ n is none }}'}\n" +
				"- id: par\n  parallel: [{id: q, run: 'true'}]\nfinally:\n- {id: tidy, run: 'echo {{ mode }}'}",
			want: []string{
				"l for yes", "l/a command yes $ echo {{ item }} fast # not known yet: the item of loop l",
				"zero for yes",
				"one for yes $ echo {{ item }}",
				"i if yes", "i/x command yes $ true", "i/y command no # another arm is taken",
				"m match yes", "m/p command unknown $ true # depends on step l",
				"w while yes", "w/z set unknown # depends on the passes of loop w",
				"par parallel yes", "par/q command yes $ true",
				"tidy command yes $ echo fast",
			},
		},
		{
			name: "jumps",
			src:  "settings: {order: sequence}\nsteps:\n- {id: a, run: 'true', on_success: c}\n- {id: b, run: 'true'}\n- {id: c, run: 'true', if: '{{ false }}', on_false: e}\n- {id: d, run: 'true'}\n- {id: e, run: 'true'}",
			want: []string{
				"a command yes $ true", "b command unknown $ true # depends on how step a ends",
				"c command no # its condition is false", "d command no # step c jumps over it", "e command yes $ true",
			},
		},
		{
			name: "people, models and agents",
			src: "inputs: {topic: tea}\nagents: {echo: {command: [cat, '{{ model }}'], model: small, instructions: Be brief.}}\nsteps:\n" +
				"- {id: q, ask: {question: 'Is {{ topic }} good?'}}\n- {id: g, action: generate, with: {prompt: 'Praise {{ topic }}, {{ q }}.'}}\n- {id: ag, agent: echo, prompt: 'On {{ topic }}'}\n- {id: sk, skill: s, with: {}}",
			files: map[string]string{"skills/s/SKILL.md": "---\nname: s\ndescription: d\nrun: [python3, ./x.py]\n---\n"},
			want: []string{
				"q ask yes > Is tea good?",
				"g action yes $ generate > Praise tea, {{ q }}. # not known yet: step q",
				"ag agent yes $ cat small > Be brief.||On tea",
				"sk skill yes $ python3 ./x.py",
			},
		},
		{
			name:    "tags",
			src:     "steps:\n- {id: a, run: 'echo <AUTO>what</AUTO>'}\n- {id: b, run: 'echo <AUTO fallback=\"x\">what</AUTO>'}\n- {id: c, run: 'echo <AUTO>what of {{ 1 + 1 }}</AUTO> {{ 1 + 1 }}'}",
			answers: map[string]any{"a.run": "given"},
			want: []string{
				"a command yes $ echo given", "b command yes $ echo x",
				"c command yes $ echo <AUTO>what of {{ 1 + 1 }}</AUTO> 2 # not known yet: an <AUTO> tag",
			},
		},
		{
			name:  "what is called",
			src:   "inputs: {n: 1}\nimports: {part: part.yaml}\nsteps:\n- {id: c, call: part, with: {n: '{{ n + 1 }}'}}\n- {id: d, call: part, with: {n: '{{ c.v }}'}}",
			files: map[string]string{"part.yaml": "inputs: {n: integer, word: hi}\nsteps:\n- {id: x, run: 'echo {{ word }} {{ n }}', if: '{{ n > 1 }}'}\noutputs: {v: '{{ x | int }}'}\n"},
			want: []string{
				"c call yes", "c/x command yes $ echo hi 2",
				"d call yes", "d/x command unknown $ echo hi {{ n }} # depends on step c",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &engine{Executor: e.Executor, t: t, store: e.store}
			s := e.packed(tt.src, tt.files, tt.inputs)
			s.Answers = tt.answers
			list, err := e.DryRun(context.Background(), s)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, planned(list)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// untouchable is a store in which nothing can be done.
type untouchable struct{ store.Store }

func TestADryRunTouchesNothing(t *testing.T) {
	dir := t.TempDir()
	ex, err := executor.New(executor.Config{
		Store: untouchable{}, Actions: step.All(step.Config{}), Command: step.Command(step.Config{}),
		Workspace: dir, Workspaces: dir, Bundles: dir + "/bundles",
	})
	if err != nil {
		t.Fatal(err)
	}
	src := "bundle: [x]\nsteps:\n- {id: a, run: 'touch made'}\n- {id: b, action: filesystem.write, with: {path: w, content: x}}\n- {id: c, action: execute, with: {language: sh, code: 'touch made'}}\n" +
		"- {id: d, set: {k: '{{ include_file(\"made\") }}'}}\n- {id: e, wait: {files: '*'}}\n- {id: f, run: 'true', cache: true}"
	files := pipeline.Bundle{"x": []byte("x")}
	plan, _, err := spec.Compile(spec.Source{File: "t.yaml", Text: []byte(src), Files: files}, ex.Catalog())
	if err != nil {
		t.Fatal(err)
	}
	list, err := ex.DryRun(t.Context(), pipeline.Submission{Plan: plan, Bundle: files, Uploads: files})
	if err != nil || len(list) != 6 {
		t.Fatalf("%v %v", list, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("there are %v, %v", entries, err)
	}
}
