-- +goose Up

-- What a run was submitted with; NULL: the defaults. Runs of the same
-- concurrency key share its slots.
ALTER TABLE run ADD COLUMN queue TEXT;
ALTER TABLE run ADD COLUMN fair_key TEXT;
ALTER TABLE run ADD COLUMN concurrency TEXT;
ALTER TABLE run ADD COLUMN concurrency_max INTEGER;

-- The queue without a name is the line of runs that are under way already:
-- woken, handed over, reclaimed. No limit holds them back. The others stand in
-- the queue that they were submitted to, in the order of pass. A run that may
-- not start although its turn has come is set aside, so that nobody walks over
-- it again: held is 1 for want of a slot, 2 while its pipeline is paused.
ALTER TABLE run_queue RENAME TO run_queue_before;
CREATE TABLE run_queue (
	priority        INTEGER NOT NULL,
	run_id          BLOB    PRIMARY KEY CHECK (length(run_id) = 16),
	queue           TEXT    NOT NULL DEFAULT '',
	pass            INTEGER NOT NULL DEFAULT 0,
	held            INTEGER NOT NULL DEFAULT 0,
	pipeline        TEXT    NOT NULL DEFAULT '',
	fair_key        TEXT    NOT NULL DEFAULT '',
	concurrency     TEXT,
	concurrency_max INTEGER NOT NULL DEFAULT 0,
	queued_at       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT, WITHOUT ROWID;
INSERT INTO run_queue (priority, run_id) SELECT priority, run_id FROM run_queue_before;
DROP TABLE run_queue_before;
CREATE INDEX run_queue_line ON run_queue (queue, priority DESC, pass, run_id) WHERE held = 0;
CREATE INDEX run_queue_slot ON run_queue (concurrency, priority DESC, pass, run_id) WHERE held = 1;
CREATE INDEX run_queue_paused ON run_queue (pipeline) WHERE held = 2;

-- Settings of queues. Rows appear on first use. pass and tat move with every
-- start: the queue's place among the queues, and the theoretical arrival time
-- of its rate limit in microseconds since 1970.
CREATE TABLE queue (
	name        TEXT    PRIMARY KEY CHECK (name <> ''),
	paused_at   INTEGER,
	paused_by   TEXT    NOT NULL DEFAULT '',
	max_running INTEGER CHECK (max_running > 0),
	every       INTEGER CHECK (every > 0), -- microseconds between two starts
	burst       INTEGER NOT NULL DEFAULT 1 CHECK (burst > 0),
	weight      INTEGER NOT NULL DEFAULT 1 CHECK (weight > 0),
	weights     TEXT    NOT NULL DEFAULT '{}', -- of fair keys, 1 where there is none
	pass        REAL    NOT NULL DEFAULT 0,
	tat         INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE paused_pipeline (
	pipeline TEXT    PRIMARY KEY,
	at       INTEGER NOT NULL,
	actor    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- The clock of a line is the pass of the run that was claimed last. A key's row
-- holds the pass of its newest run; one that the clock has passed says nothing
-- any more and is deleted.
CREATE TABLE fair_clock (
	queue    TEXT    NOT NULL,
	priority INTEGER NOT NULL,
	pass     INTEGER NOT NULL,
	PRIMARY KEY (queue, priority)
) STRICT, WITHOUT ROWID;
CREATE TABLE fair_key (
	queue    TEXT    NOT NULL,
	priority INTEGER NOT NULL,
	key      TEXT    NOT NULL,
	pass     INTEGER NOT NULL,
	PRIMARY KEY (queue, priority, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX fair_key_pass ON fair_key (queue, priority, pass);

-- Who holds what: runs that have started and not finished, by the name of
-- their limit, 'key ' or 'queue ' and its own. They go with the end of the run.
CREATE TABLE slot (
	key    TEXT    NOT NULL,
	run_id BLOB    NOT NULL,
	at     INTEGER NOT NULL,
	PRIMARY KEY (key, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX slot_run ON slot (run_id);
