-- +goose Up

-- The newest record of forked_from that the run may use.
ALTER TABLE run ADD COLUMN fork_seq INTEGER NOT NULL DEFAULT 0;

-- The runs that a run has begun, and those that use its records: few have either.
CREATE INDEX run_parent ON run (parent_run, run_id) WHERE parent_run IS NOT NULL;
CREATE INDEX run_fork ON run (forked_from, run_id) WHERE forked_from IS NOT NULL;
