package script

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ask(step, action, prompt string) *model.Request {
	return &model.Request{
		Step: pipeline.Path(step), Action: action,
		Messages: []model.Message{model.UserText("before"), model.AssistantText("ok"), model.UserText(prompt)},
	}
}

// call waits for the whole answer.
func call(ctx context.Context, p *Provider, r *model.Request) (*model.Response, error) {
	s, err := p.Call(ctx, r)
	if err != nil {
		return nil, err
	}
	return model.Drain(s, nil)
}

const demo = `
# rules are tried in order
rules:
  - when: {step: greet, last_user: {equals: "hi"}}
    text: exactly
  - when: {step: greet}
    text: "Hello, {{ prompt | upper }}! I am {{ step }}."
    usage: {input_tokens: 12, output_tokens: 5, cost_usd: 0.25}
  - when: {step: 'loop[2]/inner'}
    text: the third pass
  - when: {action: generate, last_user: {contains: weather}}
    json: {sun: true, degrees: 21.5, days: [1, "2", null, ~, yes], none: }
  - when: {last_user: {matches: "^[0-9]+$"}}
    text: a number
  - when: {model: flaky}
    error: {status: 429, retry_after: 1.5, message: slow down}
  - when: {model: broken}
    error: {}
  - when: {model: slow}
    delay: 50ms
    text: |
      at last
`

