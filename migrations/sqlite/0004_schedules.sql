-- +goose Up

-- What starts runs at times. due_at is when the scheduler looks at a schedule
-- again: for its next fire, for an open one, or because whoever took it may have
-- died.
CREATE TABLE schedule (
	id                TEXT    NOT NULL PRIMARY KEY,
	name              TEXT    NOT NULL,
	pipeline          TEXT    NOT NULL,
	version           TEXT    NOT NULL,
	inputs            BLOB,
	labels            TEXT,
	priority          INTEGER NOT NULL,
	cron              TEXT    NOT NULL, -- expressions, one a line
	zone              TEXT    NOT NULL,
	overlap           TEXT    NOT NULL CHECK (overlap IN ('skip','queue','allow','cancel_previous')),
	catch_up          TEXT    NOT NULL CHECK (catch_up IN ('latest','all','none')),
	catch_up_from     INTEGER NOT NULL CHECK (catch_up_from >= 0),
	jitter            INTEGER NOT NULL CHECK (jitter >= 0),
	starts_at         INTEGER,
	ends_at           INTEGER,
	paused            INTEGER NOT NULL,
	owned             INTEGER NOT NULL,
	next_fire         INTEGER,
	last_fire         INTEGER,
	last_run          BLOB,
	due_at            INTEGER,
	waiting           INTEGER NOT NULL,
	backfill_parallel INTEGER NOT NULL,
	revision          INTEGER NOT NULL,
	created_at        INTEGER NOT NULL,
	updated_at        INTEGER NOT NULL,
	CHECK (due_at IS NULL OR NOT paused)
) STRICT;
CREATE INDEX schedule_due ON schedule (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX schedule_pipeline ON schedule (pipeline, id);

CREATE TABLE schedule_fire (
	schedule   TEXT    NOT NULL,
	fire_at    INTEGER NOT NULL,
	state      TEXT    NOT NULL CHECK (state IN ('pending','buffered','started','skipped','failed')),
	open       INTEGER NOT NULL,
	backfill   INTEGER NOT NULL,
	run_id     BLOB,
	reason     TEXT    NOT NULL,
	decided_at INTEGER NOT NULL,
	PRIMARY KEY (schedule, fire_at),
	CHECK (open OR state NOT IN ('pending','buffered'))
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_fire_open ON schedule_fire (schedule, fire_at) WHERE open;
