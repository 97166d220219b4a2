-- +goose Up

-- A parked run is WAITING and has no lane. Here stands when its time comes, if
-- it has one. A claim removes the row, so a run with a lane has none. Whoever
-- writes rows of run_timer and run_queue holds the lock of the run's own row.
CREATE TABLE run_timer (
	run_id uuid        PRIMARY KEY,
	day    date        NOT NULL,
	due_at timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
CREATE INDEX run_timer_due ON run_timer (due_at);

-- Questions to people. What is asked does not change; decisions are added. The
-- lock of the run's row is taken before that of an approval.
CREATE TABLE approval (
	id         uuid        PRIMARY KEY,
	run_id     uuid        NOT NULL,
	pipeline   text        COLLATE "C" NOT NULL,
	status     text        COLLATE "C" NOT NULL CHECK (status IN ('open','decided','expired','withdrawn')),
	request    bytea       NOT NULL,
	decisions  bytea,
	deadline   timestamptz,
	created_at timestamptz NOT NULL,
	decided_at timestamptz
);
CREATE INDEX approval_status ON approval (status, id);
CREATE INDEX approval_run ON approval (run_id, id);

-- The files of a pipeline, as zstd.
CREATE TABLE bundle (
	digest text    COLLATE "C" PRIMARY KEY,
	size   integer NOT NULL,
	data   bytea   NOT NULL
);
ALTER TABLE bundle ALTER COLUMN data SET STORAGE EXTERNAL; -- it is compressed already

-- Results that may be used again for a while.
CREATE TABLE cache (
	key        text        COLLATE "C" PRIMARY KEY,
	expires_at timestamptz NOT NULL,
	value      bytea       NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
CREATE INDEX cache_expires ON cache (expires_at);
