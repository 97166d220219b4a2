-- +goose Up

-- Budgets that runs share: key is scope/name. What is taken was spent, or drawn
-- by a replica that has not settled it. Money is in billionths of a USD.
CREATE TABLE budget (
	key           text   COLLATE "C" PRIMARY KEY,
	spent_tokens  bigint NOT NULL DEFAULT 0,
	spent_nanos   bigint NOT NULL DEFAULT 0,
	spent_calls   bigint NOT NULL DEFAULT 0,
	taken_tokens  bigint NOT NULL DEFAULT 0,
	taken_nanos   bigint NOT NULL DEFAULT 0,
	taken_calls   bigint NOT NULL DEFAULT 0,
	raised_tokens bigint NOT NULL DEFAULT 0,
	raised_nanos  bigint NOT NULL DEFAULT 0,
	raised_calls  bigint NOT NULL DEFAULT 0
);

CREATE TABLE budget_slice (
	key        text        COLLATE "C" NOT NULL,
	replica    text        COLLATE "C" NOT NULL,
	tokens     bigint      NOT NULL,
	nanos      bigint      NOT NULL,
	calls      bigint      NOT NULL,
	expires_at timestamptz NOT NULL,
	PRIMARY KEY (key, replica)
);

-- Runs that spend, with how much of it is settled, and who owns or owned them.
-- keys is a JSON list.
CREATE TABLE budget_run (
	run_id  text   COLLATE "C" PRIMARY KEY,
	replica text   COLLATE "C" NOT NULL,
	keys    text   NOT NULL,
	tokens  bigint NOT NULL,
	nanos   bigint NOT NULL,
	calls   bigint NOT NULL
);
CREATE INDEX budget_run_replica ON budget_run (replica);

CREATE TABLE budget_raise (
	id     text        COLLATE "C" PRIMARY KEY,
	key    text        COLLATE "C" NOT NULL,
	tokens bigint      NOT NULL,
	nanos  bigint      NOT NULL,
	calls  bigint      NOT NULL,
	actor  text        NOT NULL,
	at     timestamptz NOT NULL
);

-- Rates that replicas keep together: tat is the theoretical arrival time of the
-- generic cell rate algorithm, in microseconds since 1970.
CREATE TABLE rate (
	key text   COLLATE "C" PRIMARY KEY,
	tat bigint NOT NULL
);
