-- +goose Up

-- Secrets that the processes share, made by whoever needs one first.
CREATE TABLE shared_key (
	name  TEXT PRIMARY KEY,
	value BLOB NOT NULL CHECK (length(value) = 32)
) STRICT, WITHOUT ROWID;
