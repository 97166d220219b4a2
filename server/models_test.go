package server

import (
	"context"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// registry is models and budgets as an executor has them.
type registry struct{ raised []string }

func (*registry) Models(context.Context) (pipeline.Models, error) {
	return pipeline.Models{List: []pipeline.ModelState{
		{
			ModelSpec: pipeline.ModelSpec{Name: "large", Tasks: []string{"general"}}, Provider: "anthropic", Available: true, Breaker: "closed",
			Price: &pipeline.ModelPrice{Input: 3, Output: 15}, Stat: pipeline.ModelStat{Calls: 3, Unpriced: 1, CostUSD: 0.5},
		},
		{ModelSpec: pipeline.ModelSpec{Name: "small"}, Provider: "openai", Reason: "there is no key", Breaker: "closed"},
	}}, nil
}

func (*registry) TestModel(_ context.Context, name, prompt string) (pipeline.ModelTest, error) {
	if name == "small" {
		f := pipeline.Failuref(pipeline.CategoryModel, "there is no key")
		f.Reason = "model_unavailable"
		return pipeline.ModelTest{}, f
	}
	return pipeline.ModelTest{Text: "heard " + prompt, Model: name}, nil
}

func (*registry) Budgets(context.Context) ([]pipeline.BudgetState, error) {
	return []pipeline.BudgetState{{Scope: "day", Name: "2026-01-31", Limit: pipeline.Amount{Nanos: 5e9}, Spent: pipeline.Amount{Nanos: 1e9, Tokens: 70}}}, nil
}

func (g *registry) RaiseBudget(_ context.Context, id, scope, name string, _ pipeline.Amount, actor string) (int, error) {
	g.raised = append(g.raised, strings.Join([]string{id, scope, name, actor}, " "))
	return 2, nil
}

func TestModelsAreListedReadAndTested(t *testing.T) {
	f := start(t, func(c *Config) { c.Models = &registry{} })
	list, _ := f.decoded("GET", "/v1/models", "")["models"].([]any)
	if len(list) != 2 {
		t.Fatalf("listed %v", list)
	}
	if m, _ := list[1].(map[string]any); m["price"] != nil || m["reason"] != "there is no key" {
		t.Errorf("a model without price and key: %v", m)
	}
	if list, _ = f.decoded("GET", "/v1/models?available=true", "")["models"].([]any); len(list) != 1 {
		t.Errorf("available are %v", list)
	}
	large := f.decoded("GET", "/v1/models/large", "")
	if s, _ := large["statistics"].(map[string]any); s["unpriced_calls"] != 1.0 || s["cost_usd"] != 0.5 {
		t.Errorf("the model: %v", large)
	}
	if got := f.decoded("POST", "/v1/models/large:test", `{"prompt": "hello"}`); got["text"] != "heard hello" {
		t.Errorf("tested: %v", got)
	}
	f.refused(404, "model_not_found", "GET", "/v1/models/huge", "")
	f.refused(404, "model_not_found", "POST", "/v1/models/huge:test", `{}`)
	f.refused(503, "model_unavailable", "POST", "/v1/models/small:test", `{}`)
	f.refused(400, "too_long", "POST", "/v1/models/large:test", `{"prompt": "`+strings.Repeat("x", maxPrompt+1)+`"}`)
	f.refused(400, "not_a_day", "GET", "/v1/usage?since=yesterday", "")
	if got, _ := f.decoded("GET", "/v1/usage", "")["usage"].([]any); len(got) != 0 {
		t.Errorf("nothing was used, and listed %v", got)
	}
}

func TestAServerWithoutModelsSaysSo(t *testing.T) {
	start(t).refused(503, "no_models", "GET", "/v1/models", "")
}

func TestBudgetsAreListedAndRaised(t *testing.T) {
	g := &registry{}
	f := start(t, func(c *Config) { c.Budgets = g })
	list, _ := f.decoded("GET", "/v1/budgets", "")["budgets"].([]any)
	if len(list) != 1 {
		t.Fatalf("listed %v", list)
	}
	if limit, _ := list[0].(map[string]any)["limit"].(map[string]any); limit["usd"] != 5.0 {
		t.Errorf("the budget: %v", list[0])
	}
	if got := f.decoded("POST", "/v1/budgets/day:raise", `{"name": "2026-01-31", "by": {"usd": 2}, "idempotency_key": "k"}`); got["woken"] != 2.0 {
		t.Errorf("raised: %v", got)
	}
	if len(g.raised) != 1 || g.raised[0] != "key k day 2026-01-31 "+localUser {
		t.Errorf("raised %q", g.raised)
	}
	f.refused(400, "required", "POST", "/v1/budgets/day:raise", `{}`)
	f.refused(400, "out_of_range", "POST", "/v1/budgets/day:raise", `{"by": {"usd": -1}}`)
	f.refused(400, "too_long", "POST", "/v1/budgets/day:raise", `{"by": {"usd": 1}, "idempotency_key": "`+strings.Repeat("k", 201)+`"}`)
}
