package step

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const prepareDoc = `Cleans a table and makes features for a model of it.

    - id: ready
      action: prepare_data
      parameters: {input_data: "{{ table.data }}", preprocessing: [drop_duplicates, impute, standardize], feature_engineering: one_hot}

preprocessing and feature_engineering are lists, or texts with commas, of these steps. They are done in this order, whatever the order they are named in:
- trim: blanks around texts go, empty texts become null
- drop_duplicates: rows that are equal to an earlier one go
- drop_nulls: rows with a null go
- drop_constant: columns with less than two values go
- impute: null becomes the median of a number column, the most frequent value of another; impute_mean, impute_zero and impute_mode take the mean, 0 and the most frequent value for numbers
- clip_outliers: numbers beyond the quartiles by more than 1.5 times the distance between them become that limit
- log: log(1 + x) of number columns without negative numbers and with a skewness of 1 or more, as column_log
- date_parts: of date columns year, month, day and weekday (Monday is 1), as column_year and so on, and hour where there is one
- one_hot: of text columns with 2 to 20 values one column of 0 and 1 for each value, as column=value; the column goes
- label_encode: text columns become the number of their value in the order of the values, from 0; null stays
- normalize: number columns are stretched to 0 to 1
- standardize: number columns get the mean 0 and the deviation 1 (of a sample)
- none: nothing is done

Default: preprocessing auto (trim, drop_duplicates, impute), feature_engineering auto (date_parts, one_hot). log, normalize and standardize leave alone what date_parts, one_hot and label_encode have made. steps says what was done to which columns, and how many rows or values it changed; features are the new columns with the column they come from. Words that name no step are listed in ignored.`

const maxFeatures = 2000 // columns of a prepared table

// PrepareData is a table with what to do to it.
type PrepareData struct {
	InputData          []any `param:"required" doc:"the rows, a list of maps"`
	Preprocessing      any   `doc:"the steps, a list or a text; default: auto"`
	FeatureEngineering any   `doc:"the steps, a list or a text; default: auto"`
}

type prepareResult struct {
	ProcessedData []any    `doc:"the rows"`
	Columns       []string `doc:"their columns, sorted"`
	Rows          int64    `doc:"how many"`
	Steps         []any    `doc:"what was done: maps of step, columns, changed"`
	Features      []any    `doc:"the new columns: maps of name, from, step"`
	Ignored       []string `doc:"words that name no step"`
}

func prepareDataAction() executor.Action {
	return executor.NewAction[PrepareData](executor.Describe{
		Name: "prepare_data", Doc: prepareDoc, Effect: pipeline.EffectPure, Returns: prepareResult{},
	})
}

// preparation is a table that is being worked on. Its rows are its own.
type preparation struct {
	rows     []map[string]any
	steps    []any
	features []any
	made     map[string]bool // columns that features have made
	width    int
}

type prepareStep struct {
	name string
	do   func(p *preparation) error
}

// prepareSteps stand in the order in which they are done.
var prepareSteps = []prepareStep{
	{"trim", (*preparation).trim},
	{"drop_duplicates", (*preparation).dropDuplicates},
	{"drop_nulls", (*preparation).dropNulls},
	{"drop_constant", (*preparation).dropConstant},
	{"impute", func(p *preparation) error { return p.impute("impute") }},
	{"impute_mean", func(p *preparation) error { return p.impute("impute_mean") }},
	{"impute_zero", func(p *preparation) error { return p.impute("impute_zero") }},
	{"impute_mode", func(p *preparation) error { return p.impute("impute_mode") }},
	{"clip_outliers", (*preparation).clip},
	{"log", (*preparation).log},
	{"date_parts", (*preparation).dateParts},
	{"one_hot", (*preparation).oneHot},
	{"label_encode", (*preparation).label},
	{"normalize", (*preparation).normalize},
	{"standardize", (*preparation).standardize},
}

