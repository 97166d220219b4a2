package store

import (
	"context"
	"iter"
)

// Archive copies the whole content of a store, in a form that both children read.
// Leases and cached results are left out.
type Archive interface {
	// Dump gives every row of Tables, table by table in their order, and the rows of
	// each by its key, as one moment has seen them. Writers go on meanwhile. Runs that
	// a lane owns are QUEUED. The row belongs to Dump. It returns the newest epoch of
	// a lane.
	Dump(ctx context.Context, emit func(t *Table, row []any) error) (epoch int64, err error)
	// Load fills an empty store with what Dump gave, all of it or nothing; tables may
	// have fewer columns than Tables, not others. A store that is not empty, or that
	// somebody works on, gives Conflict. Every queued run stands in a queue afterwards.
	Load(ctx context.Context, epoch int64, tables []*Table, rows func(*Table) iter.Seq2[[]any, error]) error
}

// ColumnKind is what the values of a column are in Go; each may be nil.
type ColumnKind string

// The kinds of column.
const (
	TextColumn  ColumnKind = "text"  // string
	JSONColumn  ColumnKind = "json"  // string
	BytesColumn ColumnKind = "bytes" // []byte
	KeyColumn   ColumnKind = "key"   // [16]byte, of a run or an approval
	IntColumn   ColumnKind = "int"   // int64
	BoolColumn  ColumnKind = "bool"  // int64, 0 or 1
	TimeColumn  ColumnKind = "time"  // int64, microseconds since 1970
	DayColumn   ColumnKind = "day"   // int64, days since 1970
	FloatColumn ColumnKind = "float" // float64
)

// Column is a column of a Table.
type Column struct {
	Name string     `json:"name"`
	Kind ColumnKind `json:"kind"`
	// From is what a dump reads, if it is not the column itself.
	From string `json:"-"`
}

// Table is a table as both children know it.
type Table struct {
	Name    string
	Columns []Column
	Order   string // its key
	ByDay   bool   // a child that keeps days apart adds the day of run_id
}

func columnsOf(kind ColumnKind, names ...string) []Column {
	list := make([]Column, len(names))
	for i, n := range names {
		list[i] = Column{Name: n, Kind: kind}
	}
	return list
}

