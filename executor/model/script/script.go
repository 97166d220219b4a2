// Package script answers a model's requests from a file, without a network or
// a key. Everything else about the run is live; the answers carry the model name
// "script" wherever they are shown.
//
//	# demo.script.yaml: the first rule whose when holds, and that has uses left, answers
//	rules:
//	  - when: {step: greeting}                 # the step's id, or its whole path
//	    text: "Hello, {{ prompt | trim }}!"    # a template; prompt is what was asked
//	    usage: {input_tokens: 12, output_tokens: 5}
//	  - when: {step: plan, param: depth}       # an <AUTO> tag, by its parameter's dotted path
//	    text: "3"                              # becomes what the tag wants: the number 3
//	  - when: {action: generate, last_user: {contains: forecast}}   # or equals, matches
//	    json: {sun: true, degrees: 21.5}       # a value
//	    delay: 50ms
//	  - when: {agent: researcher, turn: 0, model: flaky}   # turns count from 0
//	    error: {status: 429, retry_after: 1, message: slow down}
//	    times: 2                               # uses within a run; default: unlimited
//	  - when: {phase: repair}                  # schema, answer, repair, turn or judge
//	    json: {sun: false, degrees: 3}
//	  - when: {schema: true}                   # a structured answer is wanted
//	    generate: {seed: 7}                    # a value that satisfies the schema, the same for the same seed
//
// A rule without when answers everything, with one exception: of the calls for an
// <AUTO> tag, a rule without a phase takes the answer alone. The call for the
// tag's schema is, where no rule names it, answered with the expected type. A
// request that no rule answers fails and says which rule came nearest; there is
// no canned answer.
//
// Uses are counted by the Provider, for each run by itself: a run that goes on in
// another process counts from none.
package script

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
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

	mu   sync.Mutex
	uses map[pipeline.RunID][]int // of the rules, in runs that used one with times
	runs []pipeline.RunID         // the keys of uses, oldest first
}

var _ model.Provider = (*Provider)(nil)

// maxRuns is how many runs' uses are remembered.
const maxRuns = 10_000

// rule is one entry of the file. Exactly one of text, json, filler and failure
// answers.
type rule struct {
	line   int
	when   []test
	text   *expr.Template
	json   []byte
	filler bool
	seed   int64
	fail   *pipeline.Failure
	usage  *pipeline.Usage
	delay  time.Duration
	times  int64 // 0: unlimited
}

// test is one condition of a rule.
type test struct {
	key     string // step, param, agent, turn, phase, schema, action, model, last_user; times where no use is left
	how     string // equals, contains, matches
	want    string
	pattern *regexp.Regexp // of matches
}

