package step

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const joinDoc = `Joins two tables where their keys are equal.

    - id: priced
      tool: data
      action: join
      parameters: {left: "{{ orders.data }}", right: "{{ products.data }}", on: product_id, how: left}

on is a column of both tables, a list of them, or a map from columns of left to columns of right. how: inner keeps the rows that have a partner; left also the rows of left that have none, right those of right, full both; what is missing then is null. Rows with several partners come once for each. Null is equal to nothing.

A row has the columns of left and those of right without its keys; a column of right whose name left has too gets suffix. The rows come in the order of left, for each in the order of right, then what right has alone. A key that no row of its table has fails the step.`

// Join is two tables and what makes rows partners.
type Join struct {
	Left   []any  `param:"required" doc:"the rows of one table, a list of maps"`
	Right  []any  `param:"required" doc:"the rows of the other"`
	On     any    `param:"required" doc:"a column, a list of columns, or a map from columns of left to columns of right"`
	How    string `default:"\"inner\"" enum:"inner,left,right,full" doc:"which rows without a partner are kept"`
	Suffix string `default:"\"_right\"" doc:"what is added to a name of right that left has too"`
}

type joinResult struct {
	Data       []any `doc:"the joined rows"`
	Rows       int64 `doc:"how many"`
	Matched    int64 `doc:"how many of them have both parts"`
	LeftAlone  int64 `doc:"rows of left without a partner"`
	RightAlone int64 `doc:"rows of right without a partner"`
}

func joinAction() executor.Action {
	return executor.NewAction[Join](executor.Describe{
		Tool: "data", Name: "join", Bare: true, Doc: joinDoc, Effect: pipeline.EffectPure, Returns: joinResult{},
	})
}

type keyPair struct{ left, right string }

func (j Join) keys() ([]keyPair, error) {
	var keys []keyPair
	refuse := func() ([]keyPair, error) {
		return nil, invalid("parameter on is a column, a list of columns, or a map from columns of left to columns of right")
	}
	switch on := j.On.(type) {
	case string:
		keys = append(keys, keyPair{on, on})
	case []any:
		for _, e := range on {
			s, ok := e.(string)
			if !ok {
				return refuse()
			}
			keys = append(keys, keyPair{s, s})
		}
	case map[string]any:
		for _, left := range sortedKeys(on) {
			right, ok := on[left].(string)
			if !ok {
				return refuse()
			}
			keys = append(keys, keyPair{left, right})
		}
	}
	if len(keys) == 0 {
		return refuse()
	}
	return keys, nil
}

// Run finds the partners by a table of keys.
func (j Join) Run(ctx context.Context, _ executor.Env) (executor.Output, error) {
	left, err := table("left", j.Left)
	if err != nil {
		return executor.Output{}, err
	}
	right, err := table("right", j.Right)
	if err != nil {
		return executor.Output{}, err
	}
	keys, err := j.keys()
	if err != nil {
		return executor.Output{}, err
	}
	for _, k := range keys {
		if err := knownColumn(left, k.left); err != nil {
			return executor.Output{}, invalid("left: %v", err)
		}
		if err := knownColumn(right, k.right); err != nil {
			return executor.Output{}, invalid("right: %v", err)
		}
	}
	names, err := j.rightNames(left, right, keys)
	if err != nil {
		return executor.Output{}, err
	}
	partners := map[string][]int{}
	for i, r := range right {
		if id, ok := keyOf(r, keys, false); ok {
			partners[id] = append(partners[id], i)
		}
	}
	w := joining{columns: columnsOf(left), names: names, keys: keys, data: []any{}}
	leftAlone, matched := 0, 0
	used := make([]bool, len(right))
	for _, l := range left {
		if ctx.Err() != nil {
			return executor.Output{}, ended(ctx)
		}
		id, ok := keyOf(l, keys, true)
		found := partners[id]
		if !ok || len(found) == 0 {
			leftAlone++
			if j.How == "left" || j.How == "full" {
				err = w.add(l, nil)
			}
			if err != nil {
				return executor.Output{}, err
			}
			continue
		}
		for _, i := range found {
			used[i] = true
			matched++
			if err := w.add(l, right[i]); err != nil {
				return executor.Output{}, err
			}
		}
	}
	rightAlone := 0
	for i, r := range right {
		if used[i] {
			continue
		}
		rightAlone++
		if j.How == "right" || j.How == "full" {
			if err := w.add(nil, r); err != nil {
				return executor.Output{}, err
			}
		}
	}
	return executor.Output{Value: map[string]any{
		"data": w.data, "rows": int64(len(w.data)), "matched": int64(matched),
		"left_alone": int64(leftAlone), "right_alone": int64(rightAlone),
	}}, nil
}

// rightNames are the columns of right that are no keys, with their names in the
// result.
func (j Join) rightNames(left, right []map[string]any, keys []keyPair) (map[string]string, error) {
	taken := map[string]bool{}
	for _, c := range columnsOf(left) {
		taken[c] = true
	}
	names := map[string]string{}
	var clashes []string
	for _, c := range columnsOf(right) {
		switch {
		case slices.ContainsFunc(keys, func(k keyPair) bool { return k.right == c }):
		case taken[c]:
			clashes = append(clashes, c)
		default:
			names[c] = c
		}
	}
	for _, n := range names {
		taken[n] = true
	}
	for _, c := range clashes {
		if taken[c+j.Suffix] {
			return nil, invalid("both tables have a column %q, and %q is taken too; choose another suffix", c, c+j.Suffix)
		}
		taken[c+j.Suffix] = true
		names[c] = c + j.Suffix
	}
	return names, nil
}

// keyOf is equal for rows that are partners; false where a part is null.
func keyOf(row map[string]any, keys []keyPair, left bool) (string, bool) {
	parts := make([]string, len(keys))
	for i, k := range keys {
		name := k.right
		if left {
			name = k.left
		}
		if row[name] == nil {
			return "", false
		}
		parts[i] = identity(row[name])
	}
	return strings.Join(parts, ","), true
}

// joining is the table that comes out.
type joining struct {
	columns []string          // of left
	names   map[string]string // columns of right and their names
	keys    []keyPair
	data    []any
	weight  int
}

// add joins two rows, of which one may be missing.
func (w *joining) add(left, right map[string]any) error {
	row := make(map[string]any, len(w.columns)+len(w.names))
	for _, c := range w.columns {
		row[c] = nil
	}
	maps.Copy(row, left)
	if left == nil {
		for _, k := range w.keys {
			row[k.left] = right[k.right]
		}
	}
	for c, name := range w.names {
		row[name] = right[c]
	}
	w.data = append(w.data, row)
	if w.weight += weight(row, maxValue); w.weight > maxValue {
		return tooLarge("the joined table is larger than %s; check that the keys are unique in one of the tables", size(maxValue))
	}
	if len(w.data) > maxRows {
		return tooLarge("the joined table has more than %d rows; check that the keys are unique in one of the tables", maxRows)
	}
	return nil
}
