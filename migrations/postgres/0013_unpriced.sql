-- +goose Up

-- Calls of models whose cost nobody knows: cost_usd is without it.
ALTER TABLE run ADD COLUMN unpriced_calls integer NOT NULL DEFAULT 0;
