package step

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const batchDoc = `Asks each of several models for a prediction on each row.

    - id: parallel_predictions
      action: batch_predict
      parameters:
        models: [small, large]
        data: "{{ load.data }}"
        task: Is this review positive or negative?
        labels: [positive, negative]

data is a list of rows (maps, texts or any values); anything else is one row. results has an entry for each row and model: row (its index, from 0), model, prediction, confidence (from 0 to 1, as the model sees it). Up to 4 models are asked at a time; with an execution_strategy that says sequential, one. One that fails fails the step. At most 1000 predictions are made.`

const (
	maxPredictions = 1000
	predictors     = 4 // asked at a time
)

// BatchPredict asks models about rows.
type BatchPredict struct {
	Models            any    `param:"required" doc:"names, or maps with a name"`
	Data              any    `param:"required" doc:"a list of rows, or one row"`
	Task              any    `doc:"what is to be predicted"`
	Labels            []any  `doc:"the predictions to choose from; default: any"`
	ExecutionStrategy string `default:"\"parallel\"" doc:"parallel or sequential"`
	Instructions      string `doc:"what else the models are told"`
	MaxTokens         int64  `doc:"the longest answer, in tokens; default: the model's own limit"`
	Temperature       any    `type:"number" doc:"0 for steady answers, more for varied ones; default: the model's own"`

	asker
}

type batchResult struct {
	Results []any `doc:"maps with row, model, prediction, confidence; by row, then in the order of models"`
}

func batchPredictAction(cfg Config) executor.Action {
	const name = "batch_predict"
	a := executor.NewAction[BatchPredict](executor.Describe{
		Name: name, Doc: batchDoc, Effect: pipeline.EffectAtLeastOnce, Model: true, Returns: batchResult{},
	})
	a.Journal = true
	return prepare(a, func(b *BatchPredict) { b.asker = asker{action: name, models: cfg.Model} })
}

const predictPrompt = `Predict what the task asks for, for this one row. Give the prediction, and your confidence in it from 0 (a guess) to 1 (certain).
Where labels are given, the prediction is one of them, spelled the same.`

// Run asks about every pair of a row and a model.
func (b BatchPredict) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	names, err := modelNames("models", b.Models)
	if err != nil {
		return executor.Output{}, err
	}
	rows, ok := b.Data.([]any)
	if !ok {
		rows = []any{b.Data}
	}
	n := len(rows) * len(names)
	if n > maxPredictions {
		return executor.Output{}, invalid("%d rows for %d models are %d predictions; a step makes at most %d", len(rows), len(names), n, maxPredictions)
	}
	atOnce := predictors
	if s := strings.ToLower(b.ExecutionStrategy); strings.Contains(s, "sequen") || strings.Contains(s, "serial") {
		atOnce = 1
	}
	prediction := map[string]any{}
	if len(b.Labels) > 0 {
		prediction["enum"] = b.Labels
	}
	schema := map[string]any{
		"type": "object", "required": []any{"prediction", "confidence"}, "additionalProperties": false,
		"properties": map[string]any{"prediction": prediction, "confidence": schemaOf(&shareType)},
	}
	results, usages := make([]any, n), make([]*pipeline.Usage, n)
	models := make([]string, n)
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range n {
		row, name := i/len(names), names[i%len(names)]
		g.Go(func() error {
			if within.Err() != nil {
				return within.Err()
			}
			r := b.request(env, predictPrompt, b.show(rows[row]))
			r.Model, r.Schema = name, schema
			r.IdempotencyKey += "/" + strconv.Itoa(i)
			if err := limits(r, b.MaxTokens, b.Temperature); err != nil {
				return err
			}
			out, err := b.ask(within, env, r)
			usages[i], models[i] = out.Usage, out.Model
			if err != nil {
				return about(err, fmt.Sprintf("row %d, model %s: ", row, name))
			}
			m, _ := out.Value.(map[string]any)
			results[i] = map[string]any{"row": int64(row), "model": name, "prediction": m["prediction"], "confidence": m["confidence"]}
			return nil
		})
	}
	err = g.Wait()
	out := executor.Output{Model: answered(models)}
	for _, u := range usages {
		out.Usage = model.Sum(out.Usage, u)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ended(ctx)
		}
		return out, err
	}
	out.Value = map[string]any{"results": results}
	return out, nil
}

func (b BatchPredict) show(row any) string {
	var s strings.Builder
	for _, part := range []struct {
		name  string
		value any
	}{{"task", b.Task}, {"instructions", nonEmpty(b.Instructions)}, {"row", row}} {
		if part.value != nil {
			fmt.Fprintf(&s, "## %s\n%s\n\n", part.name, strings.TrimRight(expr.Text(part.value), "\n"))
		}
	}
	return strings.TrimRight(s.String(), "\n")
}

func nonEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// answered names the models that answered, each once.
func answered(names []string) string {
	var list []string
	seen := map[string]bool{"": true}
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			list = append(list, n)
		}
	}
	return strings.Join(list, ", ")
}

// about adds to a failure which part of the step it is about.
func about(err error, what string) error {
	f, ok := err.(*pipeline.Failure) //nolint:errorlint // what ask gives is not wrapped
	if !ok {
		return err
	}
	own := *f
	own.Message = what + f.Message
	return &own
}

var numbers = regexp.MustCompile(`[-+]?[0-9]+(?:\.[0-9]+)?%?`)

// oneNumber reads a number, or a text that holds exactly one; a percentage is a
// share.
func oneNumber(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case string:
		found := numbers.FindAllString(v, 2)
		if len(found) != 1 {
			return 0, false
		}
		text, percent := strings.CutSuffix(found[0], "%")
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(f, 0) {
			return 0, false
		}
		if percent {
			f /= 100
		}
		return f, true
	}
	return 0, false
}

// passThreshold accepts predictions by their confidence.
func passThreshold(params map[string]any) (any, bool, error) {
	list, ok := params["ensemble_predictions"].([]any)
	least, known := oneNumber(params["validation_threshold"])
	if known && least > 1 && least <= 100 {
		least /= 100
	}
	if !ok || !known || least < 0 || least > 1 {
		return nil, false, nil
	}
	accepted, rejected, issues := []any{}, []any{}, []any{}
	for i, p := range list {
		m, _ := p.(map[string]any)
		c, ok := numberOf(m["confidence"])
		if !ok {
			return nil, false, nil
		}
		if c >= least {
			accepted = append(accepted, p)
			continue
		}
		rejected = append(rejected, p)
		row := any(int64(i))
		if m["row"] != nil {
			row = m["row"]
		}
		issues = append(issues, fmt.Sprintf("row %s: confidence %s is less than %s", expr.Text(row), short(c), short(least)))
	}
	if len(list) == 0 {
		issues = append(issues, "there are no predictions")
	}
	result := map[string]any{
		"valid": len(issues) == 0, "accepted": accepted, "rejected": rejected, "issues": issues, "fallback": nil,
	}
	if len(issues) > 0 && params["fallback_strategy"] != nil {
		result["fallback"] = expr.Text(params["fallback_strategy"])
	}
	return result, true, nil
}

func short(f float64) string { return strconv.FormatFloat(f, 'g', 4, 64) }

func numberOf(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
