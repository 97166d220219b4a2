package model

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// Auto fills in <AUTO> tags in two steps: the model first says in which form the
// answer should come, as a JSON Schema within the type that the pipeline expects,
// then it answers in that form. An answer that violates it is repaired once.
type Auto struct {
	Models Caller
	// Names lists the models that a tag about a model may choose; nil: any text.
	Names func() []string
}

// ways are how the four kinds of question are put to a model.
var ways = map[string]string{
	executor.OpenTask: "The tag stands for the action of a step. Decide which of the actions fits what the text asks for, " +
		"by what each does and by the parameters that the step already has.",
	executor.OpenModel: "The tag stands for the model that a step asks. Decide which model suits the step's task best; " +
		"prefer the cheapest one that is able to do it.",
	executor.OpenParameter: "The tag stands for a value that a step is given. Infer the value from the text, from the step's other parameters " +
		"and from what earlier steps gave. Decide; do not describe.",
	executor.OpenDependency: "The tag decides whether a step runs, or over what it runs. Judge by what earlier steps gave; " +
		"name nothing that does not occur there.",
}

const autoSystem = `You complete pipelines. In a pipeline's source an <AUTO> tag holds a text in place of a value; you decide the value just before its step runs. Your answer is used as it is, by a program: it is the value and nothing else.

`

// Fill answers a question.
func (f Auto) Fill(ctx context.Context, env executor.Env, q executor.Question) (pipeline.Answer, error) {
	expected := spec.AnswerSchema(&q.Tag.Type)
	choices := q.Choices
	if q.Kind == executor.OpenModel && choices == nil && f.Names != nil {
		for _, n := range f.Names() {
			choices = append(choices, n)
		}
	}
	if len(choices) > 0 {
		expected = map[string]any{"enum": choices}
	}
	r := Request{
		Run: env.Run, Step: env.Path, Param: q.Tag.Key, Model: q.Tag.Model, System: autoSystem + ways[q.Kind],
	}
	r.Action, _ = q.Step["action"].(string)
	if q.Tag.Task != "" {
		r.Needs = &pipeline.Needs{Tasks: []string{q.Tag.Task}}
	}
	r.Messages, r.Parts = f.prompt(q, expected)

	ask := r
	ask.Phase, ask.Expected = PhaseSchema, expected
	ask.Schema = map[string]any{"type": "object"}
	ask.Messages = append(slices.Clone(r.Messages), UserText("First give the JSON Schema (2020-12) of the value, as narrow as what is known allows. "+
		"It must lie within this one, which the pipeline expects:\n"+string(pipeline.EncodeValue(expected))))
	ask.IdempotencyKey = env.IdempotencyKey() + "/" + q.Tag.Key + "/schema"
	form, err := f.Models.Ask(ctx, env, &ask)
	if err != nil {
		return pipeline.Answer{}, err
	}
	given, _ := form.Value.(map[string]any)

	ask = r
	ask.Phase, ask.Schema = PhaseAnswer, refined(expected, given)
	ask.IdempotencyKey = env.IdempotencyKey() + "/" + q.Tag.Key
	a, err := f.Models.Ask(ctx, env, &ask)
	if err != nil {
		return pipeline.Answer{}, err
	}
	return pipeline.Answer{Key: q.Tag.Key, Value: a.Value, Model: a.Model, Usage: Sum(form.Usage, a.Usage)}, nil
}

// prompt shows the tag and what surrounds it.
func (f Auto) prompt(q executor.Question, expected map[string]any) ([]Message, []Part) {
	var b strings.Builder
	var parts []Part
	add := func(name, text string) {
		n := b.Len()
		if n > 0 {
			b.WriteString("\n\n")
		}
		b.WriteString(text)
		parts = append(parts, Part{Name: name, Bytes: b.Len() - n})
	}
	add("prompt", "The tag: "+q.Text)
	if len(q.Tag.Hint) > 0 {
		add("hint", "The text names: "+strings.Join(q.Tag.Hint, ", "))
	}
	add("step", "Its step:\n"+lines(q.Step))
	if len(q.Around) > 0 {
		add("around", "Other parameters of the step:\n"+lines(q.Around))
	}
	if len(q.Earlier) > 0 {
		add("earlier", "What earlier steps gave:\n"+lines(q.Earlier))
	}
	if len(q.Actions) > 0 {
		var list strings.Builder
		for _, a := range q.Actions {
			fmt.Fprintf(&list, "\n- %s: %s Parameters: %s", a["name"], a["does"], expr.Text(a["parameters"]))
		}
		add("actions", "The actions:"+list.String())
	}
	add("type", "The value's type, as a JSON Schema:\n"+string(pipeline.EncodeValue(expected)))
	return []Message{UserText(b.String())}, append([]Part{{Name: "system", Bytes: len(autoSystem) + len(ways[q.Kind])}}, parts...)
}

// lines shows a map, a line for each name.
func lines(m map[string]any) string {
	list := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, "- "+name+": "+expr.Text(m[name]))
	}
	return strings.Join(list, "\n")
}

// refined is the expected schema with what another one adds to it. What the
// expected one says stands. One that contradicts it, or is none, adds nothing.
func refined(expected, given map[string]any) map[string]any {
	if expected["enum"] != nil || expected["anyOf"] != nil || expected["oneOf"] != nil || expected["allOf"] != nil || len(given) == 0 {
		return expected
	}
	if want, own := expected["type"], given["type"]; want != nil && own != want {
		return expected
	}
	out := maps.Clone(given)
	delete(out, "$schema")
	delete(out, "$id")
	for k, v := range expected {
		was, both := given[k].(map[string]any)
		if more, ok := v.(map[string]any); ok && both && k == "items" {
			out[k] = refined(more, was)
			continue
		}
		out[k] = v
	}
	if _, err := Compile(out); err != nil {
		return expected
	}
	return out
}
