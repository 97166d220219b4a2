-- +goose Up

-- Where workers reach the process that holds the lane; empty: it does not say.
ALTER TABLE lane_lease ADD COLUMN addr TEXT NOT NULL DEFAULT '';
