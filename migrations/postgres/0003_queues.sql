-- +goose Up

-- What a run was submitted with; NULL: the defaults. Runs of the same
-- concurrency key share its slots.
ALTER TABLE run
	ADD COLUMN queue           text COLLATE "C",
	ADD COLUMN fair_key        text COLLATE "C",
	ADD COLUMN concurrency     text COLLATE "C",
	ADD COLUMN concurrency_max integer;

-- The queue without a name is the line of runs that are under way already:
-- woken, handed over, reclaimed. No limit holds them back. The others stand in
-- the queue that they were submitted to, in the order of pass. A run that may
-- not start although its turn has come is set aside, so that nobody walks over
-- it again: held is 1 for want of a slot, 2 while its pipeline is paused.
ALTER TABLE run_queue
	ADD COLUMN queue           text        COLLATE "C" NOT NULL DEFAULT '',
	ADD COLUMN pass            bigint      NOT NULL DEFAULT 0,
	ADD COLUMN held            smallint    NOT NULL DEFAULT 0,
	ADD COLUMN pipeline        text        COLLATE "C" NOT NULL DEFAULT '',
	ADD COLUMN fair_key        text        COLLATE "C" NOT NULL DEFAULT '',
	ADD COLUMN concurrency     text        COLLATE "C",
	ADD COLUMN concurrency_max integer     NOT NULL DEFAULT 0,
	ADD COLUMN queued_at       timestamptz NOT NULL DEFAULT clock_timestamp();
DROP INDEX run_queue_order;
CREATE UNIQUE INDEX run_queue_run ON run_queue (run_id);
CREATE INDEX run_queue_line ON run_queue (queue, priority DESC, pass, run_id) WHERE held = 0;
CREATE INDEX run_queue_slot ON run_queue (concurrency, priority DESC, pass, run_id) WHERE held = 1;
CREATE INDEX run_queue_paused ON run_queue (pipeline) WHERE held = 2;

-- Settings of queues. Rows appear on first use. pass and tat move with every
-- start: the queue's place among the queues, and the theoretical arrival time
-- of its rate limit in microseconds since 1970.
CREATE TABLE queue (
	name        text        COLLATE "C" PRIMARY KEY CHECK (name <> ''),
	paused_at   timestamptz,
	paused_by   text        COLLATE "C" NOT NULL DEFAULT '',
	max_running integer     CHECK (max_running > 0),
	every       bigint      CHECK (every > 0), -- microseconds between two starts
	burst       integer     NOT NULL DEFAULT 1 CHECK (burst > 0),
	weight      integer     NOT NULL DEFAULT 1 CHECK (weight > 0),
	weights     jsonb       NOT NULL DEFAULT '{}', -- of fair keys, 1 where there is none
	pass        float8      NOT NULL DEFAULT 0,
	tat         bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);

CREATE TABLE paused_pipeline (
	pipeline text        COLLATE "C" PRIMARY KEY,
	at       timestamptz NOT NULL,
	actor    text        COLLATE "C" NOT NULL
);

-- The clock of a line is the pass of the run that was claimed last. A key's row
-- holds the pass of its newest run; one that the clock has passed says nothing
-- any more and is deleted.
CREATE TABLE fair_clock (
	queue    text    COLLATE "C" NOT NULL,
	priority integer NOT NULL,
	pass     bigint  NOT NULL,
	PRIMARY KEY (queue, priority)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
CREATE TABLE fair_key (
	queue    text    COLLATE "C" NOT NULL,
	priority integer NOT NULL,
	key      text    COLLATE "C" NOT NULL,
	pass     bigint  NOT NULL,
	grown    bigint  NOT NULL, -- by the newest batch
	stride   bigint  NOT NULL,
	PRIMARY KEY (queue, priority, key)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
CREATE INDEX fair_key_pass ON fair_key (queue, priority, pass);

-- Who holds what: runs that have started and not finished, by the name of
-- their limit, 'key ' or 'queue ' and its own. They go with the end of the run.
CREATE TABLE slot (
	key    text        COLLATE "C" NOT NULL,
	run_id uuid        NOT NULL,
	at     timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (key, run_id)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
CREATE INDEX slot_run ON slot (run_id);
-- Concurrency keys of which a slot was given back; the next claim sees to those
-- who wait for it.
CREATE TABLE slot_freed (
	key text COLLATE "C" NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