// prepareWords are parts of words by which people name the steps; the first that
// fits counts.
var prepareWords = []struct{ part, step string }{
	{"impute_mean", "impute_mean"},
	{"mean_imput", "impute_mean"},
	{"impute_zero", "impute_zero"},
	{"impute_mode", "impute_mode"},
	{"mode_imput", "impute_mode"},
	{"drop_null", "drop_nulls"},
	{"drop_missing", "drop_nulls"},
	{"remove_missing", "drop_nulls"},
	{"remove_null", "drop_nulls"},
	{"dropna", "drop_nulls"},
	{"duplicate", "drop_duplicates"},
	{"dedup", "drop_duplicates"},
	{"constant", "drop_constant"},
	{"imput", "impute"},
	{"fill_missing", "impute"},
	{"missing_value", "impute"},
	{"handle_missing", "impute"},
	{"outlier", "clip_outliers"},
	{"trim", "trim"},
	{"whitespace", "trim"},
	{"standardi", "standardize"},
	{"zscore", "standardize"},
	{"z_score", "standardize"},
	{"normali", "normalize"},
	{"min_max", "normalize"},
	{"minmax", "normalize"},
	{"one_hot", "one_hot"},
	{"onehot", "one_hot"},
	{"dummies", "one_hot"},
	{"label_encod", "label_encode"},
	{"ordinal_encod", "label_encode"},
	{"date_part", "date_parts"},
	{"date_feature", "date_parts"},
	{"datetime", "date_parts"},
	{"log_transform", "log"},
}

// stepsOf reads the names of steps.
func stepsOf(param string, v any, auto []string, ignored []string) (chosen, unknown []string, err error) {
	words, err := wordList(param, v)
	if err != nil {
		return nil, nil, err
	}
	if len(words) == 0 {
		words = []string{"auto"}
	}
	for _, w := range words {
		found := ""
		for _, s := range prepareSteps {
			if s.name == w {
				found = w
			}
		}
		for _, known := range prepareWords {
			if found == "" && strings.Contains(w, known.part) {
				found = known.step
			}
		}
		switch {
		case found != "":
			chosen = append(chosen, found)
		case w == "auto" || w == "default" || w == "automatic" || w == "standard":
			chosen = append(chosen, auto...)
		case w == "none" || w == "no" || w == "skip":
		default:
			ignored = append(ignored, w)
		}
	}
	return chosen, ignored, nil
}

// Run works on a copy of the rows.
func (p PrepareData) Run(ctx context.Context, _ executor.Env) (executor.Output, error) {
	rows, err := table("input_data", p.InputData)
	if err != nil {
		return executor.Output{}, err
	}
	clean, ignored, err := stepsOf("preprocessing", p.Preprocessing, []string{"trim", "drop_duplicates", "impute"}, []string{})
	if err != nil {
		return executor.Output{}, err
	}
	made, ignored, err := stepsOf("feature_engineering", p.FeatureEngineering, []string{"date_parts", "one_hot"}, ignored)
	if err != nil {
		return executor.Output{}, err
	}
	w := &preparation{rows: make([]map[string]any, len(rows)), steps: []any{}, features: []any{}, made: map[string]bool{}}
	for i, r := range rows {
		w.rows[i] = maps.Clone(r)
		if w.rows[i] == nil {
			w.rows[i] = map[string]any{}
		}
	}
	chosen := append(clean, made...)
	for _, s := range prepareSteps {
		if ctx.Err() != nil {
			return executor.Output{}, ended(ctx)
		}
		if !slices.Contains(chosen, s.name) {
			continue
		}
		if err := s.do(w); err != nil {
			return executor.Output{}, err
		}
	}
	data := make([]any, len(w.rows))
	for i, r := range w.rows {
		data[i] = r
	}
	return bounded("the prepared table", map[string]any{
		"processed_data": data, "columns": anyList(columnsOf(w.rows)), "rows": int64(len(data)),
		"steps": w.steps, "features": w.features, "ignored": anyList(ignored),
	})
}

// did records a step. changed counts rows or values.
func (p *preparation) did(step string, columns []string, changed int) {
	p.steps = append(p.steps, map[string]any{"step": step, "columns": anyList(columns), "changed": int64(changed)})
}

// columns are those of some kinds that no feature has made.
func (p *preparation) columns(kinds ...string) []string {
	var list []string
	for _, c := range columnsOf(p.rows) {
		if !p.made[c] && slices.Contains(kinds, kindOfColumn(p.rows, c)) {
			list = append(list, c)
		}
	}
	return list
}

