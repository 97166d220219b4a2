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
//	  - when: {model: flaky}
//	    error: {status: 429, retry_after: 1, message: slow down}
//	    times: 2                               # uses within a run; default: unlimited
//	  - when: {agent: researcher, turn: 0}     # turns count from 0
//	    reasoning: The notes come first.
//	    text: I read the notes.                # may stand beside tool_calls
//	    tool_calls: [{name: read_file, arguments: {path: "{{ prompt }}.md"}}]
//	  - when: {agent: researcher, tool_result: {name: read_file, path: lines, equals: 0}}
//	    tool_calls: [{name: read_file, arguments_text: '{"path": '}]   # as it stands
//	  - when: {agent: researcher}
//	    text: "Notes say: {{ tool_results.read_file.content }}"
//	    chunks: 5                              # pieces of the stream, each after the delay
//	  - when: {phase: repair}                  # schema, answer, repair, turn, judge or compact
//	    json: {sun: false, degrees: 3}
//	  - when: {schema: true}                   # a structured answer is wanted
//	    generate: {seed: 7}                    # a value that satisfies the schema, the same for the same seed
//
// A rule without when answers everything, with two exceptions: of the calls for
// an <AUTO> tag, a rule without a phase takes the answer alone, and a summary of
// a conversation is made only by a rule that names its phase. The call for the
// tag's schema is, where no rule names it, answered with the expected type. A
// request that no rule answers fails and says which rule came nearest; there is
// no canned answer.
//
// tool_results holds the newest result of each tool in the conversation, read as
// JSON where it is JSON. Uses are counted over the whole run, see model.Uses.
package script

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
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

// rule is one entry of the file. Exactly one of text, json, filler, calls and
// fail answers, but that a text may stand beside calls.
type rule struct {
	id        string // names it in journals: file and line
	line      int
	when      []test
	text      *expr.Template
	json      []byte
	filler    bool
	seed      int64
	calls     []toolCall
	fail      *model.Error
	reasoning *expr.Template
	results   bool // its templates read tool_results
	usage     *pipeline.Usage
	delay     time.Duration
	chunks    int // 0: one
	times     int // 0: unlimited
}

// toolCall is a tool that a rule calls.
type toolCall struct {
	id        string // empty: numbered within the conversation
	name      string
	arguments any // its texts are *expr.Template
	text      *string
}

// test is one condition of a rule.
type test struct {
	key     string // step, param, agent, turn, phase, schema, action, model, last_user, tool_result; times where no use is left
	how     string // equals, contains, matches
	want    string
	pattern *regexp.Regexp // of matches
	result  *resultTest    // of tool_result
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
		return (r.Phase == model.PhaseTurn || r.Agent != "") && t.want == strconv.Itoa(r.Turn)
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
	case "tool_result":
		return t.result.holds(r)
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
	case "tool_result":
		return t.result.String()
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
	u, near, err := p.pick(ctx, r)
	switch {
	case err != nil:
		return nil, err
	case u != nil:
		return p.answer(ctx, u, r)
	case r.Phase == model.PhaseSchema && r.Expected != nil:
		return model.Whole(&model.Response{
			Model: Model, Value: r.Expected, Stop: model.StopEnd, Message: model.AssistantText(string(pipeline.EncodeValue(r.Expected))),
		}), nil
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
func (p *Provider) pick(ctx context.Context, r *model.Request) (*rule, nearest, error) {
	var near nearest
	for i := range p.rules {
		u := &p.rules[i]
		missing := u.fails(r)
		if len(missing) == 0 {
			if u.times == 0 {
				return u, near, nil
			}
			free, err := r.Uses.Take(ctx, u.id, u.times)
			if err != nil {
				return nil, near, fmt.Errorf("count the uses of %s: %w", u.id, err)
			}
			if free {
				return u, near, nil
			}
			missing = []test{{key: "times", want: strconv.Itoa(u.times)}}
		}
		if near.rule == nil || len(missing) < len(near.missing) {
			near = nearest{rule: u, missing: missing}
		}
	}
	return nil, near, nil
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
	if now := phaseOf(r); !phase && now != model.PhaseAnswer && (r.Param != "" || now == model.PhaseSchema || now == model.PhaseCompact) {
		list = append(list, test{key: "phase", how: "equals", want: string(now)})
	}
	return list
}

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
	if name, text := newestResult(r); name != "" {
		fmt.Fprintf(&b, "  tool_result: of %s: %s\n", name, short(text))
	}
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
