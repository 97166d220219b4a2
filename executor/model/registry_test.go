package model

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestRegistryReadsTheDocumentedFile(t *testing.T) {
	text, err := os.ReadFile("testdata/models.yaml")
	if err != nil {
		t.Fatal(err)
	}
	g, faults := ReadRegistry("models.yaml", text)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if want := []string{"claude-4-opus", "gpt-4o", "gpt-4o-mini", "llama2-7b", "llama2-7b-int4"}; !slices.Equal(g.Names(), want) {
		t.Errorf("models %v", g.Names())
	}
	small := g.Entry("llama2-7b-int4")
	if spec := small.Spec(); spec.Context != 4096 || !slices.Contains(spec.Tasks, "summarization") || spec.Cost != 0 {
		t.Errorf("a quantized model has what its base has: %+v", spec)
	}
	if p, ok := small.Price(time.Now()); !ok || p.Input != 0 {
		t.Errorf("it costs nothing, and that is known: %v %v", p, ok)
	}
	if w := g.Policies["cost_optimized"].Weights; w != (Weights{Cost: 0.6, Accuracy: 0.3, Latency: 0.1}) {
		t.Errorf("weights %v", w)
	}
	if f := g.Policies["default"].Exploration; f == nil || *f != 2 {
		t.Errorf("exploration %v", f)
	}
	if p, _ := g.Entry("gpt-4o").Price(time.Now()); p.Cost(&pipeline.Usage{InputTokens: 1000, OutputTokens: 1000}) != 0.06 {
		t.Errorf("price %+v", p)
	}
}

func TestRegistryTellsFaultsWithTheirPlaces(t *testing.T) {
	for text, want := range map[string]string{
		"models:\n  a: {provder: openai}":   `f:2:7: models.a: unknown key "provder" (did you mean "provider"?)`,
		"models:\n  a:\n    provider: acme": `f:3:15: models.a.provider is "acme"; it must be one of anthropic, openai, google, local, script, cassette`,
		"model: {}":                         `f:1:1: the file: unknown key "model" (did you mean "models"?)`,
		"models:\n  a: {provider: openai, metrics: {accuracy: high}}":                           `f:2:45: models.a.metrics.accuracy is "high"; it must be a number, not below 0`,
		"models:\n  a: {provider: openai, capabilities: {tasks: x}}":                            `f:2:47: models.a.capabilities.tasks must be a list`,
		"models:\n  a: {provider: openai, prices: [{from: soon}]}":                              `f:2:41: models.a.prices[0].from is "soon"; it must be a day, as in 2026-01-31`,
		"models:\n  a: {provider: openai, base_model: b}":                                       `f:2:6: models.a: its base_model "b" is not in the file`,
		"models:\n  a: {provider: openai, fallback: [b]}":                                       `f:2:6: models.a: its fallback "b" is not in the file`,
		"models:\n  a: {provider: openai}\n  a: {provider: openai}":                             `f:3:3: models: the key "a" stands here twice`,
		"models:\n  a: {provider: local, base_model: b}\n  b: {provider: local, base_model: a}": `f:2:6: models.a: its base_model "b" is, in the end, a version of itself`,
		"models:\n  a: {provider: local, base_model: a}":                                        `f:2:6: models.a: its base_model "a" is, in the end, a version of itself`,
		"models:\n  a: {provider: script}":                                                      `f:2:6: models.a: file is missing`,
		"models:\n  \"\": {provider: local}":                                                    `f:2:7: models: a model has no name`,
		"models:\n  a: {provider: local, base_url: 'https://me:hush@host/v1'}":                  `f:2:6: models.a.base_url holds a name or a password;`,
		"models:\n  a: {provider: local, base_url: here}":                                       `f:2:6: models.a.base_url is "here"; it must be an address`,
		"selection_policies: {p: {strategy: weighted}}":                                         `f:1:25: selection_policies.p: weights are missing`,
		"models:\n  a: {provider: openai, record: b}":                                           `f:2:6: models.a: only a model of the provider cassette has a key record`,
		"models:\n  a: {provider: cassette, record: b}":                                         `f:2:6: models.a: file is missing, which holds the answers`,
		"models:\n  a: {provider: cassette, file: x, record: b}":                                `f:2:6: models.a: the model "b", which it records, is not in the file`,
		"models:\n  a: {provider: cassette, file: x, record: a}":                                `f:2:6: models.a: it records "a", which itself answers from a file`,
		"models:\n  a: {}":                          `f:2:6: models.a: provider is missing`,
		"selection_policies: {p: {weights: {}}}":    `f:1:25: selection_policies.p: strategy is missing`,
		"selection_policies: {p: {strategy: best}}": `must be one of ucb, weighted`,
		"models: []": `f:1:9: models must be a map`,
		"models:\n  a: {provider: openai, capabilities: {context_window: [1]}}":       `models.a.capabilities.context_window must be a single value`,
		"models:\n  a: {provider: openai, capabilities: {supports_streaming: maybe}}": `it must be true or false`,
		"a: [": `f: `,
	} {
		g, faults := ReadRegistry("f", []byte(text))
		if g != nil || len(faults) == 0 || !strings.Contains(strings.Join(faults, "\n"), want) {
			t.Errorf("%s\n  gives %q,\n  not   %q", text, faults, want)
		}
	}
}

func TestPricesHaveTheirDays(t *testing.T) {
	cached := 0.5
	e := &Entry{Prices: []Price{{Input: 4, Output: 8}, {From: day(2026, 3, 1), Input: 2, Output: 6, Cached: &cached}, {From: day(2026, 2, 1), Input: 3, Output: 7}}}
	u := pipeline.Usage{InputTokens: 1_000_000, CachedTokens: 400_000, OutputTokens: 1_000_000}
	for _, c := range []struct {
		at   time.Time
		want float64
	}{{day(2026, 1, 31), 12}, {day(2026, 2, 1), 10}, {day(2026, 3, 1), 1.2 + 0.2 + 6}} {
		p, ok := e.Price(c.at)
		if got := p.Cost(&u); !ok || got != c.want {
			t.Errorf("%v: %v, want %v", c.at, got, c.want)
		}
	}
	if _, ok := (&Entry{}).Price(time.Now()); ok {
		t.Error("a price that nobody has named is not known")
	}
}

func TestVersionsOfVersionsHaveTheirCapabilities(t *testing.T) {
	g, faults := ReadRegistry("f", []byte(`models:
  least: {provider: local, base_model: less}
  less: {provider: local, base_model: full}
  full: {provider: local, capabilities: {context_window: 4096}}`))
	if len(faults) > 0 || g.Entry("least").Capabilities.ContextWindow != 4096 {
		t.Errorf("%v, %+v", faults, g)
	}
}
