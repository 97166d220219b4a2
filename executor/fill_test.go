package executor_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// filler answers <AUTO> tags by their text, and keeps the questions.
type filler struct {
	answer func(ctx context.Context, env executor.Env, q executor.Question) (any, error)

	mu    sync.Mutex
	asked []executor.Question
}

func (f *filler) Fill(ctx context.Context, env executor.Env, q executor.Question) (pipeline.Answer, error) {
	f.mu.Lock()
	f.asked = append(f.asked, q)
	f.mu.Unlock()
	v, err := f.answer(ctx, env, q)
	return pipeline.Answer{Key: q.Tag.Key, Value: v, Model: "oracle", Usage: &pipeline.Usage{InputTokens: 10, CostUSD: 0.5}}, err
}

func (f *filler) texts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for i := range f.asked {
		list = append(list, f.asked[i].Text)
	}
	slices.Sort(list)
	return list
}

func filling(f *filler) func(*executor.Config) {
	return func(c *executor.Config) { c.Filler = f }
}

// echoing answers with the text in capitals.
func echoing(_ context.Context, _ executor.Env, q executor.Question) (any, error) {
	return strings.ToUpper(q.Text), nil
}

func TestModelFillsInTags(t *testing.T) {
	for _, c := range []struct {
		name    string
		src     string
		outputs map[string]any
		asked   []string
		kind    string // of the first question
	}{
		{
			name:    "a parameter, with what surrounds it",
			src:     "steps:\n- {id: b, action: debug, with: {value: 7}}\n- {id: a, action: debug, with: {value: '<AUTO>word for {{ b.value }}</AUTO>'}}\noutputs: {v: '{{ a.value }}'}",
			outputs: map[string]any{"v": "WORD FOR 7"}, asked: []string{"word for 7"}, kind: executor.OpenParameter,
		},
		{
			name:    "an inner tag before the one around it",
			src:     "steps:\n- {id: a, action: probe, with: {do: '<AUTO>of <AUTO>inner</AUTO></AUTO>'}}\noutputs: {v: '{{ a }}'}",
			outputs: map[string]any{"v": "OF INNER"}, asked: []string{"inner", "of INNER"},
		},
		{
			name:    "equal questions once",
			src:     "steps:\n- {id: a, action: debug, with: {value: ['<AUTO>x</AUTO>', '<AUTO>x</AUTO>', '<AUTO>y</AUTO>']}}\noutputs: {v: '{{ a.value }}'}",
			outputs: map[string]any{"v": []any{"X", "X", "Y"}}, asked: []string{"x", "y"},
		},
		{
			name:    "in the passes of a loop",
			src:     "steps:\n- {id: l, for: {items: [1, 2], parallel: 2}, steps: [{id: a, action: debug, with: {value: '<AUTO>n{{ item }}</AUTO>'}}]}\noutputs: {v: '{{ l.results | map(attribute=\"a\") | list }}'}",
			outputs: map[string]any{"v": []any{"N1", "N2"}}, asked: []string{"n1", "n2"},
		},
		{
			name:    "in the state that a step sets",
			src:     "steps:\n- {id: a, action: debug, with: {value: 1}, state: {s: '<AUTO>after</AUTO>'}}\noutputs: {v: '{{ s }}'}",
			outputs: map[string]any{"v": "AFTER"}, asked: []string{"after"},
		},
		{
			name:    "as the fallback, where the model has none",
			src:     "steps:\n- {id: a, action: debug, with: {value: '<AUTO type=\"integer\" fallback=\"4\">how many</AUTO>'}}\noutputs: {v: '{{ a.value }}'}",
			outputs: map[string]any{"v": int64(4)}, asked: []string{"how many"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &filler{answer: func(ctx context.Context, env executor.Env, q executor.Question) (any, error) {
				if q.Tag.Type.Kind == "integer" {
					return nil, pipeline.Failuref(pipeline.CategoryModel, "no idea")
				}
				return echoing(ctx, env, q)
			}}
			e := start(t, storetest.Open(t), troubled, filling(f))
			run, _ := e.wait(e.submit(c.src, nil))
			if diff := cmp.Diff(c.outputs, run.Outputs); diff != "" {
				t.Errorf("%s, %v", diff, run.Error)
			}
			if diff := cmp.Diff(c.asked, f.texts()); diff != "" {
				t.Error(diff)
			}
			if c.kind != "" && (f.asked[0].Kind != c.kind || f.asked[0].Earlier["b"] == nil) {
				t.Errorf("the question: %+v", f.asked[0])
			}
		})
	}
}

