package executor_test

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// Whatever a program does with its prompt, its step ends as it should.
func TestProgramsAsAgents(t *testing.T) {
	e := start(t, storetest.Open(t), troubled)
	const agents = `
agents:
  deaf: {command: [sh, -c, 'exec 0<&-; echo fine']}
  reads: {command: [sh, -c, 'wc -c | tr -d " "']}
  given: {command: [sh, -c, 'printf "%s:%s" "$#" "$1"', sh], input: argument, instructions: "Be {{ how }}."}
  killed: {command: [sh, -c, 'echo half; echo why >&2; kill -9 $$']}
  silent: {command: ["true"]}
  learns: {command: [sh, -c, 'if grep -q "refused: .*label must be a text"; then echo "{\"label\": \"fine\"}"; else echo "{\"label\": 5}"; fi']}
inputs: {how: 'brief, "Zoë" $(id)'}
settings: {on_error: continue}
steps:
`
	const long = "{{ 'x' * 900000 }}"
	for _, c := range []struct {
		name, step, want string
		category         string // of the failure; empty: it completes
	}{
		{"a long prompt that nobody reads", `{id: s, agent: deaf, prompt: "` + long + `"}`, "fine", ""},
		{"a long prompt", `{id: s, agent: reads, prompt: "` + long + `"}`, "900000", ""},
		{"a prompt as one argument", `{id: s, agent: given, prompt: "-n 'a'\n$HOME"}`, "1:Be brief, \"Zoë\" $(id).\n\n-n 'a'\n$HOME", ""},
		{"an argument that is too long", `{id: s, agent: given, prompt: "` + long + `"}`, "standard input", pipeline.CategoryValidation},
		{"killed", `{id: s, agent: killed, prompt: x}`, "SIGKILL", pipeline.CategoryFailed},
		{"no answer", `{id: s, agent: silent, prompt: x}`, "", ""},
		{"no answer where one was promised", `{id: s, agent: silent, prompt: x, returns: {label: string}}`, "not as promised", pipeline.CategoryContract},
	} {
		_, v := e.wait(e.submit(agents+"- "+c.step, nil))
		s := v.Step("s")
		switch {
		case c.category == "" && (s.Error != nil || s.Output != any(c.want)):
			t.Errorf("%s: %.200v, %v", c.name, s.Output, s.Error)
		case c.category != "" && (s.Error == nil || s.Error.Kind != c.category || !strings.Contains(s.Error.Message, c.want)):
			t.Errorf("%s: %.200v, %v", c.name, s.Output, s.Error)
		}
	}
	run, v := e.wait(e.submit(agents+"- {id: s, agent: learns, prompt: Label it., returns: {label: string}, retry: {max_attempts: 2, initial: 1ms, on: [contract]}}", nil))
	if label, _ := v.Step("s").Output.(map[string]any); run.Status != pipeline.RunCompleted || label["label"] != "fine" || v.Step("s").Attempt != 2 {
		t.Errorf("what was wrong with its first answer was not told: %s, %v, %v", run.Status, v.Step("s").Output, run.Error)
	}
}
