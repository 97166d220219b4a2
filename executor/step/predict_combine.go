package step

import (
	"math"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// vote is one model's prediction for a row.
type vote struct {
	model      string
	prediction any
	confidence *float64
}

// ballot is what all models say on a row.
type ballot struct {
	row   any
	votes []vote
}

// combine computes the predictions of an ensemble; false: the method, or the
// form of the predictions, is nothing to compute with.
func combine(params map[string]any) (any, bool, error) {
	rows, ok := ballots(params["predictions"])
	if !ok || len(rows) == 0 {
		return nil, false, nil
	}
	weights, err := weightsOf(params["weights"])
	if err != nil {
		return nil, false, err
	}
	numbers := true
	for _, b := range rows {
		for _, v := range b.votes {
			if _, ok := numberOf(v.prediction); !ok {
				numbers = false
			}
		}
	}
	method := ""
	if v := params["aggregation_method"]; v != nil {
		method = spelled(expr.Text(v), [][2]string{
			{"stack", "stacking"},
			{"weight", "weighted"},
			{"median", "median"},
			{"vot", "voting"},
			{"majority", "voting"},
			{"averag", "averaging"},
			{"mean", "averaging"},
		})
		if method == "" || method == "stacking" {
			return nil, false, nil
		}
	} else if method = "voting"; numbers {
		method = "averaging"
	}
	if !numbers && (method == "averaging" || method == "median") {
		return nil, false, invalid("%s needs predictions that are numbers; for others use voting or weighted", method)
	}
	voting := method == "voting" || (method == "weighted" && !numbers)
	sure := "mean"
	if voting {
		sure = "share"
	}
	if v := params["confidence_calculation"]; v != nil {
		if s := spelled(expr.Text(v), [][2]string{
			{"share", "share"},
			{"agree", "share"},
			{"vote", "share"},
			{"proportion", "share"},
			{"min", "minimum"},
			{"lowest", "minimum"},
			{"max", "maximum"},
			{"highest", "maximum"},
			{"mean", "mean"},
			{"averag", "mean"},
		}); s != "" && (s != "share" || voting) {
			sure = s
		}
	}
	final := make([]any, len(rows))
	for i, b := range rows {
		ws := make([]float64, len(b.votes))
		for j, v := range b.votes {
			ws[j] = 1
			if method != "weighted" {
				continue
			}
			w, known := weights[v.model]
			switch {
			case known:
				ws[j] = w
			case weights != nil:
				return nil, false, invalid("parameter weights has none for the model %q", v.model)
			case v.confidence != nil:
				ws[j] = *v.confidence
			default:
				return nil, false, invalid("aggregation_method weighted needs weights, or a confidence with every prediction; row %s has neither", expr.Text(b.row))
			}
		}
		m := map[string]any{"row": b.row, "votes": int64(len(b.votes))}
		var share float64
		if voting {
			m["prediction"], share = majority(b.votes, ws)
		} else {
			m["prediction"], m["spread"] = centre(b.votes, ws, method == "median")
		}
		m["confidence"] = confidence(b.votes, sure, share)
		final[i] = m
	}
	return map[string]any{"final_predictions": final, "method": method, "confidence_method": sure}, true, nil
}

// spelled finds the first of the stems in a text and gives what it stands for.
func spelled(text string, stems [][2]string) string {
	text = strings.ToLower(text)
	for _, s := range stems {
		if strings.Contains(text, s[0]) {
			return s[1]
		}
	}
	return ""
}

func weightsOf(v any) (map[string]float64, error) {
	m, ok := v.(map[string]any)
	if !ok {
		if v == nil {
			return nil, nil //nolint:nilnil // none are given
		}
		return nil, invalid("parameter weights is a map from model to number, not %s", kindOf(v))
	}
	weights := map[string]float64{}
	for name, w := range m {
		f, ok := numberOf(w)
		if !ok || f < 0 || math.IsInf(f, 0) {
			return nil, invalid("parameter weights.%s is not a number from 0", name)
		}
		weights[name] = f
	}
	return weights, nil
}

// ballots brings predictions into rows; false: they have none of the known forms.
func ballots(v any) ([]ballot, bool) {
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		lists := make([][]any, len(names))
		for i, name := range names {
			list, ok := v[name].([]any)
			if !ok {
				list = []any{v[name]}
			}
			lists[i] = list
		}
		return columns(names, lists)
	case []any:
		if len(v) == 0 {
			return nil, false
		}
		switch v[0].(type) {
		case map[string]any:
			return entries(v)
		case []any:
			lists := make([][]any, len(v))
			for i, e := range v {
				list, ok := e.([]any)
				if !ok {
					return nil, false
				}
				lists[i] = list
			}
			return columns(make([]string, len(v)), lists)
		}
		b := ballot{row: int64(0)}
		for _, e := range v {
			if !scalarPrediction(e) {
				return nil, false
			}
			b.votes = append(b.votes, vote{prediction: e})
		}
		return []ballot{b}, true
	}
	return nil, false
}