func parse(t *testing.T, source string) *Provider {
	t.Helper()
	p, err := Parse("demo.script.yaml", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFirstRuleThatFitsAnswers(t *testing.T) {
	p := parse(t, demo)
	for _, c := range []struct {
		request *model.Request
		want    string
	}{
		{ask("greet", "generate", "hi"), "exactly"},
		{ask("greet", "generate", "Ada"), "Hello, ADA! I am greet."},
		{ask("outer[1]/greet", "x", "Bob"), "Hello, BOB! I am outer[1]/greet."},
		{ask("loop[2]/inner", "x", "?"), "the third pass"},
		{ask("s", "generate", "the weather?"), `{"days":[1,"2",null,null,"yes"],"degrees":21.5,"none":null,"sun":true}`},
		{ask("loop[1]/inner", "x", "123"), "a number"},
	} {
		a, err := call(t.Context(), p, c.request)
		if err != nil {
			t.Errorf("%s: %v", c.request.Step, err)
			continue
		}
		if a.Text() != c.want || a.Model != "script" {
			t.Errorf("%s: got %q by %s", c.request.Step, a.Text(), a.Model)
		}
	}
	a, err := call(t.Context(), p, ask("greet", "x", "y"))
	if err != nil || *a.Usage != (pipeline.Usage{InputTokens: 12, OutputTokens: 5, CostUSD: 0.25}) {
		t.Errorf("got %v, %v", a, err)
	}
}

func TestScriptedErrors(t *testing.T) {
	p := parse(t, demo)
	r := ask("s", "x", "?")
	r.Model = "flaky"
	_, err := call(t.Context(), p, r)
	e, ok := errors.AsType[*model.Error](err)
	if !ok || e.Class != model.ClassRateLimit || e.RetryAfter != 1500*time.Millisecond || e.Message != "slow down (status 429)" || e.Status != 429 {
		t.Errorf("got %#v", err)
	}
	r.Model = "broken"
	_, err = call(t.Context(), p, r)
	if e, ok = errors.AsType[*model.Error](err); !ok || e.Class != model.ClassServer {
		t.Errorf("got %#v", err)
	}
	for what, class := range map[string]string{
		"status: 400": "invalid", "status: 401": "auth", "status: 402": "quota", "status: 408": "server", "status: 500": "server",
		"status: 503": "overloaded", "status: 529": "overloaded", "status: 400, class: context_length": "context_length", "class: network": "network",
	} {
		p := parse(t, fmt.Sprintf("rules: [{error: {%s}}]", what))
		_, err := call(t.Context(), p, r)
		if e, ok := errors.AsType[*model.Error](err); !ok || e.Class != class || e.Rule != "demo.script.yaml:1" {
			t.Errorf("%s: got %#v", what, err)
		}
	}
}

func TestDelayEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := parse(t, demo)
		r := ask("s", "x", "?")
		r.Model = "slow"
		began := time.Now()
		a, err := call(t.Context(), p, r)
		if err != nil || a.Text() != "at last\n" || time.Since(began) != 50*time.Millisecond {
			t.Errorf("got %v, %v after %s", a, err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := call(ctx, p, r); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRequestThatNoRuleFits(t *testing.T) {
	p := parse(t, demo)
	_, err := call(t.Context(), p, ask("plan/draft", "generate", "Write "+strings.Repeat("very ", 100)+"much"))
	var f *pipeline.Failure
	if !errors.As(err, &f) || f.Kind != pipeline.CategoryModel || f.Reason != "script_no_rule" {
		t.Fatalf("got %#v", err)
	}
	for _, want := range []string{
		"no rule of demo.script.yaml answers this request", "step: plan/draft", "action: generate", `last_user: "Write very`,
		`The nearest rule is in line 6; it needs that step is "greet".`,
	} {
		if !strings.Contains(f.Message, want) {
			t.Errorf("the message lacks %q:\n%s", want, f.Message)
		}
	}
	r := ask("x", "y", "z")
	r.Model = "m"
	_, err = call(t.Context(), parse(t, "rules: [{when: {step: a, last_user: {contains: b}}, text: c}]"), r)
	if err == nil || !strings.Contains(err.Error(), `step is "a" and last_user contains "b"`) || !strings.Contains(err.Error(), "model: m") {
		t.Errorf("got %v", err)
	}
	_, err = call(t.Context(), parse(t, "rules: []"), r)
	if err == nil || !strings.Contains(err.Error(), "The file has no rules.") {
		t.Errorf("got %v", err)
	}
}

func TestFaultsOfScriptsHavePlaces(t *testing.T) {
	for source, want := range map[string]string{
		"":                                      `1:1 E0103 the script is empty`,
		"# nothing\n":                           `1:1 E0103 the script is empty`,
		"a: b: c":                               `1:5 E0101`,
		"[]":                                    `1:1 E0104 a script is a map`,
		"{}":                                    `1:1 E0111 a script has a list of rules`,
		"rules: 5":                              `1:8 E0104 rules is a list`,
		"rules: []\n---\nrules: []":             `E0103 a script is one document`,
		"rules: [5]":                            `1:9 E0104 a rule is a map`,
		"rule: []":                              `1:1 E0110 a script has no key "rule" (did you mean "rules"?)`,
		"rules:\n  - text: a\n    wen: {}":      `3:5 E0110 a rule has no key "wen" (did you mean "when"?)`,
		"rules:\n  - text: a\n    text: b":      `E010`,
		"rules: [{when: {user: 1}, text: a}]":   `1:17 E0110 when has no key "user" (known are action, agent, last_user, model, param, phase, schema, step, tool_result, turn)`,
		"rules: [{when: {last_user: a}}]":       `1:28 E0104 last_user is a map`,
		"rules: [{when: {step: [a]}, text: a}]": `1:23 E0104 a text is needed here`,
		"rules: [{when: {step: a}}]":            `1:9 E0112 a rule has one of text, json, generate, tool_calls and error; this one has 0`,
		"rules: [{text: a, json: 1}]":           `1:9 E0112 a rule has one of text, json, generate, tool_calls and error; this one has 2`,
		`rules: [{text: "{{ a"}]`:               `1:16 E0205 the text is not a template`,
		`rules: [{text: "{{ nope }}"}]`:         `1:16 E0201 the text uses the unknown name "nope"`,
		`rules: [{text: "{{ prompt | shout }}"}]`:                                    `1:16 E0206`,
		`rules: [{text: "{{ now() }}"}]`:                                             `1:16 E0206 the text of a rule can use neither files nor the clock`,
		"rules: [{text: a, delay: soon}]":                                            `1:26 E0104 a duration`,
		"rules: [{text: a, delay: 1e300}]":                                           `1:26 E0104 a duration`,
		"rules: [{text: a, usage: {input_tokens: -1}}]":                              `1:41 E0104 a whole number from 0`,
		"rules: [{text: a, usage: {cost_usd: much}}]":                                `1:37 E0104 cost_usd is an amount`,
		"rules: [{error: {status: 200}}]":                                            `1:26 E0104 a whole number from 400 to 599`,
		"rules: [{when: {last_user: {matches: '('}}, text: a}]":                      `1:38 E0104 "(" is not a regular expression`,
		"rules: [{when: {turn: -1}, text: a}]":                                       `1:23 E0104 a whole number from 0`,
		"rules: [{when: {turn: first}, text: a}]":                                    `1:23 E0104 a whole number from 0`,
		"rules: [{when: {phase: middle}, text: a}]":                                  `1:24 E0104 there is no phase "middle"`,
		"rules: [{when: {schema: maybe}, text: a}]":                                  `1:25 E0104 schema is true or false`,
		"rules: [{text: a, times: 0}]":                                               `1:26 E0104 a whole number from 1`,
		"rules: [{error: {class: bad}}]":                                             `1:25 E0104 there is no class "bad" (classes are rate_limit`,
		"rules: [{tool_calls: []}]":                                                  `1:22 E0104 tool_calls is a list of 1 to 1000 calls`,
		"rules: [{tool_calls: [{arguments: {}}]}]":                                   `1:23 E0111 a call has the name of a tool`,
		"rules: [{tool_calls: [{name: a, args: {}}]}]":                               `1:33 E0110 a call has no key "args"`,
		"rules: [{tool_calls: [{name: a, arguments: {}, arguments_text: b}]}]":       `1:23 E0112 a call has arguments or arguments_text, not both`,
		`rules: [{tool_calls: [{name: a, arguments: {b: ["{{ c }}"]}}]}]`:            `1:49 E0201 the text uses the unknown name "c"`,
		"rules: [{tool_calls: [{name: a}], json: 1}]":                                `1:9 E0112 a rule has one of`,
		"rules: [{when: {tool_result: {tool: a}}, text: b}]":                         `1:31 E0110 tool_result has no key "tool"`,
		"rules: [{text: a, chunks: 0}]":                                              `1:27 E0104 a whole number from 1`,
		"rules: [{generate: 7}]":                                                     `1:20 E0104 generate is a map`,
		"rules: [{generate: {seeds: 7}}]":                                            `1:21 E0110 generate has no key "seeds" (did you mean "seed"?)`,
		"rules: [{json: &a [1, *a]}]":                                                `E0103`,
		"rules: [{json: {a: 1, a: 2}}]":                                              `E010`,
		"rules: [{json: " + strings.Repeat("[", 70) + strings.Repeat("]", 70) + "}]": `nested deeper than 64`,
	} {
		_, err := Parse("s.yaml", []byte(source))
		var d *pipeline.Diagnostics
		if !errors.As(err, &d) {
			t.Errorf("%q: got %v, want %s", source, err, want)
			continue
		}
		var all strings.Builder
		for _, f := range d.List {
			fmt.Fprintf(&all, "%d:%d %s %s (%s)\n", f.Line, f.Column, f.Code, f.Message, f.Hint)
		}
		if !strings.Contains(all.String(), want) {
			t.Errorf("%q:\ngot  %swant %s", source, all.String(), want)
		}
	}
}

func TestManyFaultsAreCounted(t *testing.T) {
	_, err := Parse("s.yaml", []byte("rules:\n"+strings.Repeat("  - {bad: 1}\n", 40)))
	var d *pipeline.Diagnostics
	if !errors.As(err, &d) || len(d.List) != 50 || d.Truncated != 30 {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(demo)
	f.Fuzz(func(t *testing.T, source string) {
		p, err := Parse("s.yaml", []byte(source))
		if (p == nil) == (err == nil) {
			t.Fatal("neither a script nor an error")
		}
		if p != nil {
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // no delays
			r := ask("s", "a", "p")
			_, _ = call(ctx, p, r)
		}
	})
}
