-- +goose Up

-- What calls of models have come to. Replicas add to it in batches.
CREATE TABLE model_stat (
	day           text COLLATE "C" NOT NULL,
	pipeline      text COLLATE "C" NOT NULL,
	model         text COLLATE "C" NOT NULL,
	calls         bigint NOT NULL,
	failures      bigint NOT NULL,
	unpriced      bigint NOT NULL,
	reward        double precision NOT NULL,
	seconds       double precision NOT NULL,
	input_tokens  bigint NOT NULL,
	output_tokens bigint NOT NULL,
	cached_tokens bigint NOT NULL,
	cost_usd      double precision NOT NULL,
	PRIMARY KEY (day, pipeline, model)
);
