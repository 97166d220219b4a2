package step

import (
	"cmp"
	"context"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const aggregateDoc = `Computes figures over a table, for all rows or for each group.

    - id: by_month
      action: aggregate
      parameters:
        data: "{{ weather.data }}"
        group_by: month
        metrics:
          days: {op: count}
          warmest: {column: tmax, op: max}
          average: {column: tmean, op: mean}
          p90: {column: tmax, op: p90}

The result has one row for each group, in the order of the group's values, with the group's columns and the metrics; without group_by it is one row, always.

Operators: count (of rows; with a column, of its values), distinct, sum, mean, min, max, median, stddev and variance (of a sample, divided by n-1), first, last, and p0 to p100 (percentiles, linear between the neighbours, as NumPy's default). Null and missing values are left out; where none is left, count and distinct are 0 and the rest null, as is the deviation of a single value. min and max take numbers or texts, the other figures numbers only; anything else fails the step.

Sums are exact before they are rounded once. A sum of integers is an integer.`

// Aggregate is a table with figures to compute.
type Aggregate struct {
	Data    []any          `param:"required" doc:"the rows, a list of maps"`
	GroupBy any            `doc:"a column or a list of columns"`
	Metrics map[string]any `param:"required" doc:"a map from name to {column, op}"`
}

type aggregateResult struct {
	Data []any `doc:"one map for each group: its columns and its metrics"`
	Rows int64 `doc:"how many groups"`
}

func aggregateAction() executor.Action {
	return executor.NewAction[Aggregate](executor.Describe{
		Tool: "data", Name: "aggregate", Bare: true, Doc: aggregateDoc, Effect: pipeline.EffectPure, Returns: aggregateResult{},
	})
}

// metric is one figure.
type metric struct {
	name, column, op string
	percent          int // of percentiles, 0 to 100
}

type group struct {
	key  []any
	rows []map[string]any
}

// Run groups first, then computes.
func (a Aggregate) Run(ctx context.Context, _ executor.Env) (executor.Output, error) {
	rows, err := table("data", a.Data)
	if err != nil {
		return executor.Output{}, err
	}
	columns, err := a.groupColumns()
	if err != nil {
		return executor.Output{}, err
	}
	metrics, err := a.metrics(columns)
	if err != nil {
		return executor.Output{}, err
	}
	for _, c := range columns {
		if err := knownColumn(rows, c); err != nil {
			return executor.Output{}, err
		}
	}
	for _, m := range metrics {
		if m.column == "" {
			continue
		}
		if err := knownColumn(rows, m.column); err != nil {
			return executor.Output{}, err
		}
	}
	groups := groupRows(rows, columns)
	data := make([]any, len(groups))
	for i, g := range groups {
		row := map[string]any{}
		for k, c := range columns {
			row[c] = g.key[k]
		}
		for _, m := range metrics {
			if ctx.Err() != nil {
				return executor.Output{}, ended(ctx)
			}
			if row[m.name], err = m.compute(g.rows); err != nil {
				return executor.Output{}, err
			}
		}
		data[i] = row
	}
	return executor.Output{Value: map[string]any{"data": data, "rows": int64(len(data))}}, nil
}

func (a Aggregate) groupColumns() ([]string, error) {
	switch g := a.GroupBy.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{g}, nil
	case []any:
		var columns []string
		for _, e := range g {
			s, ok := e.(string)
			if !ok || slices.Contains(columns, s) {
				return nil, invalid("parameter group_by is a column or a list of different columns; it holds %s", pipeline.EncodeValue(e))
			}
			columns = append(columns, s)
		}
		return columns, nil
	}
	return nil, invalid("parameter group_by is a column or a list of columns, not %s", kindOf(a.GroupBy))
}

var figures = []string{"count", "distinct", "sum", "mean", "min", "max", "median", "stddev", "variance", "first", "last"}

