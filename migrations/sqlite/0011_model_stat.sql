-- +goose Up

-- What calls of models have come to. Processes add to it in batches.
CREATE TABLE model_stat (
	day           TEXT NOT NULL,
	pipeline      TEXT NOT NULL,
	model         TEXT NOT NULL,
	calls         INTEGER NOT NULL,
	failures      INTEGER NOT NULL,
	unpriced      INTEGER NOT NULL,
	reward        REAL NOT NULL,
	seconds       REAL NOT NULL,
	input_tokens  INTEGER NOT NULL,
	output_tokens INTEGER NOT NULL,
	cached_tokens INTEGER NOT NULL,
	cost_usd      REAL NOT NULL,
	PRIMARY KEY (day, pipeline, model)
) STRICT, WITHOUT ROWID;
