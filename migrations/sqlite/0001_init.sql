-- +goose Up

-- Times are microseconds since 1970 UTC, run ids the 16 bytes of the UUID,
-- which sort by time. A lane lives as long as its owner holds the file lock
-- <database>.lanes/<epoch>.lock.
CREATE TABLE lane_lease (
	epoch     INTEGER PRIMARY KEY AUTOINCREMENT,
	lane      INTEGER NOT NULL UNIQUE CHECK (lane > 0),
	replica   TEXT    NOT NULL,
	opened_at INTEGER NOT NULL
) STRICT;

CREATE TABLE run (
	run_id        BLOB PRIMARY KEY CHECK (length(run_id) = 16),
	pipeline      TEXT    NOT NULL,
	version       TEXT    NOT NULL,
	plan_digest   TEXT    NOT NULL,
	parent_run    BLOB,
	forked_from   BLOB,
	status        TEXT    NOT NULL CHECK (status IN ('QUEUED','RUNNING','WAITING','PAUSED','COMPLETED','FAILED','CANCELLED')),
	reason        TEXT    NOT NULL,
	error         BLOB,
	lane_epoch    INTEGER,
	priority      INTEGER NOT NULL,
	labels        TEXT,
	inputs        BLOB,
	outputs       BLOB,
	workdir       TEXT    NOT NULL,
	created_at    INTEGER NOT NULL,
	started_at    INTEGER,
	finished_at   INTEGER,
	input_tokens  INTEGER NOT NULL,
	output_tokens INTEGER NOT NULL,
	cost_usd      REAL    NOT NULL,
	steps         INTEGER NOT NULL,
	CHECK (lane_epoch IS NULL OR status IN ('RUNNING','WAITING','PAUSED'))
) STRICT;

-- Lists of unfinished and of failed runs; reclaim walks the first.
CREATE INDEX run_active ON run (run_id) WHERE status IN ('QUEUED','RUNNING','WAITING','PAUSED');
CREATE INDEX run_failed ON run (run_id) WHERE status = 'FAILED';
CREATE INDEX run_pipeline ON run (pipeline, run_id);

-- A rowid table: the records of many runs that grow at once append to the same
-- pages, and only the narrow index is spread.
CREATE TABLE step_log (
	run_id  BLOB    NOT NULL CHECK (length(run_id) = 16),
	seq     INTEGER NOT NULL CHECK (seq > 0),
	type    TEXT    NOT NULL,
	path    TEXT    NOT NULL,
	attempt INTEGER NOT NULL,
	at      INTEGER NOT NULL,
	body    BLOB,
	blob    BLOB,
	digest  INTEGER NOT NULL,
	PRIMARY KEY (run_id, seq),
	CHECK ((body IS NULL) <> (blob IS NULL))
) STRICT;

CREATE TABLE run_queue (
	priority INTEGER NOT NULL,
	run_id   BLOB    NOT NULL,
	PRIMARY KEY (priority DESC, run_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE inbox (
	msg_id TEXT    PRIMARY KEY,
	run_id BLOB    NOT NULL,
	kind   TEXT    NOT NULL,
	actor  TEXT    NOT NULL,
	body   BLOB,
	at     INTEGER NOT NULL
) STRICT;
CREATE INDEX inbox_run ON inbox (run_id);

CREATE TABLE idempotency (
	key            TEXT    PRIMARY KEY,
	request_digest TEXT    NOT NULL,
	run_id         BLOB    NOT NULL,
	expires_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Bodies over 2 KB, zstd, named by the SHA-256 of their content, kept with the
-- day (since 1970) of the run that wrote them.
CREATE TABLE blob (
	day  INTEGER NOT NULL,
	sha  BLOB    NOT NULL CHECK (length(sha) = 32),
	size INTEGER NOT NULL,
	data BLOB    NOT NULL,
	PRIMARY KEY (day, sha)
) STRICT;

CREATE TABLE log_chunk (
	cursor  INTEGER PRIMARY KEY AUTOINCREMENT,
	run_id  BLOB    NOT NULL,
	path    TEXT    NOT NULL,
	attempt INTEGER NOT NULL,
	n       INTEGER NOT NULL,
	at      INTEGER NOT NULL,
	stream  TEXT    NOT NULL CHECK (stream IN ('stdout','stderr','system')),
	data    BLOB    NOT NULL
) STRICT;
CREATE INDEX log_chunk_run ON log_chunk (run_id);

CREATE TABLE plan (
	digest   TEXT    PRIMARY KEY,
	source   BLOB    NOT NULL,
	compiled BLOB    NOT NULL,
	format   INTEGER NOT NULL
) STRICT;

CREATE TABLE pipeline (
	seq         INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of registration
	id          TEXT    NOT NULL,
	version     TEXT    NOT NULL,
	name        TEXT    NOT NULL,
	description TEXT    NOT NULL,
	plan_digest TEXT    NOT NULL,
	created_at  INTEGER NOT NULL,
	UNIQUE (id, version)
) STRICT;
