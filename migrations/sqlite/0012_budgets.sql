-- +goose Up

-- Budgets that runs share: key is scope/name. What is taken was spent, or drawn
-- by a replica that has not settled it. Money is in billionths of a USD.
CREATE TABLE budget (
	key           TEXT PRIMARY KEY,
	spent_tokens  INTEGER NOT NULL DEFAULT 0,
	spent_nanos   INTEGER NOT NULL DEFAULT 0,
	spent_calls   INTEGER NOT NULL DEFAULT 0,
	taken_tokens  INTEGER NOT NULL DEFAULT 0,
	taken_nanos   INTEGER NOT NULL DEFAULT 0,
	taken_calls   INTEGER NOT NULL DEFAULT 0,
	raised_tokens INTEGER NOT NULL DEFAULT 0,
	raised_nanos  INTEGER NOT NULL DEFAULT 0,
	raised_calls  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE budget_slice (
	key        TEXT NOT NULL,
	replica    TEXT NOT NULL,
	tokens     INTEGER NOT NULL,
	nanos      INTEGER NOT NULL,
	calls      INTEGER NOT NULL,
	expires_at INTEGER NOT NULL,
	PRIMARY KEY (key, replica)
) STRICT, WITHOUT ROWID;

-- Runs that spend, with how much of it is settled, and who owns or owned them.
-- keys is a JSON list.
CREATE TABLE budget_run (
	run_id  TEXT PRIMARY KEY,
	replica TEXT NOT NULL,
	keys    TEXT NOT NULL,
	tokens  INTEGER NOT NULL,
	nanos   INTEGER NOT NULL,
	calls   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX budget_run_replica ON budget_run (replica);

CREATE TABLE budget_raise (
	id     TEXT PRIMARY KEY,
	key    TEXT NOT NULL,
	tokens INTEGER NOT NULL,
	nanos  INTEGER NOT NULL,
	calls  INTEGER NOT NULL,
	actor  TEXT NOT NULL,
	at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Rates that replicas keep together: tat is the theoretical arrival time of the
-- generic cell rate algorithm, in microseconds since 1970.
CREATE TABLE rate (
	key TEXT PRIMARY KEY,
	tat INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
