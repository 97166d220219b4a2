package step

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	modelscript "github.com/orchestrator-project/orchestrator/executor/model/script"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func scripted(t *testing.T, rules string) Config {
	t.Helper()
	p, err := modelscript.Parse("test.script.yaml", []byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	return Config{Model: model.Direct{Provider: p}}
}

// listening keeps what a caller is asked.
type listening struct {
	model.Caller
	asked *[]model.Request
}

func (l listening) Ask(ctx context.Context, env executor.Env, r *model.Request) (*model.Response, error) {
	*l.asked = append(*l.asked, *r)
	return l.Caller.Ask(ctx, env, r)
}

// Every judgement, called as the pipelines of the original designs call it.
var seedCalls = map[string]params{
	"analyze":         {"input": "tea", "analysis_type": "comparative", "output_format": "narrative"},
	"plan":            {"topic_analysis": "about tea", "research_depth": "medium", "sources": "5 books"},
	"search":          {"queries": []any{"tea", "trade"}, "num_results": "5"},
	"synthesize":      {"sources": []any{params{"title": "a"}}, "style": "business", "length": "short"},
	"generate_report": {"content": "text", "format": "markdown", "sections": []any{"Summary"}},
	"synthesize_review": {
		"security_results": []any{}, "style_results": []any{}, "complexity_results": params{}, "review_tone": "constructive", "priority_order": "severity",
	},
	"select_models":         {"task_type": "sentiment", "num_models": "3-7", "diversity_strategy": "sizes"},
	"aggregate_predictions": {"predictions": "two say yes", "aggregation_method": "stacking", "confidence_calculation": "share"},
	"validate_results":      {"ensemble_predictions": []any{}, "validation_threshold": "strict", "fallback_strategy": "ask a person"},
	"batch_predict":         {"models": []any{"a", "b"}, "data": []any{params{"x": 1}}, "execution_strategy": "parallel"},
	"generate_structured":   {"prompt": "How many?", "schema": params{"type": "object", "required": []any{"n"}, "properties": params{"n": params{"type": "integer"}}}},
}

func TestJudgementsGiveWhatTheyPromise(t *testing.T) {
	cfg := scripted(t, `
rules:
  - {when: {schema: true}, generate: {seed: 3}, usage: {input_tokens: 5, output_tokens: 7}}
  - {text: "about {{ action }}"}
`)
	for key, p := range seedCalls {
		env, _ := testEnv(t)
		r, err := find(t, cfg, key).Bind(language(t, p))
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		out, err := r.Run(t.Context(), env)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if out.Model != "script" {
			t.Errorf("%s: answered by %q", key, out.Model)
		}
		returns := find(t, cfg, key).Spec.Returns
		m, isMap := out.Value.(map[string]any)
		switch returns.Kind {
		case "string":
			if out.Value != "about "+key {
				t.Errorf("%s gives %v", key, out.Value)
			}
		case "map":
			for _, want := range returns.Properties {
				if _, ok := m[want.Name]; !ok {
					t.Errorf("%s does not give %s", key, want.Name)
				}
			}
			fallthrough
		default:
			if !isMap || out.Usage == nil || out.Usage.OutputTokens < 7 {
				t.Errorf("%s gives %v, usage %+v", key, out.Value, out.Usage)
			}
		}
	}
	for i := range judgements {
		if seedCalls[judgements[i].name] == nil {
			t.Errorf("%s is not called by a test", judgements[i].name)
		}
	}
}

func TestJudgementShowsItsParametersInOrder(t *testing.T) {
	cfg := scripted(t, "rules: [{text: done}]")
	var asked []model.Request
	cfg.Model = listening{cfg.Model, &asked}
	env, _ := testEnv(t)
	_, err := run(t, cfg, env, "analyze", params{
		"input": params{"a": 1}, "output_format": "narrative", "instructions": "Be brief.", "model": "fast", "max_tokens": 50, "temperature": 0,
	})
	if err != nil {
		t.Fatal(err)
	}
	zero := 0.0
	want := model.Request{
		Run: env.Run, Step: "step", Action: "analyze", Model: "fast", MaxTokens: 50, Temperature: &zero,
		Messages:       []model.Message{model.UserText("## input\n{\"a\": 1}\n\n## output_format\nnarrative\n\n## instructions\nBe brief.")},
		IdempotencyKey: env.IdempotencyKey(),
	}
	want.System = asked[0].System
	if diff := cmp.Diff(want, asked[0]); diff != "" || !strings.HasPrefix(want.System, "Analyse the input.") {
		t.Errorf("%s\n%s", diff, want.System)
	}
}

func TestJudgementsRefuseWhatTheyDoNotKnow(t *testing.T) {
	cfg := scripted(t, "rules: [{text: done}]")
	env, _ := testEnv(t)
	for _, c := range []struct {
		key  string
		p    params
		want string
	}{
		{"analyze", params{}, "parameter input is missing"},
		{"analyze", params{"input": "x", "kind": "y"}, "there is no parameter kind"},
		{"analyze", params{"input": "x", "model": 5}, "parameter model is a number"},
		{"analyze", params{"input": "x", "max_tokens": -5}, "cannot be negative"},
		{"analyze", params{"input": "x", "temperature": "hot"}, "temperature must be a number"},
		{"plan", params{"research_depth": "deep"}, "at least one of the parameters goal, topic_analysis"},
		{"select_models", params{"task_type": "x", "candidates": []any{5}}, "item 0 is neither a name"},
		{"batch_predict", params{"models": []any{}, "data": "x"}, "models is a list of models"},
		{"batch_predict", params{"models": "a", "data": make([]any, 1001)}, "1001 predictions"},
		{"generate_structured", params{"prompt": "x", "schema": params{"type": "nonsense"}}, "not a JSON Schema"},
	} {
		_, err := run(t, cfg, env, c.key, c.p)
		failed(t, err, pipeline.CategoryValidation, c.want)
	}
}

func TestAnswerThatViolatesTheContractFails(t *testing.T) {
	cfg := scripted(t, `
rules:
  - {when: {action: search}, json: {results: [{query: a, title: b}]}}
  - {when: {phase: repair}, json: {n: 8}}
  - {json: {n: eight}}
`)
	env, _ := testEnv(t)
	_, err := run(t, cfg, env, "search", params{"queries": "a"})
	f := failed(t, err, pipeline.CategoryContract, "/results/0: missing properties")
	if f.Reason != "schema_violated" {
		t.Errorf("reason %s", f.Reason)
	}
	v, err := run(t, cfg, env, "generate_structured", seedCalls["generate_structured"])
	if err != nil {
		t.Fatal(err)
	}
	same(t, v, params{"n": 8})
}

func TestStepsThatAskSayWhenThereIsNoModel(t *testing.T) {
	for key, p := range seedCalls {
		env, _ := testEnv(t)
		_, err := run(t, Config{}, env, key, p)
		f := failed(t, err, pipeline.CategoryModel, key+" needs one")
		if f.Reason != "no_model" {
			t.Errorf("%s: reason %s", key, f.Reason)
		}
	}
}

func TestSelectModels(t *testing.T) {
	env, _ := testEnv(t)
	all := params{"task_type": "x", "num_models": "3 models", "candidates": []any{"a", params{"name": "b"}, "a"}}
	v, err := run(t, Config{}, env, "select_models", all) // no model is needed
	if err != nil {
		t.Fatal(err)
	}
	same(t, field(t, v, "selected_models"), []any{"a", "b"})

	cfg := scripted(t, `
rules:
  - {when: {phase: repair}, json: {selected_models: [c], reason: better}}
  - {json: {selected_models: [z, a], reason: best}}
`)
	one := params{"task_type": "x", "num_models": 1, "candidates": []any{"a", "b", "c"}}
	if v, err = run(t, cfg, env, "select_models", one); err != nil {
		t.Fatal(err)
	}
	same(t, v, params{"selected_models": []any{"c"}, "reason": "better"})
}

func TestBatchPredictAsksEachModelAboutEachRow(t *testing.T) {
	cfg := scripted(t, `
rules:
  - {when: {model: a, last_user: {contains: good}}, json: {prediction: positive, confidence: 0.9}, usage: {input_tokens: 10}}
  - {when: {model: a}, json: {prediction: negative, confidence: 0.6}, usage: {input_tokens: 10}}
  - {when: {model: b}, json: {prediction: positive, confidence: 1}, usage: {input_tokens: 10}}
`)
	env, _ := testEnv(t)
	p := params{"models": []any{"a", params{"name": "b"}}, "data": []any{"a good day", "a bad day"}, "labels": []any{"positive", "negative"}}
	r, err := find(t, cfg, "batch_predict").Bind(language(t, p))
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Run(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	same(t, out.Value, params{"results": []any{
		params{"row": 0, "model": "a", "prediction": "positive", "confidence": 0.9},
		params{"row": 0, "model": "b", "prediction": "positive", "confidence": 1},
		params{"row": 1, "model": "a", "prediction": "negative", "confidence": 0.6},
		params{"row": 1, "model": "b", "prediction": "positive", "confidence": 1},
	}})
	if out.Usage.InputTokens != 40 || out.Model != "script" {
		t.Errorf("usage %+v by %s", out.Usage, out.Model)
	}
	p["models"] = "a, c"
	_, err = run(t, cfg, env, "batch_predict", p)
	failed(t, err, pipeline.CategoryModel, "model c: no rule")
}

func TestAggregatePredictions(t *testing.T) {
	row := func(row any, name string, prediction any, confidence any) params {
		return params{"row": row, "model": name, "prediction": prediction, "confidence": confidence}
	}
	labels := []any{row(0, "a", "x", 0.9), row(0, "b", "y", 0.6), row(0, "c", "y", 0.2), row(1, "a", "x", 0.5), row(1, "b", "y", 0.75)}
	amounts := []any{[]any{1, 10}, []any{2, 20}, []any{6, 90}}
	for name, c := range map[string]struct {
		p    params
		want string
	}{
		"voting": {
			params{"predictions": labels, "aggregation_method": "Use majority voting"},
			`{"confidence_method":"share","final_predictions":[{"confidence":0.6666666666666666,"prediction":"y","row":0,"votes":3},{"confidence":0.5,"prediction":"y","row":1,"votes":2}],"method":"voting"}`,
		},
		"weighted by confidence": {
			params{"predictions": labels, "aggregation_method": "weighted voting", "confidence_calculation": "average of the models"},
			`{"confidence_method":"mean","final_predictions":[{"confidence":0.5666666666666667,"prediction":"x","row":0,"votes":3},{"confidence":0.625,"prediction":"y","row":1,"votes":2}],"method":"weighted"}`,
		},
		"averaging": {
			params{"predictions": amounts},
			`{"confidence_method":"mean","final_predictions":[{"confidence":null,"prediction":3.0,"row":0,"spread":2.160246899469287,"votes":3},{"confidence":null,"prediction":40.0,"row":1,"spread":35.59026084010437,"votes":3}],"method":"averaging"}`,
		},
		"median of models by name": {
			params{"predictions": params{"a": []any{1}, "b": []any{2}}, "aggregation_method": "median"},
			`{"confidence_method":"mean","final_predictions":[{"confidence":null,"prediction":1.5,"row":0,"spread":0.5,"votes":2}],"method":"median"}`,
		},
		"weighted mean": {
			params{"predictions": params{"a": 1, "b": 2}, "aggregation_method": "weighted", "weights": params{"a": 3, "b": 1}},
			`{"confidence_method":"mean","final_predictions":[{"confidence":null,"prediction":1.25,"row":0,"spread":0.5,"votes":2}],"method":"weighted"}`,
		},
		"one row": {
			params{"predictions": []any{true, false, true}, "confidence_calculation": "share of agreement"},
			`{"confidence_method":"share","final_predictions":[{"confidence":0.6666666666666666,"prediction":true,"row":0,"votes":3}],"method":"voting"}`,
		},
	} {
		env, _ := testEnv(t)
		v, err := run(t, Config{}, env, "aggregate_predictions", c.p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := string(pipeline.EncodeValue(v)); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, c.want)
		}
	}
	for want, p := range map[string]params{
		"needs predictions that are numbers":       {"predictions": labels, "aggregation_method": "averaging"},
		"needs weights, or a confidence":           {"predictions": amounts, "aggregation_method": "weighted"},
		`weights has none for the model "b"`:       {"predictions": params{"a": 1, "b": 2}, "aggregation_method": "weighted", "weights": params{"a": 1}},
		"weights.a is not a number":                {"predictions": params{"a": 1}, "weights": params{"a": "much"}},
		"parameter weights is a map from model to": {"predictions": params{"a": 1}, "weights": []any{1}},
	} {
		env, _ := testEnv(t)
		_, err := run(t, Config{}, env, "aggregate_predictions", p)
		failed(t, err, pipeline.CategoryValidation, want)
	}
}

func TestValidateResultsByThreshold(t *testing.T) {
	sure, unsure := params{"row": 0, "prediction": "x", "confidence": 0.9}, params{"row": 1, "prediction": "y", "confidence": 0.5}
	for _, threshold := range []any{0.8, 80, "80%", "at least 0.8 each"} {
		env, _ := testEnv(t)
		v, err := run(t, Config{}, env, "validate_results", params{
			"ensemble_predictions": []any{sure, unsure}, "validation_threshold": threshold, "fallback_strategy": "ask a person",
		})
		if err != nil {
			t.Errorf("%v: %v", threshold, err)
			continue
		}
		same(t, v, params{
			"valid": false, "accepted": []any{sure}, "rejected": []any{unsure},
			"issues": []any{"row 1: confidence 0.5 is less than 0.8"}, "fallback": "ask a person",
		})
	}
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "validate_results", params{"ensemble_predictions": []any{sure}, "validation_threshold": "0.9"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, v, params{"valid": true, "accepted": []any{sure}, "rejected": []any{}, "issues": []any{}, "fallback": nil})
}