func (a Aggregate) metrics(columns []string) ([]metric, error) {
	var list []metric
	for name, v := range a.Metrics {
		m := metric{name: name}
		spec, ok := v.(map[string]any)
		if !ok {
			return nil, invalid("metrics.%s is %s; a metric is a map {column, op}", name, kindOf(v))
		}
		for k, e := range spec {
			s, ok := e.(string)
			if !ok {
				return nil, invalid("metrics.%s.%s must be a text", name, k)
			}
			switch k {
			case "column":
				m.column = s
			case "op":
				m.op = s
			default:
				return nil, invalid("metrics.%s has a key %q; a metric has column and op", name, k)
			}
		}
		switch {
		case slices.Contains(columns, name):
			return nil, invalid("metrics.%s has the name of a column of group_by", name)
		case m.op == "median":
			m.percent = 50
		case slices.Contains(figures, m.op):
		default:
			n, err := strconv.Atoi(strings.TrimPrefix(m.op, "p"))
			if err != nil || !strings.HasPrefix(m.op, "p") || n < 0 || n > 100 || strconv.Itoa(n) != m.op[1:] {
				return nil, invalid("metrics.%s.op is %q; it can be %s, or p0 to p100", name, m.op, strings.Join(figures, ", "))
			}
			m.percent = n
		}
		if m.column == "" && m.op != "count" {
			return nil, invalid("metrics.%s names no column", name)
		}
		list = append(list, m)
	}
	if len(list) == 0 {
		return nil, invalid("parameter metrics holds none")
	}
	slices.SortFunc(list, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// groupRows sorts the groups by their values: null, booleans, numbers, texts,
// then the rest.
func groupRows(rows []map[string]any, columns []string) []*group {
	if len(columns) == 0 {
		return []*group{{rows: rows}}
	}
	byKey := map[string]*group{}
	var list []*group
	for _, row := range rows {
		key := make([]any, len(columns))
		for i, c := range columns {
			key[i] = row[c]
		}
		id := identity(key)
		g := byKey[id]
		if g == nil {
			g = &group{key: key}
			byKey[id] = g
			list = append(list, g)
		}
		g.rows = append(g.rows, row)
	}
	slices.SortStableFunc(list, func(a, b *group) int {
		for i := range a.key {
			if c := compareAny(a.key[i], b.key[i]); c != 0 {
				return c
			}
		}
		return 0
	})
	return list
}

func compareAny(a, b any) int {
	rank := func(v any) int {
		return slices.Index([]string{"null", "a boolean", "a number", "a text"}, kindOf(v)) & 7
	}
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	if c, ok := compare(a, b); ok {
		return c
	}
	return strings.Compare(identity(a), identity(b))
}

func (m metric) compute(rows []map[string]any) (any, error) {
	if m.column == "" {
		return int64(len(rows)), nil
	}
	var values []any
	for _, r := range rows {
		if v := r[m.column]; v != nil {
			values = append(values, v)
		}
	}
	switch m.op {
	case "count":
		return int64(len(values)), nil
	case "distinct":
		seen := map[string]bool{}
		for _, v := range values {
			seen[identity(v)] = true
		}
		return int64(len(seen)), nil
	}
	if len(values) == 0 {
		return nil, nil
	}
	switch m.op {
	case "first":
		return values[0], nil
	case "last":
		return values[len(values)-1], nil
	case "min", "max":
		return m.extreme(values)
	}
	for _, v := range values {
		switch v.(type) {
		case int64, float64:
		default:
			return nil, invalid("metrics.%s: column %s holds %s, and %s needs numbers", m.name, m.column, kindOf(v), m.op)
		}
	}
	switch m.op {
	case "sum":
		return m.sum(values)
	case "mean":
		return m.finite(mean(values))
	case "stddev", "variance":
		if len(values) < 2 {
			return nil, nil
		}
		v := variance(values)
		if m.op == "stddev" {
			v = math.Sqrt(v)
		}
		return m.finite(v)
	}
	return m.percentile(values)
}

func (m metric) extreme(values []any) (any, error) {
	best := values[0]
	for _, v := range values {
		c, ok := compare(v, best)
		if !ok {
			return nil, invalid("metrics.%s: column %s holds %s and %s, which have no order", m.name, m.column, kindOf(best), kindOf(v))
		}
		if m.op == "min" && c < 0 || m.op == "max" && c > 0 {
			best = v
		}
	}
	return best, nil
}

// exact is the precision, in bits, at which sums of float64 need no rounding:
// from the smallest bit to the largest number, and room for 2^60 of them.
const exact = 2200

func exactSum(values []any) (sum *big.Float, ints bool) {
	sum, ints = new(big.Float).SetPrec(exact), true
	term := new(big.Float).SetPrec(exact)
	for _, v := range values {
		switch v := v.(type) {
		case int64:
			sum.Add(sum, term.SetInt64(v))
		case float64:
			ints = false
			sum.Add(sum, term.SetFloat64(v))
		}
	}
	return sum, ints
}

func (m metric) sum(values []any) (any, error) {
	sum, ints := exactSum(values)
	if !ints {
		f, _ := sum.Float64()
		return m.finite(f)
	}
	i, accuracy := sum.Int64()
	if accuracy != big.Exact {
		return nil, invalid("metrics.%s: the sum of column %s does not fit into 64 bits", m.name, m.column)
	}
	return i, nil
}

func (m metric) finite(f float64) (any, error) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, invalid("metrics.%s: the %s of column %s is beyond the range of numbers", m.name, m.op, m.column)
	}
	return f, nil
}

func mean(values []any) float64 {
	sum, _ := exactSum(values)
	f, _ := sum.Quo(sum, new(big.Float).SetPrec(exact).SetInt64(int64(len(values)))).Float64()
	return f
}

// variance sums the squares of the distances from the mean, and takes away what
// the rounding of the mean has put in.
func variance(values []any) float64 {
	middle := new(big.Float).SetPrec(exact).SetFloat64(mean(values))
	squares, rest := new(big.Float).SetPrec(exact), new(big.Float).SetPrec(exact)
	d, square := new(big.Float).SetPrec(exact), new(big.Float).SetPrec(exact)
	for _, v := range values {
		switch v := v.(type) {
		case int64:
			d.SetInt64(v)
		case float64:
			d.SetFloat64(v)
		}
		d.Sub(d, middle)
		rest.Add(rest, d)
		squares.Add(squares, square.Mul(d, d))
	}
	n := new(big.Float).SetPrec(exact).SetInt64(int64(len(values)))
	squares.Sub(squares, square.Quo(square.Mul(rest, rest), n))
	f, _ := squares.Quo(squares, n.SetInt64(int64(len(values)-1))).Float64()
	return f
}

// percentile is linear between the two nearest values. Where it meets one, it
// is that value, as it is.
func (m metric) percentile(values []any) (any, error) {
	order := slices.Clone(values)
	slices.SortFunc(order, func(a, b any) int { c, _ := compare(a, b); return c })
	at := m.percent * (len(order) - 1) // in hundredths
	low, part := at/100, at%100
	if part == 0 {
		return order[low], nil
	}
	x, y := toFloat(order[low]), toFloat(order[low+1])
	return m.finite(x + (y-x)*float64(part)/100)
}

func toFloat(v any) float64 {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case float64:
		return v
	}
	return math.NaN()
}
