package executor_test

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// A conversation has one id from the step that starts it on; each start has its own.
func TestSessionsOfAgentsThatArePrograms(t *testing.T) {
	e := start(t, storetest.Open(t), troubled)
	const agents = "agents:\n  coder: {command: [printf, '%s %s', '{{ session.id }}', '{{ session.start }}']}\n  plain: {command: [printf, '%s', '{{ session is none }}']}\nsteps:\n"
	run, v := e.wait(e.submit(agents+`- id: passes
  for: {items: [1, 2]}
  steps:
  - {id: ask, agent: coder, prompt: Begin., session: {start: talk}}
  - {id: more, agent: coder, prompt: Go on., session: {continue: talk}}
- {id: alone, agent: plain, prompt: Hello.}`, nil))
	if run.Status != pipeline.RunCompleted || run.Outputs["alone"] != "true" {
		t.Fatalf("%s %v %v", run.Status, run.Outputs, run.Error)
	}
	ids := map[string]bool{}
	for _, pass := range []pipeline.Path{"passes[0]", "passes[1]"} {
		begun, _ := v.Step(pass + "/ask").Output.(string)
		more, _ := v.Step(pass + "/more").Output.(string)
		id, starts, _ := strings.Cut(begun, " ")
		if starts != "true" || more != id+" false" || len(id) != 36 {
			t.Errorf("%s: %q, then %q", pass, begun, more)
		}
		ids[id] = true
		recorded, _ := v.Step(pass + "/more").Parameters.(map[string]any)
		if s, _ := recorded["session"].(map[string]any); s["id"] != id {
			t.Errorf("recorded %v", recorded)
		}
	}
	if len(ids) != 2 {
		t.Errorf("two starts have the ids %v", ids)
	}
	if run, _ := e.wait(e.submit(agents+"- {id: a, agent: coder, prompt: x, session: {start: talk}, condition: 'false'}\n- {id: b, agent: coder, prompt: x, session: {continue: talk}}", nil)); run.Status != pipeline.RunFailed ||
		!strings.Contains(run.Error.Message, "has started the session") {
		t.Errorf("%s %v", run.Status, run.Error)
	}
}
