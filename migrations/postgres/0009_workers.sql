-- +goose Up

-- Where workers reach the replica that holds the lane; empty: it does not say.
ALTER TABLE lane_lease ADD COLUMN addr text COLLATE "C" NOT NULL DEFAULT '';