func scalarPrediction(v any) bool {
	switch v.(type) {
	case bool, int64, float64, string:
		return true
	}
	return false
}

// entries reads maps with prediction, and row, model and confidence where known.
func entries(list []any) ([]ballot, bool) {
	var rows []ballot
	index := map[string]int{}
	for _, e := range list {
		m, _ := e.(map[string]any)
		if !scalarPrediction(m["prediction"]) {
			return nil, false
		}
		row := m["row"]
		if row == nil {
			row = int64(0)
		}
		name, _ := m["model"].(string)
		v := vote{model: name, prediction: m["prediction"]}
		if c, ok := numberOf(m["confidence"]); ok && c >= 0 && c <= 1 {
			v.confidence = &c
		}
		key := identity(row)
		i, known := index[key]
		if !known {
			i = len(rows)
			index[key] = i
			rows = append(rows, ballot{row: row})
		}
		rows[i].votes = append(rows[i].votes, v)
	}
	return rows, true
}

// columns turns the lists of the models into rows; they must be equally long.
func columns(models []string, lists [][]any) ([]ballot, bool) {
	var rows []ballot
	for i, list := range lists {
		if i == 0 {
			rows = make([]ballot, len(list))
		}
		if len(list) != len(rows) {
			return nil, false
		}
		for j, p := range list {
			v := vote{model: models[i], prediction: p}
			if m, ok := p.(map[string]any); ok {
				v.prediction = m["prediction"]
				if c, ok := numberOf(m["confidence"]); ok && c >= 0 && c <= 1 {
					v.confidence = &c
				}
			}
			if !scalarPrediction(v.prediction) {
				return nil, false
			}
			rows[j].row = int64(j)
			rows[j].votes = append(rows[j].votes, v)
		}
	}
	return rows, true
}

// majority is the prediction with most weight, and its share of all weight.
func majority(votes []vote, weights []float64) (winner any, share float64) {
	type tally struct {
		prediction    any
		weight, trust float64
	}
	var all []tally
	index := map[string]int{}
	total := 0.0
	for i, v := range votes {
		key := identity(v.prediction)
		at, known := index[key]
		if !known {
			at = len(all)
			index[key] = at
			all = append(all, tally{prediction: v.prediction})
		}
		all[at].weight += weights[i]
		total += weights[i]
		if v.confidence != nil {
			all[at].trust += *v.confidence
		}
	}
	best := all[0]
	for _, t := range all[1:] {
		if t.weight > best.weight || (t.weight == best.weight && t.trust > best.trust) {
			best = t
		}
	}
	if total == 0 {
		return best.prediction, 0
	}
	return best.prediction, best.weight / total
}

// centre is the weighted mean, or the median, with the standard deviation of the
// predictions.
func centre(votes []vote, weights []float64, median bool) (value, spread float64) {
	xs := make([]float64, len(votes))
	sum, total, plain := 0.0, 0.0, 0.0
	for i, v := range votes {
		xs[i], _ = numberOf(v.prediction)
		sum += xs[i] * weights[i]
		total += weights[i]
		plain += xs[i]
	}
	mean := plain / float64(len(xs))
	for _, x := range xs {
		spread += (x - mean) * (x - mean)
	}
	spread = math.Sqrt(spread / float64(len(xs)))
	switch {
	case median:
		slices.Sort(xs)
		n := len(xs)
		return (xs[(n-1)/2] + xs[n/2]) / 2, spread
	case total == 0:
		return mean, spread
	}
	return sum / total, spread
}

// confidence is null where a given confidence is missing.
func confidence(votes []vote, how string, share float64) any {
	if how == "share" {
		return share
	}
	sum, low, high := 0.0, math.Inf(1), math.Inf(-1)
	for _, v := range votes {
		if v.confidence == nil {
			return nil
		}
		sum, low, high = sum+*v.confidence, math.Min(low, *v.confidence), math.Max(high, *v.confidence)
	}
	switch how {
	case "minimum":
		return low
	case "maximum":
		return high
	}
	return sum / float64(len(votes))
}
