-- +goose Up

-- What starts runs at times. due_at is when the scheduler looks at a schedule
-- again: for its next fire, for an open one, or because whoever took it may have
-- died.
CREATE TABLE schedule (
	id                text        COLLATE "C" PRIMARY KEY,
	name              text        COLLATE "C" NOT NULL,
	pipeline          text        COLLATE "C" NOT NULL,
	version           text        COLLATE "C" NOT NULL,
	inputs            bytea,
	labels            jsonb,
	priority          integer     NOT NULL,
	cron              text        COLLATE "C" NOT NULL, -- expressions, one a line
	zone              text        COLLATE "C" NOT NULL,
	overlap           text        COLLATE "C" NOT NULL CHECK (overlap IN ('skip','queue','allow','cancel_previous')),
	catch_up          text        COLLATE "C" NOT NULL CHECK (catch_up IN ('latest','all','none')),
	catch_up_from     bigint      NOT NULL CHECK (catch_up_from >= 0), -- microseconds
	jitter            bigint      NOT NULL CHECK (jitter >= 0),        -- microseconds
	starts_at         timestamptz,
	ends_at           timestamptz,
	paused            boolean     NOT NULL,
	owned             boolean     NOT NULL,
	next_fire         timestamptz,
	last_fire         timestamptz,
	last_run          uuid,
	due_at            timestamptz,
	waiting           boolean     NOT NULL,
	backfill_parallel integer     NOT NULL,
	revision          bigint      NOT NULL,
	created_at        timestamptz NOT NULL,
	updated_at        timestamptz NOT NULL,
	CHECK (due_at IS NULL OR NOT paused)
) WITH (fillfactor = 80);
CREATE INDEX schedule_due ON schedule (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX schedule_pipeline ON schedule (pipeline, id);

CREATE TABLE schedule_fire (
	schedule   text        COLLATE "C" NOT NULL,
	fire_at    timestamptz NOT NULL,
	state      text        COLLATE "C" NOT NULL CHECK (state IN ('pending','buffered','started','skipped','failed')),
	open       boolean     NOT NULL,
	backfill   boolean     NOT NULL,
	run_id     uuid,
	reason     text        COLLATE "C" NOT NULL,
	decided_at timestamptz NOT NULL,
	PRIMARY KEY (schedule, fire_at),
	CHECK (open OR state NOT IN ('pending','buffered'))
);
CREATE INDEX schedule_fire_open ON schedule_fire (schedule, fire_at) WHERE open;