func TestTagDecidesWhetherAStepRuns(t *testing.T) {
	f := &filler{answer: func(context.Context, executor.Env, executor.Question) (any, error) { return false, nil }}
	e := start(t, storetest.Open(t), troubled, filling(f))
	run, _ := e.wait(e.submit("steps:\n- {id: a, action: probe, if: '<AUTO>is it worth it?</AUTO>', with: {do: x}}\noutputs: {v: '{{ a.status }}'}", nil))
	if run.Outputs["v"] != "skipped" || f.asked[0].Kind != executor.OpenDependency {
		t.Errorf("outputs %v, question %+v", run.Outputs, f.asked)
	}
}

func TestTagsCostNoMoreThanTheyMay(t *testing.T) {
	for _, limit := range []string{"max: 1", "cost_limit: 0.5"} {
		f := &filler{answer: echoing}
		e := start(t, storetest.Open(t), troubled, filling(f))
		run, _ := e.wait(e.submit("settings: {auto: {"+limit+"}}\nsteps:\n- {id: a, action: debug, with: {value: '<AUTO>x</AUTO>'}}\n- {id: b, action: debug, with: {value: '<AUTO>{{ a.value }}y</AUTO>'}}", nil))
		if run.Status != pipeline.RunFailed || run.Error == nil || !strings.Contains(run.Error.Message, "settings.auto.") || len(f.asked) != 1 {
			t.Errorf("%s: %s, %v, asked %d", limit, run.Status, run.Error, len(f.asked))
		}
	}
}

func TestTagIsNotAskedTwiceAfterACrash(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			once := make(chan struct{})
			f := &filler{answer: func(ctx context.Context, env executor.Env, q executor.Question) (any, error) {
				if e := env.Journal.Take(pipeline.ModelCalled, "the call"); e != nil {
					return e.Data.Call.Response, nil
				}
				c := pipeline.Invocation{N: env.Journal.Next(), Key: "the call", State: pipeline.InvocationFinished, Param: q.Tag.Key, Response: "paid"}
				if err := env.Journal.Append(ctx, pipeline.Event{Type: pipeline.ModelCalled, Data: pipeline.Data{Call: &c}}); err != nil {
					return nil, err
				}
				close(once) // a second payment panics
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}}
			first := start(t, s, troubled, filling(f), func(c *executor.Config) { c.Grace = 1 })
			id := first.submit("steps:\n- {id: a, action: debug, with: {value: '<AUTO>x</AUTO>'}}\noutputs: {v: '{{ a.value }}'}", nil)
			<-once
			first.stop()
			second := start(t, s, troubled, filling(f))
			if run, _ := second.wait(id); run.Outputs["v"] != "paid" {
				t.Errorf("got %v, %v", run.Outputs, run.Error)
			}
		})
	}
}

func TestCancelEndsAQuestion(t *testing.T) {
	asked := make(chan struct{})
	f := &filler{answer: func(ctx context.Context, _ executor.Env, _ executor.Question) (any, error) {
		close(asked)
		<-ctx.Done()
		return nil, errors.New("given up")
	}}
	e := start(t, storetest.Open(t), troubled, filling(f))
	id := e.submit("steps:\n- {id: a, action: debug, with: {value: '<AUTO>x</AUTO>'}}", nil)
	<-asked
	e.send(id, "cancel", "")
	if run, _ := e.wait(id); run.Status != pipeline.RunCancelled {
		t.Errorf("the run is %s, %v", run.Status, run.Error)
	}
}