// feature adds a column. Its name must be new.
func (p *preparation) feature(name, from, step string, value func(row map[string]any) any) error {
	for _, r := range p.rows {
		if _, ok := r[name]; ok {
			return invalid("%s would make a column %q, which is there already", step, name)
		}
	}
	if p.width++; p.width > maxFeatures {
		return tooLarge("feature_engineering makes more than %d columns; name the steps that are needed", maxFeatures)
	}
	if p.width*len(p.rows) > maxCells {
		return tooLarge("feature_engineering makes more than %d values; work on fewer rows or columns", maxCells)
	}
	for _, r := range p.rows {
		r[name] = value(r)
	}
	p.made[name] = true
	p.features = append(p.features, map[string]any{"name": name, "from": from, "step": step})
	return nil
}

func (p *preparation) trim() error {
	n := 0
	touched := map[string]bool{}
	for _, r := range p.rows {
		for k, v := range r {
			s, ok := v.(string)
			t := strings.TrimSpace(s)
			if !ok || t == s && s != "" {
				continue
			}
			n++
			touched[k] = true
			if r[k] = t; t == "" {
				r[k] = nil
			}
		}
	}
	p.did("trim", slices.Sorted(maps.Keys(touched)), n)
	return nil
}

func (p *preparation) keep(step string, fits func(map[string]any) bool) {
	before := len(p.rows)
	p.rows = slices.DeleteFunc(p.rows, func(r map[string]any) bool { return !fits(r) })
	p.did(step, nil, before-len(p.rows))
}

func (p *preparation) dropDuplicates() error {
	seen := map[string]bool{}
	p.keep("drop_duplicates", func(r map[string]any) bool {
		id := identity(r)
		was := seen[id]
		seen[id] = true
		return !was
	})
	return nil
}

func (p *preparation) dropNulls() error {
	names := columnsOf(p.rows)
	p.keep("drop_nulls", func(r map[string]any) bool {
		return !slices.ContainsFunc(names, func(c string) bool { return r[c] == nil })
	})
	return nil
}

func (p *preparation) dropConstant() error {
	var gone []string
	for _, c := range columnsOf(p.rows) {
		if len(sortedTallies(present(p.rows, c), 1)) > 0 || len(present(p.rows, c)) == 0 {
			gone = append(gone, c)
			p.remove(c)
		}
	}
	p.did("drop_constant", gone, len(gone))
	return nil
}

func (p *preparation) remove(column string) {
	for _, r := range p.rows {
		delete(r, column)
	}
}

func (p *preparation) impute(step string) error {
	n := 0
	var touched []string
	for _, c := range columnsOf(p.rows) {
		values := present(p.rows, c)
		if len(values) == len(p.rows) || len(values) == 0 {
			continue
		}
		fill := p.filling(step, c, values)
		if fill == nil {
			continue
		}
		touched = append(touched, c)
		for _, r := range p.rows {
			if r[c] == nil {
				r[c] = fill
				n++
			}
		}
	}
	p.did(step, touched, n)
	return nil
}

func (p *preparation) filling(step, column string, values []any) any {
	kind := kindOfColumn(p.rows, column)
	if numeric(kind) {
		switch step {
		case "impute_mean":
			return finite(mean(values))
		case "impute_zero":
			if kind == kindInteger {
				return int64(0)
			}
			return 0.0
		case "impute":
			order := floats(values)
			slices.Sort(order)
			m := quantile(order, 0.5)
			if kind == kindInteger && m == math.Trunc(m) && math.Abs(m) < 1<<53 {
				return int64(m)
			}
			return finite(m)
		}
	}
	return tallies(values)[0].value
}

// numbers changes the number columns; f makes the change out of a column's
// numbers, or nil to leave it.
func (p *preparation) numbers(step string, f func(x []float64) func(float64) float64) {
	n := 0
	var touched []string
	for _, c := range p.columns(kindInteger, kindNumber) {
		change := f(floats(present(p.rows, c)))
		if change == nil {
			continue
		}
		touched = append(touched, c)
		for _, r := range p.rows {
			if v := r[c]; v != nil {
				if to := change(toFloat(v)); to != toFloat(v) {
					r[c] = finite(to)
					n++
				}
			}
		}
		for _, r := range p.rows { // a column of numbers, also where some have not changed
			if i, ok := r[c].(int64); ok {
				r[c] = float64(i)
			}
		}
	}
	p.did(step, touched, n)
}

