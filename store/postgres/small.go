package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Most batches of a quiet server hold a step or two of one run. What the general
// statements cost before their first row, for arrays, joins and what ended runs
// may have left behind, is then more than all else. A small batch has statements
// of its own: a step is one of them, with the fence within.

const (
	// smallLog is how many records a small batch may hold.
	smallLog = 4
	// wariness is how many batches are recorded in full after one of which a run
	// has left something behind: those of the same queue will, too.
	wariness = 1024
)

// stands is 1 under the lease of the epoch that the parameter names, else 0.
const stands = `coalesce((SELECT 1 FROM lane_lease WHERE epoch = %s AND expires_at > clock_timestamp() FOR KEY SHARE), 0)`

// insertRows are the statements that insert so many records. The fence divides the
// number of the first one, which is never NULL: so it is evaluated before anything
// is written.
var insertRows = func() (list [smallLog + 1]string) {
	for n := 1; n <= smallLog; n++ {
		rows := make([]string, n)
		for i := range rows {
			columns := make([]string, len(logOIDs))
			for c := range columns {
				columns[c] = fmt.Sprintf("$%d", i*len(logOIDs)+c+1)
			}
			if i == 0 {
				columns[2] += "::integer / " + fmt.Sprintf(stands, fmt.Sprintf("$%d", n*len(logOIDs)+1))
			}
			rows[i] = "(" + strings.Join(columns, ", ") + ")"
		}
		list[n] = `INSERT INTO step_log (day, run_id, seq, attempt, digest, at, type, path, body, blob) VALUES ` + strings.Join(rows, ", ")
	}
	return list
}()

const (
	insertRow = `INSERT INTO run (day, run_id, pipeline, version, plan_digest, parent_run, forked_from, status, reason, error, lane_epoch, priority,
			labels, inputs, outputs, workdir, created_at, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, fork_seq, unpriced_calls)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
			$13::text::jsonb, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)`
	finishRow = `UPDATE run SET status = $3, reason = $4, error = $5, outputs = $6, started_at = $7, finished_at = $8,
			input_tokens = $9, output_tokens = $10, cost_usd = $11, steps = $12, unpriced_calls = $13,
			lane_epoch = CASE WHEN $14::boolean THEN NULL ELSE lane_epoch END
		WHERE day = $1 AND run_id = $2 AND lane_epoch = $15`
	// leftBehind fails if a run that has finished leaves messages, slots or open
	// questions. It follows finishRow, which waits for senders, and so sees what they
	// have sent. OFFSET keeps the planner from walking along all open questions, and the
	// clock keeps it from evaluating the failure beforehand.
	leftBehind = `SELECT CASE WHEN EXISTS (SELECT FROM inbox WHERE run_id = $1) OR EXISTS (SELECT FROM slot WHERE run_id = $1)
			OR EXISTS (SELECT FROM (SELECT status FROM approval WHERE run_id = $1 OFFSET 0) a WHERE status = 'open')
		THEN ('run ' || $1::uuid || ' has left something behind at ' || clock_timestamp())::integer END`
)

// isLeftBehind recognizes the error of leftBehind.
func isLeftBehind(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "22P02"
}

// small reports whether the batch has a few records, and nothing but what the
// statements above can say.
func (w *batchWriter) small() bool {
	rest := w.keys.n + w.keyedLog[0].n + w.place.line[0].n + w.place.run[0].n + w.mark[0].n + w.yield[0].n + w.park[0].n +
		w.consume.n + w.ask[0].n + w.withdraw.n
	return rest == 0 && w.log[0].n > 0 && w.log[0].n <= smallLog && w.run[0].n <= 1 && w.fin[0].n <= 1
}

// addSmall adds the statements of a small batch.
func (w *batchWriter) addSmall(add func(sql string, params ...[]byte) int) {
	add(insertRows[w.log[0].n], append(rowsOf(w.log[:]), w.epoch[:])...)
	if w.run[0].n > 0 {
		row := rowsOf(w.run[:])
		const key = 23 // of the idempotency key, which it has none of
		add(insertRow, append(row[:key], row[key+1:]...)...)
	}
	if w.fin[0].n > 0 {
		add(finishRow, append(rowsOf(w.fin[:]), w.epoch[:])...)
	}
	if w.ended.n > 0 {
		run, _ := w.ended.element(arrayHeader)
		add(leftBehind, run)
	}
}

// rowsOf gives the columns' elements row by row, as parameters.
func rowsOf(columns []array) [][]byte {
	n := int(columns[0].n)
	list := make([][]byte, n*len(columns), n*len(columns)+1)
	for c := range columns {
		at := arrayHeader
		for i := range n {
			list[i*len(columns)+c], at = columns[c].element(at)
		}
	}
	return list
}