func join(lists ...[]Column) []Column {
	var all []Column
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// Tables is what an archive holds.
var Tables = []*Table{
	{Name: "shared_key", Order: "name", Columns: join(columnsOf(TextColumn, "name"), columnsOf(BytesColumn, "value"))},
	{Name: "bundle", Order: "digest", Columns: join(columnsOf(TextColumn, "digest"), columnsOf(IntColumn, "size"), columnsOf(BytesColumn, "data"), columnsOf(TimeColumn, "used_at"))},
	{Name: "plan", Order: "digest", Columns: join(columnsOf(TextColumn, "digest"), columnsOf(BytesColumn, "source", "compiled"), columnsOf(IntColumn, "format"), columnsOf(TimeColumn, "used_at"))},
	{Name: "pipeline", Order: "seq", Columns: join(columnsOf(IntColumn, "seq"), columnsOf(TextColumn, "id", "version", "name", "description", "plan_digest"), columnsOf(TimeColumn, "created_at"))},
	{Name: "paused_pipeline", Order: "pipeline", Columns: join(columnsOf(TextColumn, "pipeline", "actor"), columnsOf(TimeColumn, "at"))},
	{Name: "queue", Order: "name", Columns: join(columnsOf(TextColumn, "name", "paused_by"), columnsOf(TimeColumn, "paused_at"),
		columnsOf(IntColumn, "max_running", "every", "burst", "weight", "tat"), columnsOf(JSONColumn, "weights"), columnsOf(FloatColumn, "pass"))},
	{Name: "schedule", Order: "id", Columns: join(columnsOf(TextColumn, "id", "name", "pipeline", "version", "cron", "zone", "overlap", "catch_up"),
		columnsOf(BytesColumn, "inputs"), columnsOf(JSONColumn, "labels"), columnsOf(IntColumn, "priority", "catch_up_from", "jitter", "backfill_parallel", "revision"),
		columnsOf(TimeColumn, "starts_at", "ends_at", "next_fire", "last_fire", "due_at", "created_at", "updated_at"),
		columnsOf(BoolColumn, "paused", "owned", "waiting"), columnsOf(KeyColumn, "last_run"))},
	{Name: "schedule_fire", Order: "schedule, fire_at", Columns: join(columnsOf(TextColumn, "schedule", "state", "reason"), columnsOf(TimeColumn, "fire_at", "decided_at"),
		columnsOf(BoolColumn, "open", "backfill"), columnsOf(KeyColumn, "run_id"))},
	{Name: "model_stat", Order: "day, pipeline, model", Columns: join(columnsOf(TextColumn, "day", "pipeline", "model"),
		columnsOf(IntColumn, "calls", "failures", "unpriced", "input_tokens", "output_tokens", "cached_tokens"), columnsOf(FloatColumn, "reward", "seconds", "cost_usd"))},
	{Name: "budget", Order: "key", Columns: join(columnsOf(TextColumn, "key"), columnsOf(IntColumn, "spent_tokens", "spent_nanos", "spent_calls", "taken_tokens", "taken_nanos", "taken_calls",
		"raised_tokens", "raised_nanos", "raised_calls"))},
	{Name: "budget_slice", Order: "key, replica", Columns: join(columnsOf(TextColumn, "key", "replica"), columnsOf(IntColumn, "tokens", "nanos", "calls"), columnsOf(TimeColumn, "expires_at"))},
	{Name: "budget_run", Order: "run_id", Columns: join(columnsOf(TextColumn, "run_id", "replica", "keys"), columnsOf(IntColumn, "tokens", "nanos", "calls"))},
	{Name: "budget_raise", Order: "id", Columns: join(columnsOf(TextColumn, "id", "key", "actor"), columnsOf(IntColumn, "tokens", "nanos", "calls"), columnsOf(TimeColumn, "at"))},
	{Name: "run", Order: "run_id", ByDay: true, Columns: join(columnsOf(KeyColumn, "run_id", "parent_run", "forked_from"),
		columnsOf(TextColumn, "pipeline", "version", "plan_digest"),
		[]Column{{Name: "status", Kind: TextColumn, From: "CASE WHEN lane_epoch IS NULL THEN status ELSE 'QUEUED' END"}},
		columnsOf(TextColumn, "reason", "workdir", "queue", "fair_key", "concurrency"), columnsOf(BytesColumn, "error", "inputs", "outputs"), columnsOf(JSONColumn, "labels"),
		columnsOf(IntColumn, "priority", "input_tokens", "output_tokens", "steps", "unpriced_calls", "concurrency_max", "checkpoint_seq", "fork_seq"),
		columnsOf(TimeColumn, "created_at", "started_at", "finished_at"), columnsOf(FloatColumn, "cost_usd"))},
	// Whatever was set aside for want of a slot looks for one again.
	{Name: "run_queue", Order: "run_id", ByDay: true, Columns: join(columnsOf(KeyColumn, "run_id"), columnsOf(IntColumn, "priority", "pass"),
		[]Column{{Name: "held", Kind: IntColumn, From: "CASE held WHEN 1 THEN 0 ELSE held END"}}, columnsOf(TextColumn, "queue", "pipeline", "fair_key", "concurrency"),
		columnsOf(IntColumn, "concurrency_max"), columnsOf(TimeColumn, "queued_at"))},
	{Name: "run_timer", Order: "run_id", ByDay: true, Columns: join(columnsOf(KeyColumn, "run_id"), columnsOf(TimeColumn, "due_at"))},
	{Name: "fair_clock", Order: "queue, priority", Columns: join(columnsOf(TextColumn, "queue"), columnsOf(IntColumn, "priority", "pass"))},
	{Name: "fair_key", Order: "queue, priority, key", Columns: join(columnsOf(TextColumn, "queue", "key"), columnsOf(IntColumn, "priority", "pass"))},
	{Name: "slot", Order: "key, run_id", Columns: join(columnsOf(TextColumn, "key"), columnsOf(KeyColumn, "run_id"), columnsOf(TimeColumn, "at"))},
	{Name: "inbox", Order: "msg_id", Columns: join(columnsOf(TextColumn, "msg_id", "kind", "actor"), columnsOf(KeyColumn, "run_id"), columnsOf(BytesColumn, "body"), columnsOf(TimeColumn, "at"))},
	{Name: "approval", Order: "id", Columns: join(columnsOf(KeyColumn, "id", "run_id"), columnsOf(TextColumn, "pipeline", "status"), columnsOf(BytesColumn, "request", "decisions"),
		columnsOf(TimeColumn, "deadline", "created_at", "decided_at"))},
	{Name: "idempotency", Order: "key", Columns: join(columnsOf(TextColumn, "key", "request_digest"), columnsOf(KeyColumn, "run_id"), columnsOf(TimeColumn, "expires_at"))},
	{Name: "blob", Order: "day, sha", Columns: join(columnsOf(DayColumn, "day"), columnsOf(BytesColumn, "sha"), columnsOf(IntColumn, "size"), columnsOf(BytesColumn, "data"))},
	{Name: "step_log", Order: "run_id, seq", ByDay: true, Columns: join(columnsOf(KeyColumn, "run_id"), columnsOf(IntColumn, "seq"), columnsOf(TextColumn, "type", "path"),
		columnsOf(IntColumn, "attempt"), columnsOf(TimeColumn, "at"), columnsOf(BytesColumn, "body", "blob"), columnsOf(IntColumn, "digest"))},
	{Name: "log_chunk", Order: "run_id, cursor", ByDay: true, Columns: join(columnsOf(KeyColumn, "run_id"), columnsOf(IntColumn, "cursor"), columnsOf(TextColumn, "path"),
		columnsOf(IntColumn, "attempt", "n"), columnsOf(TimeColumn, "at"), columnsOf(TextColumn, "stream"), columnsOf(BytesColumn, "data"))},
}

// EmptyTables are those that say whether a store is empty: keys, queues and plans
// come by themselves where a server has run.
var EmptyTables = []string{"run", "step_log", "blob", "log_chunk", "pipeline", "schedule", "approval"}
