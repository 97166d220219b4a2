package tool

import (
	"context"
	"fmt"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Query asks a database, which itself sees to it that nothing is written. text is
// one statement with $1, $2 for args; most is how many rows are wanted. The error
// names no part of dsn.
type Query func(ctx context.Context, dsn, text string, args []any, most int) (Rows, error)

// Rows are what a query gives.
type Rows struct {
	Columns []string
	Rows    [][]any // JSON values
	More    bool    // there are more than were wanted
}

// maxRows is how many rows a query gives where nothing says otherwise.
const maxRows = 200

// query is a query of the pipeline's own as a tool, or, without one, a tool that
// lets the model write it.
func (s *source) query(w Want, def *pipeline.Tool) (Tool, error) {
	if s.cfg.Query == nil {
		return Tool{}, bad("agent %s: this server asks no databases", w.Agent.Name)
	}
	q := def.SQL
	t := Tool{Name: def.Name, Description: def.Description, Schema: argumentsOf(def.Parameters), Effect: pipeline.EffectIdempotent}
	if q.Query == nil {
		t.Schema = map[string]any{
			"type": "object", "additionalProperties": false, "required": []any{"query"},
			"properties": map[string]any{
				"query": map[string]any{"type": "string", "minLength": int64(1), "maxLength": int64(100_000), "description": "one SQL statement that only reads"},
			},
		}
	}
	most := q.MaxRow
	if most <= 0 {
		most = maxRows
	}
	t.Run = func(ctx context.Context, _ executor.Env, c Call) (Result, error) {
		dsn, ok := w.Secret(q.DSN)
		if !ok {
			return Result{}, fmt.Errorf("the secret %s, which holds the database's URL, has no value on this server", q.DSN)
		}
		text, _ := c.Arguments["query"].(string)
		var args []any
		if q.Query != nil {
			text = *q.Query
			for _, name := range q.Args {
				args = append(args, c.Arguments[name])
			}
		}
		rows, err := s.cfg.Query(ctx, dsn, text, args, most)
		if err != nil {
			return Result{}, err
		}
		return Value(rows.value()), nil
	}
	return t, nil
}

// value is the rows as a model reads them: each column's name once.
func (r *Rows) value() map[string]any {
	columns := make([]any, len(r.Columns))
	for i, c := range r.Columns {
		columns[i] = c
	}
	rows := make([]any, len(r.Rows))
	for i, row := range r.Rows {
		rows[i] = row
	}
	v := map[string]any{"columns": columns, "rows": rows}
	if r.More {
		v["more"] = true
	}
	return v
}
