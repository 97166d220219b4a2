-- +goose Up

-- A parked run is WAITING and has no lane. Here stands when its time comes, if
-- it has one. A claim removes the row, so a run with a lane has none.
CREATE TABLE run_timer (
	run_id   BLOB    PRIMARY KEY CHECK (length(run_id) = 16),
	due_at   INTEGER NOT NULL,
	priority INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX run_timer_due ON run_timer (due_at);

-- Questions to people. What is asked does not change; decisions are added.
CREATE TABLE approval (
	id         BLOB    PRIMARY KEY CHECK (length(id) = 16),
	run_id     BLOB    NOT NULL CHECK (length(run_id) = 16),
	pipeline   TEXT    NOT NULL,
	status     TEXT    NOT NULL CHECK (status IN ('open','decided','expired','withdrawn')),
	request    BLOB    NOT NULL,
	decisions  BLOB,
	deadline   INTEGER,
	created_at INTEGER NOT NULL,
	decided_at INTEGER
) STRICT;
CREATE INDEX approval_status ON approval (status, id);
CREATE INDEX approval_run ON approval (run_id, id);

-- The files of a pipeline, as zstd.
CREATE TABLE bundle (
	digest TEXT    PRIMARY KEY,
	size   INTEGER NOT NULL,
	data   BLOB    NOT NULL
) STRICT;

-- Results that may be used again for a while.
CREATE TABLE cache (
	key        TEXT    PRIMARY KEY,
	expires_at INTEGER NOT NULL,
	value      BLOB    NOT NULL
) STRICT;
CREATE INDEX cache_expires ON cache (expires_at);
