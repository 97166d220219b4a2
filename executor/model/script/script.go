// Package script answers a model's requests from a file, without a network or
// a key. Everything else about the run is live; the answers carry the model name
// "script" wherever they are shown.
//
//	# demo.script.yaml: the first rule whose when holds answers
//	rules:
//	  - when: {step: greeting}                 # also: action, model, last_user
//	    text: "Hello, {{ prompt | trim }}!"    # a template; prompt is what was asked
//	    usage: {input_tokens: 12, output_tokens: 5}
//	  - when: {action: generate, last_user: {contains: forecast}}   # or equals, matches
//	    json: {sun: true, degrees: 21.5}       # given as JSON text
//	    delay: 50ms
//	  - when: {model: flaky}
//	    error: {status: 429, retry_after: 1, message: slow down}
//
// A rule without when answers everything. A request that no rule answers fails
// and says which rule came nearest; there is no canned answer.
package script

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// Model is the name under which scripted answers are recorded.
const Model = "script"

// Provider answers by the rules of one file. It is safe for concurrent use.
type Provider struct {
	file  string
	rules []rule
}

var _ model.Provider = (*Provider)(nil)

// rule is one entry of the file. Exactly one of text, json and failure answers.
type rule struct {
	line  int
	when  []test
	text  *expr.Template
	json  []byte
	fail  *pipeline.Failure
	usage *pipeline.Usage
	delay time.Duration
}

// test is one condition of a rule.
type test struct {
	key     string // step, action, model, last_user
	how     string // equals, contains, matches
	want    string
	pattern *regexp.Regexp // of matches
}

func (t test) holds(r model.Request) bool {
	have := ""
	switch t.key {
	case "step":
		return t.want == r.Step.ID() || t.want == string(r.Step)
	case "action":
		have = r.Action
	case "model":
		have = r.Model
	case "last_user":
		have = r.LastUser()
	}
	switch t.how {
	case "contains":
		return strings.Contains(have, t.want)
	case "matches":
		return t.pattern.MatchString(have)
	}
	return have == t.want
}

func (t test) String() string {
	if t.key == "last_user" {
		return fmt.Sprintf("last_user %s %q", t.how, t.want)
	}
	return fmt.Sprintf("%s is %q", t.key, t.want)
}

// Call answers by the first rule that fits.
func (p *Provider) Call(ctx context.Context, r model.Request) (*model.Response, error) {
	for i := range p.rules {
		if len(p.rules[i].fails(r)) == 0 {
			return p.answer(ctx, &p.rules[i], r)
		}
	}
	f := pipeline.Failuref(pipeline.CategoryModel, "%s", p.unanswered(r))
	f.Reason = "script_no_rule"
	return nil, f
}

// fails lists the conditions that do not hold.
func (u *rule) fails(r model.Request) []test {
	var list []test
	for _, t := range u.when {
		if !t.holds(r) {
			list = append(list, t)
		}
	}
	return list
}

func (p *Provider) answer(ctx context.Context, u *rule, r model.Request) (*model.Response, error) {
	if u.delay > 0 {
		t := time.NewTimer(u.delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the scripted answer: %w", context.Cause(ctx))
		}
	}
	a := &model.Response{Model: Model, Usage: u.usage}
	switch {
	case u.fail != nil:
		own := *u.fail
		return nil, &own
	case u.text == nil:
		a.Text = string(u.json)
		return a, nil
	}
	var err error
	a.Text, err = u.text.EvalString(&expr.Env{Scope: expr.MapScope{
		"prompt": r.LastUser(), "system": r.System, "step": string(r.Step), "action": r.Action, "model": r.Model,
	}})
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryModel, "%s:%d: the text of the rule: %v", p.file, u.line, err)
	}
	return a, nil
}

// names are what the text of a rule may use.
var names = []string{"action", "model", "prompt", "step", "system"}

// unanswered shows the request and the rule that needs least to fit it.
func (p *Provider) unanswered(r model.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "no rule of %s answers this request:\n  step: %s\n  action: %s\n", p.file, r.Step, r.Action)
	if r.Model != "" {
		fmt.Fprintf(&b, "  model: %s\n", r.Model)
	}
	fmt.Fprintf(&b, "  last_user: %q\n", short(r.LastUser()))
	var nearest *rule
	var missing []test
	for i := range p.rules {
		if m := p.rules[i].fails(r); nearest == nil || len(m) < len(missing) {
			nearest, missing = &p.rules[i], m
		}
	}
	if nearest == nil {
		b.WriteString("The file has no rules.")
		return b.String()
	}
	fmt.Fprintf(&b, "The nearest rule is in line %d; it needs that ", nearest.line)
	for i, t := range missing {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString(t.String())
	}
	b.WriteString(".")
	return b.String()
}

// short keeps a message readable.
func short(s string) string {
	r := []rune(s)
	if len(r) <= 300 {
		return s
	}
	return string(r[:300]) + "…"
}
