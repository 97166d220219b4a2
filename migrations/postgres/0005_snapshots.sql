-- +goose Up

-- The seq of the newest event that the run's newest snapshot knows: a checkpoint
-- record after it says where that is kept. 0: the log is folded from its beginning.
ALTER TABLE run ADD COLUMN checkpoint_seq integer NOT NULL DEFAULT 0;