func (t test) holds(r *model.Request) bool {
	have := ""
	switch t.key {
	case "step":
		return t.want == r.Step.ID() || t.want == string(r.Step)
	case "param":
		have = r.Param
	case "agent":
		have = r.Agent
	case "turn":
		return r.Phase == model.PhaseTurn && t.want == strconv.Itoa(r.Turn)
	case "phase":
		return model.Phase(t.want) == phaseOf(r)
	case "schema":
		have = strconv.FormatBool(r.Schema != nil)
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
	switch t.key {
	case "last_user":
		return fmt.Sprintf("last_user %s %q", t.how, t.want)
	case "times":
		return "it has uses left, of " + t.want
	}
	return fmt.Sprintf("%s is %q", t.key, t.want)
}

func phaseOf(r *model.Request) model.Phase {
	if r.Phase == "" {
		return model.PhaseAnswer
	}
	return r.Phase
}

// Call answers by the first rule that fits and has uses left.
func (p *Provider) Call(ctx context.Context, r *model.Request) (model.Stream, error) {
	a, err := p.reply(ctx, r)
	if err != nil {
		return nil, err
	}
	return model.Whole(a), nil
}

func (p *Provider) reply(ctx context.Context, r *model.Request) (*model.Response, error) {
	u, near := p.pick(r)
	switch {
	case u != nil:
		return p.answer(ctx, u, r)
	case r.Phase == model.PhaseSchema && r.Expected != nil:
		return &model.Response{Model: Model, Value: r.Expected, Message: model.AssistantText(string(pipeline.EncodeValue(r.Expected)))}, nil
	}
	f := pipeline.Failuref(pipeline.CategoryModel, "%s", p.unanswered(r, near))
	f.Reason = "script_no_rule"
	return nil, f
}

// nearest is the rule that needs least to fit.
type nearest struct {
	rule    *rule
	missing []test
}

// pick finds the rule that answers and counts its use.
func (p *Provider) pick(r *model.Request) (*rule, nearest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var near nearest
	for i := range p.rules {
		u := &p.rules[i]
		missing := u.fails(r)
		if u.times > 0 && p.used(r.Run, i) >= u.times {
			missing = append(missing, test{key: "times", want: strconv.FormatInt(u.times, 10)})
		}
		if len(missing) > 0 {
			if near.rule == nil || len(missing) < len(near.missing) {
				near = nearest{rule: u, missing: missing}
			}
			continue
		}
		if u.times > 0 {
			p.use(r.Run, i)
		}
		return u, near
	}
	return nil, near
}

func (p *Provider) used(run pipeline.RunID, i int) int64 {
	if uses := p.uses[run]; uses != nil {
		return int64(uses[i])
	}
	return 0
}

func (p *Provider) use(run pipeline.RunID, i int) {
	if p.uses[run] == nil {
		if len(p.runs) == maxRuns {
			delete(p.uses, p.runs[0])
			p.runs = p.runs[1:]
		}
		if p.uses == nil {
			p.uses = map[pipeline.RunID][]int{}
		}
		p.uses[run] = make([]int, len(p.rules))
		p.runs = append(p.runs, run)
	}
	p.uses[run][i]++
}

// fails lists the conditions that do not hold.
func (u *rule) fails(r *model.Request) []test {
	var list []test
	phase := false
	for _, t := range u.when {
		phase = phase || t.key == "phase"
		if !t.holds(r) {
			list = append(list, t)
		}
	}
	if now := phaseOf(r); !phase && now != model.PhaseAnswer && (r.Param != "" || now == model.PhaseSchema) {
		list = append(list, test{key: "phase", how: "equals", want: string(now)})
	}
	return list
}

func (p *Provider) answer(ctx context.Context, u *rule, r *model.Request) (*model.Response, error) {
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
	case u.filler:
		if r.Schema == nil {
			return nil, p.fault(u, "it generates from a schema, and this request has none; answer it with text")
		}
		s, err := model.Compile(r.Schema)
		if err != nil {
			return nil, err
		}
		if a.Value, err = fill(s, r.Schema, u.seed); err != nil {
			return nil, p.fault(u, "%v", err)
		}
		a.Message = model.AssistantText(string(pipeline.EncodeValue(a.Value)))
		return a, nil
	case u.text == nil:
		a.Message = model.AssistantText(string(u.json))
		if r.Schema != nil {
			var err error
			if a.Value, err = pipeline.DecodeValue(u.json); err != nil {
				return nil, p.fault(u, "its json: %v", err)
			}
		}
		return a, nil
	}
	text, err := u.text.EvalString(&expr.Env{Scope: expr.MapScope{
		"prompt": r.LastUser(), "system": r.System, "step": string(r.Step), "action": r.Action, "model": r.Model,
		"param": r.Param, "agent": r.Agent, "turn": int64(r.Turn), "phase": string(phaseOf(r)),
	}})
	if err != nil {
		return nil, p.fault(u, "its text: %v", err)
	}
	a.Message = model.AssistantText(text)
	if r.Schema != nil {
		s, err := model.Compile(r.Schema)
		if err != nil {
			return nil, err
		}
		a.Value = s.Coerce(text)
	}
	return a, nil
}

// fault tells of a rule that fits but cannot answer.
func (p *Provider) fault(u *rule, format string, args ...any) *pipeline.Failure {
	return pipeline.Failuref(pipeline.CategoryModel, "%s:%d: the rule: %s", p.file, u.line, fmt.Sprintf(format, args...))
}

// names are what the text of a rule may use.
var names = []string{"action", "agent", "model", "param", "phase", "prompt", "step", "system", "turn"}

// unanswered shows the request and the rule that needs least to fit it.
func (p *Provider) unanswered(r *model.Request, near nearest) string {
	var b strings.Builder
	fmt.Fprintf(&b, "no rule of %s answers this request:\n  step: %s\n", p.file, r.Step)
	for _, line := range [][2]string{{"param", r.Param}, {"agent", r.Agent}, {"action", r.Action}, {"model", r.Model}} {
		if line[1] != "" {
			fmt.Fprintf(&b, "  %s: %s\n", line[0], line[1])
		}
	}
	if r.Phase == model.PhaseTurn {
		fmt.Fprintf(&b, "  turn: %d\n", r.Turn)
	}
	fmt.Fprintf(&b, "  phase: %s\n", phaseOf(r))
	if r.Schema != nil {
		fmt.Fprintf(&b, "  schema: %s\n", short(string(pipeline.EncodeValue(r.Schema))))
	}
	fmt.Fprintf(&b, "  last_user: %q\n", short(r.LastUser()))
	if near.rule == nil {
		b.WriteString("The file has no rules.")
		return b.String()
	}
	fmt.Fprintf(&b, "The nearest rule is in line %d; it needs that ", near.rule.line)
	for i, t := range near.missing {
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
