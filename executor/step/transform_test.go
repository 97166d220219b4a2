package step

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestTransform(t *testing.T) {
	for _, c := range []struct {
		name  string
		input any
		want  any
	}{
		{"uppercase", "élan ä", "ÉLAN Ä"},
		{"lowercase", "ÀB", "àb"},
		{"title", "don't STOP o’neil x-ray 2nd", "Don't Stop O’neil X-Ray 2nd"},
		{"capitalize", "éa B", "Éa b"},
		{"capitalize", "", ""},
		{"trim", "\n a \t", "a"},
		{"lines", "a\n\nb\r\n", []any{"a", "", "b"}},
		{"lines", "", []any{}},
		{"words", "  a b\nc ", []any{"a", "b", "c"}},
		{"split", "a,b,,c", []any{"a", "b", "", "c"}},
		{"from_json", `{"a": [1, 1.0]}`, params{"a": []any{1, 1.0}}},
		{"uppercase", 5, "5"},
		{"uppercase", true, "TRUE"},
		{"sort", []any{3, 1.5, 2}, []any{1.5, 2, 3}},
		{"sort", []any{"b", "a", "B"}, []any{"B", "a", "b"}},
		{"sort", []any{9007199254740993, 9007199254740992.0}, []any{9007199254740992.0, 9007199254740993}},
		{"sort", []any{}, []any{}},
		{"unique", []any{1, "1", 1.0, []any{2}, []any{2.0}, nil, nil}, []any{1, "1", []any{2}, nil}},
		{"flatten", []any{1, []any{2, []any{3}}}, []any{1, 2, []any{3}}},
		{"join", []any{"a", 1, true, nil}, "a1true"},
		{"reverse", "añ😀", "😀ña"},
		{"reverse", []any{1, 2}, []any{2, 1}},
		{"length", "añ😀", 3},
		{"length", []any{1, 2}, 2},
		{"length", params{"a": 1}, 1},
		{"to_json", params{"b": 1.0, "a": "x"}, `{"a":"x","b":1.0}`},
	} {
		env, _ := testEnv(t)
		got, err := run(t, Config{}, env, "transform", params{"input": c.input, "transformation": c.name})
		if err != nil {
			t.Errorf("%s of %v: %v", c.name, c.input, err)
			continue
		}
		same(t, got, c.want)
	}
	env, _ := testEnv(t)
	got, _ := run(t, Config{}, env, "transform", params{"input": []any{"a", "b"}, "transformation": "join", "separator": ", "})
	same(t, got, "a, b")
	got, _ = run(t, Config{}, env, "transform", params{"input": "a::b", "transformation": "split", "separator": "::"})
	same(t, got, []any{"a", "b"})
}

func TestTransformRefusals(t *testing.T) {
	env, _ := testEnv(t)
	for text, p := range map[string]params{
		"uppercase needs a text; the input is a list":              {"input": []any{}, "transformation": "uppercase"},
		"sort needs a list; the input is a text":                   {"input": "x", "transformation": "sort"},
		"reverse needs a text or a list; the input is a number":    {"input": 5, "transformation": "reverse"},
		"length needs a text, a list or a map; the input is a boo": {"input": true, "transformation": "length"},
		"sort cannot compare":                                      {"input": []any{1, "a"}, "transformation": "sort"},
		`the input is not JSON: read JSON value`:                   {"input": "hello", "transformation": "from_json"},
		"it can be uppercase, lowercase":                           {"input": "x", "transformation": "shout"},
		"parameter input is missing":                               {"transformation": "trim"},
		"separator is empty":                                       {"input": "x", "transformation": "split", "separator": ""},
		"separator must be a text":                                 {"input": []any{}, "transformation": "join", "separator": 1},
	} {
		_, err := run(t, Config{}, env, "transform", p)
		failed(t, err, pipeline.CategoryValidation, text)
	}
	large := make([]any, 20)
	for i := range large {
		large[i] = strings.Repeat("x", 1<<20)
	}
	_, err := Transform{Input: large, Transformation: "join"}.Run(t.Context(), env)
	failed(t, err, "failed", "larger than 16 MiB")
}

// answer is a model that answers with what a function gives.
func answer(f func(*model.Request) (*model.Response, error)) model.Caller {
	return model.Direct{Provider: model.Func(func(_ context.Context, r *model.Request) (*model.Response, error) { return f(r) })}
}

func TestGenerate(t *testing.T) {
	env, _ := testEnv(t)
	var asked model.Request
	cfg := Config{Model: answer(func(r *model.Request) (*model.Response, error) {
		asked = *r
		return &model.Response{Message: model.AssistantText("hi"), Model: "m-1", Usage: &pipeline.Usage{InputTokens: 3}}, nil
	})}
	for _, name := range []string{"generate", "generate_text"} {
		r, err := find(t, cfg, name).Bind(params{"prompt": "Hello", "system": "Be brief.", "model": "small", "temperature": int64(1), "max_tokens": int64(9)})
		if err != nil {
			t.Fatal(err)
		}
		out, err := r.Run(t.Context(), env)
		if err != nil || out.Value != "hi" || out.Model != "m-1" || out.Usage.InputTokens != 3 {
			t.Errorf("got %v, %v", out, err)
		}
		if asked.LastUser() != "Hello" || asked.Action != name || asked.Step != env.Path || asked.System != "Be brief." ||
			asked.Model != "small" || *asked.Temperature != 1 || asked.MaxTokens != 9 || asked.IdempotencyKey != env.IdempotencyKey() {
			t.Errorf("asked %+v", asked)
		}
	}
}

func TestGenerateFailures(t *testing.T) {
	env, _ := testEnv(t)
	_, err := run(t, Config{}, env, "generate", params{"prompt": "x"})
	if f := failed(t, err, pipeline.CategoryModel, "--script FILE"); f.Reason != "no_model" {
		t.Errorf("reason %s", f.Reason)
	}
	cfg := Config{Model: answer(func(r *model.Request) (*model.Response, error) {
		switch r.LastUser() {
		case "busy":
			return nil, &pipeline.Failure{Kind: pipeline.CategoryRateLimit, Message: "busy", RetryAfter: 3}
		case "long":
			return &model.Response{Message: model.AssistantText(strings.Repeat("x", maxValue+1))}, nil
		}
		return nil, errors.New("broken pipe")
	})}
	_, err = run(t, cfg, env, "generate", params{"prompt": "busy"})
	if f := failed(t, err, pipeline.CategoryRateLimit, "busy"); f.RetryAfter != 3 {
		t.Errorf("retry after %v", f.RetryAfter)
	}
	_, err = run(t, cfg, env, "generate", params{"prompt": "x"})
	failed(t, err, pipeline.CategoryModel, "ask the model: broken pipe")
	_, err = run(t, cfg, env, "generate", params{"prompt": "long"})
	failed(t, err, pipeline.CategoryFailed, "the model's answer")
	_, err = run(t, cfg, env, "generate", params{"prompt": "x", "temperature": "hot"})
	failed(t, err, pipeline.CategoryValidation, "temperature must be a number")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, _ := find(t, cfg, "generate").Bind(params{"prompt": "x"})
	_, err = r.Run(ctx, env)
	failed(t, err, pipeline.CategoryCancelled, "")
}
