-- +goose Up

-- When a plan or a bundle was put last. One that is put again after half a day
-- moves this, so that nothing is swept that somebody is about to name.
ALTER TABLE plan ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE bundle ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
UPDATE plan SET used_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER);
UPDATE bundle SET used_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER);
