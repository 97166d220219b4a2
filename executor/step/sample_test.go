package step

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestSamplingIsReadAsPeopleWriteIt(t *testing.T) {
	for text, want := range map[string]rowSample{
		"":                              {kind: "full", rows: 1000},
		"full":                          {kind: "full", rows: 1000},
		"Full load":                     {kind: "full", rows: 1000},
		"full_load":                     {kind: "full", rows: 1000},
		" FULL-LOAD ":                   {kind: "full", rows: 1000},
		"no sampling":                   {kind: "full", rows: 1000},
		"head":                          {kind: "first", rows: 1000},
		"first 100":                     {kind: "first", rows: 100},
		"first_100_rows":                {kind: "first", rows: 100},
		"the first 1,000 rows":          {kind: "first", rows: 1000},
		"Random":                        {kind: "random", rows: 1000},
		"random sample":                 {kind: "random", rows: 1000},
		"random_sampling (50)":          {kind: "random", rows: 50},
		"sample 10%":                    {kind: "random", rows: 1000, percent: 10},
		"random sample 2.5%":            {kind: "random", rows: 1000, percent: 2.5},
		"random 10 percent of all":      {},
		"sample 0%":                     {},
		"sample 101%":                   {},
		"full 10":                       {},
		"full load or sampling":         {},
		"stratified":                    {},
		"first 10 20":                   {},
		"first 99999999999999999999999": {},
		"random 1e9":                    {},
		"100":                           {},
		"rows":                          {},
	} {
		got, err := LoadData{SamplingStrategy: text, Limit: 1000}.sampling()
		if want.kind == "" {
			failed(t, err, pipeline.CategoryValidation, "it can be full, first N, random N or random N%")
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestSamples(t *testing.T) {
	env, _ := testEnv(t)
	rows := []any{}
	for i := range 20 {
		rows = append(rows, params{"n": i})
	}
	for _, c := range []struct {
		p    params
		want []int
	}{
		{params{"sampling_strategy": "first 3"}, []int{0, 1, 2}},
		{params{"sampling_strategy": "head", "limit": 2}, []int{0, 1}},
		{params{"sampling_strategy": "first 50"}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}},
		{params{"sampling_strategy": "random 5"}, []int{0, 5, 11, 13, 18}},
		{params{"sampling_strategy": "random", "limit": 5, "seed": 7}, []int{2, 3, 11, 15, 19}},
		{params{"sampling_strategy": "random 10%"}, []int{5, 13}},
		{params{"sampling_strategy": "random", "limit": 0}, []int{}},
	} {
		c.p["source"] = rows
		v, err := run(t, Config{}, env, "load_data", c.p)
		if err != nil {
			t.Fatal(err)
		}
		got := []int{}
		for _, r := range field(t, v, "data").([]any) {
			got = append(got, int(field(t, r, "n").(int64)))
		}
		if !slices.Equal(got, c.want) || field(t, v, "rows") != int64(len(got)) || field(t, v, "total_rows") != int64(20) {
			t.Errorf("%s: got %v of %v", c.p["sampling_strategy"], got, field(t, v, "total_rows"))
		}
	}
	_, err := run(t, Config{}, env, "load_data", params{"source": rows, "limit": -1})
	failed(t, err, pipeline.CategoryValidation, "must not be negative")
}

func TestRandomSamplesKeepOrderAndSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := make([]any, rapid.IntRange(0, 200).Draw(t, "rows"))
		for i := range rows {
			rows[i] = int64(i)
		}
		s := rowSample{kind: "random", rows: rapid.Int64Range(0, 250).Draw(t, "limit"), seed: rapid.Int64().Draw(t, "seed")}
		got := s.of(rows)
		if int64(len(got)) != min(s.rows, int64(len(rows))) {
			t.Fatalf("got %d rows of %d, want %d", len(got), len(rows), s.rows)
		}
		for i := range got {
			if i > 0 && got[i].(int64) <= got[i-1].(int64) {
				t.Fatalf("out of order: %v", got)
			}
		}
	})
}
