-- +goose Up

-- Secrets that the replicas share, made by whoever needs one first.
CREATE TABLE shared_key (
	name  text  COLLATE "C" PRIMARY KEY,
	value bytea NOT NULL CHECK (length(value) = 32)
);
