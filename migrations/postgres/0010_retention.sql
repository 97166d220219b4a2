-- +goose Up

-- When a plan or a bundle was put last. One that is put again after half a day
-- moves this, so that nothing is swept that somebody is about to name.
ALTER TABLE plan ADD COLUMN used_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE bundle ADD COLUMN used_at timestamptz NOT NULL DEFAULT now();

-- run_day is the day of a run's id.
CREATE FUNCTION run_day(id uuid) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN date '1970-01-01' + (('x' || replace(left(id::text, 13), '-', ''))::bit(48)::bigint / 86400000)::integer;
