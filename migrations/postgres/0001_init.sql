-- +goose Up

-- The right to write runs. The epoch is never used twice; expires_at is read
-- by the database's clock only. Heartbeats touch no key column, so they do not
-- wait for a batch that holds the row FOR KEY SHARE.
CREATE SEQUENCE lane_epoch;
CREATE TABLE lane_lease (
	lane          integer     NOT NULL UNIQUE CHECK (lane > 0),
	epoch         bigint      PRIMARY KEY DEFAULT nextval('lane_epoch'),
	replica       text        COLLATE "C" NOT NULL,
	presence      bigint      NOT NULL, -- key of the advisory lock that the replica holds while it lives
	backend_pid   integer,
	backend_start timestamptz,
	expires_at    timestamptz NOT NULL
) WITH (fillfactor = 50);

-- day follows from the id's time, so that every look-up by id prunes.
CREATE TABLE run (
	day           date        NOT NULL,
	run_id        uuid        NOT NULL,
	pipeline      text        COLLATE "C" NOT NULL,
	version       text        COLLATE "C" NOT NULL,
	plan_digest   text        COLLATE "C" NOT NULL,
	parent_run    uuid,
	forked_from   uuid,
	status        text        COLLATE "C" NOT NULL
		CHECK (status IN ('QUEUED','RUNNING','WAITING','PAUSED','COMPLETED','FAILED','CANCELLED')),
	reason        text        COLLATE "C" NOT NULL,
	error         bytea,
	lane_epoch    bigint,
	priority      integer     NOT NULL,
	labels        jsonb,
	inputs        bytea,
	outputs       bytea,
	workdir       text        COLLATE "C" NOT NULL,
	created_at    timestamptz NOT NULL,
	started_at    timestamptz,
	finished_at   timestamptz,
	input_tokens  integer     NOT NULL,
	output_tokens integer     NOT NULL,
	cost_usd      float8      NOT NULL,
	steps         integer     NOT NULL,
	PRIMARY KEY (day, run_id),
	CHECK (lane_epoch IS NULL OR status IN ('RUNNING','WAITING','PAUSED'))
) PARTITION BY RANGE (day);

-- Lists of unfinished and of failed runs; reclaim walks the first.
CREATE INDEX run_active ON run (day, run_id) WHERE status IN ('QUEUED','RUNNING','WAITING','PAUSED');
CREATE INDEX run_failed ON run (day, run_id) WHERE status = 'FAILED';
CREATE INDEX run_pipeline ON run (pipeline, day, run_id);

-- Append only.
CREATE TABLE step_log (
	day     date        NOT NULL,
	run_id  uuid        NOT NULL,
	seq     integer     NOT NULL CHECK (seq > 0),
	attempt integer     NOT NULL,
	digest  bigint      NOT NULL,
	at      timestamptz NOT NULL,
	type    text        COLLATE "C" NOT NULL,
	path    text        COLLATE "C" NOT NULL,
	body    bytea,
	blob    bytea,
	PRIMARY KEY (day, run_id, seq),
	CHECK ((body IS NULL) <> (blob IS NULL))
) PARTITION BY RANGE (day);

-- Bodies over 2 KB, zstd, named by the SHA-256 of their content, kept with the
-- day of the run that wrote them.
CREATE TABLE blob (
	day  date    NOT NULL,
	sha  bytea   NOT NULL CHECK (length(sha) = 32),
	size integer NOT NULL,
	data bytea   NOT NULL,
	PRIMARY KEY (day, sha)
) PARTITION BY RANGE (day);
ALTER TABLE blob ALTER COLUMN data SET STORAGE EXTERNAL; -- it is compressed already

CREATE SEQUENCE log_cursor;
CREATE TABLE log_chunk (
	day     date        NOT NULL,
	run_id  uuid        NOT NULL,
	cursor  bigint      NOT NULL,
	path    text        COLLATE "C" NOT NULL,
	attempt integer     NOT NULL,
	n       integer     NOT NULL,
	at      timestamptz NOT NULL,
	stream  text        COLLATE "C" NOT NULL CHECK (stream IN ('stdout','stderr','system')),
	data    bytea       NOT NULL,
	PRIMARY KEY (day, run_id, cursor)
) PARTITION BY RANGE (day);

-- ensure_day makes the day's partitions and reports whether any was missing.
-- A table that is built first and then attached needs no lock that stops
-- writers of the other days.
-- +goose StatementBegin
CREATE FUNCTION ensure_day(d date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	parent text;
	part   text;
	made   boolean := false;
BEGIN
	FOREACH parent IN ARRAY ARRAY['run', 'step_log', 'blob', 'log_chunk'] LOOP
		part := parent || to_char(d, '"_"YYYYMMDD');
		PERFORM pg_advisory_xact_lock(7811887430014);
		CONTINUE WHEN EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
			WHERE i.inhparent = parent::regclass AND c.relname = part);
		EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
		EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, part, d, d + 1);
		made := true;
	END LOOP;
	RETURN made;
END
$$;
-- +goose StatementEnd

CREATE TABLE run_queue (
	priority integer NOT NULL,
	day      date    NOT NULL,
	run_id   uuid    NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
CREATE UNIQUE INDEX run_queue_order ON run_queue (priority DESC, run_id);

CREATE TABLE inbox (
	msg_id text        COLLATE "C" PRIMARY KEY,
	run_id uuid        NOT NULL,
	kind   text        COLLATE "C" NOT NULL,
	actor  text        COLLATE "C" NOT NULL,
	body   bytea,
	at     timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
CREATE INDEX inbox_run ON inbox (run_id);

CREATE TABLE idempotency (
	key            text        COLLATE "C" PRIMARY KEY,
	request_digest text        COLLATE "C" NOT NULL,
	run_id         uuid        NOT NULL,
	expires_at     timestamptz NOT NULL
);

CREATE TABLE plan (
	digest   text    COLLATE "C" PRIMARY KEY,
	source   bytea   NOT NULL,
	compiled bytea   NOT NULL,
	format   integer NOT NULL
);

CREATE TABLE pipeline (
	seq         bigint      GENERATED ALWAYS AS IDENTITY, -- the order of registration
	id          text        COLLATE "C" NOT NULL,
	version     text        COLLATE "C" NOT NULL,
	name        text        COLLATE "C" NOT NULL,
	description text        COLLATE "C" NOT NULL,
	plan_digest text        COLLATE "C" NOT NULL,
	created_at  timestamptz NOT NULL,
	PRIMARY KEY (id, version)
);
CREATE INDEX pipeline_newest ON pipeline (id, seq DESC);