func (p *preparation) clip() error {
	p.numbers("clip_outliers", func(x []float64) func(float64) float64 {
		slices.Sort(x)
		q1, q3 := quantile(x, 0.25), quantile(x, 0.75)
		low, high := q1-anomalyFences*(q3-q1), q3+anomalyFences*(q3-q1)
		if !(q3 > q1) || x[0] >= low && x[len(x)-1] <= high || math.IsInf(high-low, 0) {
			return nil
		}
		return func(v float64) float64 { return max(low, min(high, v)) }
	})
	return nil
}

func (p *preparation) normalize() error {
	p.numbers("normalize", func(x []float64) func(float64) float64 {
		low, width := slices.Min(x), slices.Max(x)-slices.Min(x)
		if !(width > 0) || math.IsInf(width, 0) {
			return nil
		}
		return func(v float64) float64 { return (v - low) / width }
	})
	return nil
}

func (p *preparation) standardize() error {
	p.numbers("standardize", func(x []float64) func(float64) float64 {
		m, s := average(x), math.Sqrt(spread(x))
		if !(s > 0) || math.IsInf(s, 0) {
			return nil
		}
		return func(v float64) float64 { return (v - m) / s }
	})
	return nil
}

func (p *preparation) log() error {
	var touched []string
	for _, c := range p.columns(kindInteger, kindNumber) {
		x := floats(present(p.rows, c))
		if skew, _ := shape(x); !(skew >= 1) || slices.Min(x) < 0 {
			continue
		}
		touched = append(touched, c)
		err := p.feature(c+"_log", c, "log", func(r map[string]any) any {
			if r[c] == nil {
				return nil
			}
			return finite(math.Log1p(toFloat(r[c])))
		})
		if err != nil {
			return err
		}
	}
	p.did("log", touched, len(touched))
	return nil
}

func (p *preparation) dateParts() error {
	touched := p.columns(kindDate)
	for _, c := range touched {
		part := func(name string, f func(y, m, d, weekday, hour int) int) error {
			return p.feature(c+"_"+name, c, "date_parts", func(r map[string]any) any {
				s, _ := r[c].(string)
				at, ok := parseDate(s)
				if !ok {
					return nil
				}
				return int64(f(at.Year(), int(at.Month()), at.Day(), (int(at.Weekday())+6)%7+1, at.Hour()))
			})
		}
		parts := []struct {
			name string
			f    func(y, m, d, weekday, hour int) int
		}{
			{"year", func(y, _, _, _, _ int) int { return y }},
			{"month", func(_, m, _, _, _ int) int { return m }},
			{"day", func(_, _, d, _, _ int) int { return d }},
			{"weekday", func(_, _, _, w, _ int) int { return w }},
			{"hour", func(_, _, _, _, h int) int { return h }},
		}
		if !slices.ContainsFunc(p.rows, func(r map[string]any) bool { s, _ := r[c].(string); return strings.ContainsRune(s, ':') }) {
			parts = parts[:4]
		}
		for _, x := range parts {
			if err := part(x.name, x.f); err != nil {
				return err
			}
		}
	}
	p.did("date_parts", touched, len(touched))
	return nil
}

func (p *preparation) oneHot() error {
	var touched []string
	for _, c := range p.columns(kindText) {
		values := sortedTallies(present(p.rows, c), maxGroups)
		if len(values) < 2 {
			continue
		}
		touched = append(touched, c)
		for _, t := range values {
			err := p.feature(fmt.Sprintf("%s=%s", c, t.value), c, "one_hot", func(r map[string]any) any {
				return int64(boolInt(r[c] == t.value))
			})
			if err != nil {
				return err
			}
		}
		p.remove(c)
	}
	p.did("one_hot", touched, len(touched))
	return nil
}

func (p *preparation) label() error {
	touched := p.columns(kindText)
	for _, c := range touched {
		number := map[any]int64{}
		for i, t := range sortedTallies(present(p.rows, c), maxRows) {
			number[t.value] = int64(i)
		}
		for _, r := range p.rows {
			if r[c] != nil {
				r[c] = number[r[c]]
			}
		}
		p.made[c] = true
	}
	p.did("label_encode", touched, len(touched))
	return nil
}
