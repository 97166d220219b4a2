package step

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// rowSample says which rows of a table to keep.
type rowSample struct {
	kind    string // full, first or random
	rows    int64
	percent float64 // above 0: instead of rows
	seed    int64
}

var (
	samplingKinds = map[string]string{
		"full": "full", "all": "full", "none": "full", "everything": "full", "complete": "full", "entire": "full", "whole": "full",
		"first": "first", "head": "first", "top": "first",
		"random": "random", "sample": "random", "sampling": "random", "sampled": "random",
	}
	// samplingFillers say nothing more.
	samplingFillers = []string{
		"load", "loading", "rows", "row", "records", "lines", "data", "dataset", "table", "of", "the", "a", "no", "uniform", "strategy", "percent",
	}
)

// sampling reads the strategy from a text that a person or a model wrote: "Full
// load", first_100, "random 10%".
func (l LoadData) sampling() (rowSample, error) {
	s := rowSample{rows: l.Limit, seed: l.Seed}
	refuse := func() (rowSample, error) {
		return s, invalid("parameter sampling_strategy is %q; it can be full, first N, random N or random N%%", head(l.SamplingStrategy, 80))
	}
	if l.Limit < 0 {
		return s, invalid("parameter limit is %d; it must not be negative", l.Limit)
	}
	text := word(l.SamplingStrategy)
	if text == "no_sampling" {
		text = "full"
	}
	number := ""
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '_' || r == ':' || r == '=' || r == '(' || r == ')' }) {
		kind := samplingKinds[part]
		switch {
		case kind != "" && (s.kind == "" || s.kind == kind):
			s.kind = kind
		case kind != "":
			return refuse()
		case part[0] >= '0' && part[0] <= '9' && number == "":
			number = part
		case !slices.Contains(samplingFillers, part):
			return refuse()
		}
	}
	if s.kind == "" {
		if text != "" || number != "" {
			return refuse()
		}
		s.kind = "full"
	}
	if number == "" {
		return s, nil
	}
	if s.kind == "full" {
		return refuse()
	}
	if digits, ok := strings.CutSuffix(number, "%"); ok || strings.Contains(text, "percent") {
		var err error
		if s.percent, err = strconv.ParseFloat(digits, 64); err != nil || !(s.percent > 0 && s.percent <= 100) {
			return refuse()
		}
		return s, nil
	}
	var err error
	if s.rows, err = strconv.ParseInt(strings.ReplaceAll(number, ",", ""), 10, 64); err != nil {
		return refuse()
	}
	return s, nil
}

// of picks the rows. A random sample is by selection: each set of rows is as
// likely as any other, and the order stays.
func (s rowSample) of(rows []any) []any {
	want := int64(len(rows))
	switch {
	case s.kind == "full":
		return rows
	case s.percent > 0:
		want = int64(float64(want)*s.percent/100 + 0.5)
	default:
		want = min(want, s.rows)
	}
	if s.kind == "first" {
		return rows[:want:want]
	}
	r := rand.New(rand.NewPCG(uint64(s.seed), 0)) //nolint:gosec // a sample need not be unpredictable, but repeatable
	kept := make([]any, 0, want)
	for i, row := range rows {
		if r.Int64N(int64(len(rows)-i)) < want-int64(len(kept)) {
			kept = append(kept, row)
		}
	}
	return kept
}
