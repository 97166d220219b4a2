package model

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// waits keeps whose limits were waited for.
type waits map[string]Limits

func (w waits) Wait(_ context.Context, account string, l Limits, _ int64) error {
	w[account] = l
	return nil
}

func TestModelsBehindOneKeyShareItsLimits(t *testing.T) {
	keys := map[string]string{"OPENAI_API_KEY": "sk-first", "SECOND": "sk-second"}
	w, s := waits{}, &service{f: echo}
	r := NewRouter(Config{
		Registry: &Registry{Policies: policies(), Entries: []*Entry{
			{Name: "big", Provider: ProviderOpenAI, Limits: Limits{RequestsPerMinute: 50}},
			{Name: "small", Provider: ProviderOpenAI, Limits: Limits{RequestsPerMinute: 80, TokensPerMinute: 1000}},
			{Name: "plain", Provider: ProviderOpenAI},
			{Name: "other", Provider: ProviderOpenAI, KeyEnv: "SECOND", Limits: Limits{RequestsPerMinute: 7}},
		}},
		Open: func(Endpoint) (Provider, error) { return s, nil }, Limiter: w,
		Env: func(name string) (string, bool) { v, ok := keys[name]; return v, ok },
	})
	for _, name := range []string{"big", "small", "plain", "other"} {
		q := ask(name)
		q.Model = name
		if _, err := r.Ask(t.Context(), (&book{}).attempt(), q); err != nil {
			t.Fatal(err)
		}
	}
	var limits []Limits
	for account, l := range w {
		if strings.Contains(account, "sk-") {
			t.Errorf("the key stands in %q", account)
		}
		limits = append(limits, l)
	}
	if len(limits) == 2 && limits[0].RequestsPerMinute == 7 {
		limits[0], limits[1] = limits[1], limits[0]
	}
	if diff := cmp.Diff([]Limits{{RequestsPerMinute: 50, TokensPerMinute: 1000}, {RequestsPerMinute: 7}}, limits); diff != "" {
		t.Error(diff)
	}
}

func TestCostThatNobodyKnowsIsCounted(t *testing.T) {
	s := &service{f: echo}
	r, cfg := routed(t, map[string]*service{"m": s}, "m")
	cfg.Registry.Entries[0].Prices = nil
	a, err := r.Ask(t.Context(), (&book{}).attempt(), ask("hello"))
	if err != nil || a.Usage.Unpriced != 1 || a.Usage.CostUSD != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	for _, e := range builtIn {
		if e.Provider != ProviderAnthropic && len(e.Prices) > 0 {
			t.Errorf("%s has a price that nobody has looked up", e.Name)
		}
	}
}
