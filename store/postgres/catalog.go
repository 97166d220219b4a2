package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	planThere  = `SELECT EXISTS (SELECT FROM plan WHERE digest = $1 AND used_at > statement_timestamp() - $2::interval)`
	insertPlan = `INSERT INTO plan (digest, source, compiled, format, used_at) VALUES ($1, $2, $3, $4, statement_timestamp())
		ON CONFLICT (digest) DO UPDATE SET used_at = EXCLUDED.used_at`
	readPlan = `SELECT digest, source, compiled, format FROM plan WHERE digest = $1`
)

// PutPlan implements store.Store.
func (s *Store) PutPlan(ctx context.Context, p store.Plan) error {
	digest := store.Clean(string(p.Digest))
	return s.do(ctx, "store a plan", func(c *pgxpool.Conn) error {
		var there bool
		if err := c.QueryRow(ctx, planThere, digest, store.UseFresh).Scan(&there); err != nil || there { // the common case costs no write
			return err
		}
		_, err := c.Exec(ctx, insertPlan, digest, nonNil(p.Source), nonNil(p.Compiled), p.Format)
		return err
	})
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Plan implements store.Store.
func (s *Store) Plan(ctx context.Context, d pipeline.Digest) (*store.Plan, error) {
	p := new(store.Plan)
	err := s.do(ctx, "read a plan", func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, readPlan, store.Clean(string(d))).Scan(&p.Digest, &p.Source, &p.Compiled, &p.Format)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, &pipeline.Error{Kind: pipeline.NotFound, Reason: "plan_not_found", Text: fmt.Sprintf("there is no plan %s", d)}
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

const (
	insertPipeline = `INSERT INTO pipeline (id, version, name, description, plan_digest, created_at)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`
	pipelineDigest  = `SELECT plan_digest FROM pipeline WHERE id = $1 AND version = $2`
	pipelineColumns = `SELECT id, version, name, description, plan_digest, created_at FROM pipeline `
	readPipeline    = pipelineColumns + `WHERE id = $1 AND ($2 = '' OR version = $2) ORDER BY seq DESC LIMIT 1`
	listVersions    = pipelineColumns + `WHERE id = $1 ORDER BY seq DESC`
	// One step along the index per pipeline, however many versions each has.
	listPipelines = `WITH RECURSIVE newest AS (
			(SELECT * FROM pipeline WHERE id > $1 ORDER BY id, seq DESC LIMIT 1)
			UNION ALL
			SELECT n.* FROM newest o, LATERAL (SELECT * FROM pipeline p WHERE p.id > o.id ORDER BY p.id, p.seq DESC LIMIT 1) n)
		SELECT id, version, name, description, plan_digest, created_at FROM newest LIMIT $2`
)

// PutPipeline implements store.Store.
func (s *Store) PutPipeline(ctx context.Context, p store.Pipeline) error {
	at := p.CreatedAt
	if at.IsZero() {
		at = time.Now()
	}
	id, version := store.Clean(p.ID), store.Clean(p.Version)
	return s.do(ctx, "register a pipeline", func(c *pgxpool.Conn) error {
		tag, err := c.Exec(ctx, insertPipeline, id, version, store.Clean(p.Name), store.Clean(p.Description), store.Clean(string(p.PlanDigest)), at)
		if err != nil || tag.RowsAffected() > 0 {
			return err
		}
		var digest string
		if err := c.QueryRow(ctx, pipelineDigest, id, version).Scan(&digest); err != nil {
			return err
		}
		if digest != store.Clean(string(p.PlanDigest)) {
			return &pipeline.Error{
				Kind: pipeline.Conflict, Reason: "pipeline_version_exists",
				Text: fmt.Sprintf("pipeline %s has a version %s with other content; give the new one another version", p.ID, p.Version),
			}
		}
		return nil
	})
}

// Pipeline implements store.Store.
func (s *Store) Pipeline(ctx context.Context, id, version string) (*store.Pipeline, error) {
	list, err := s.pipelines(ctx, readPipeline, store.Clean(id), store.Clean(version))
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		what := id
		if version != "" {
			what += " of version " + version
		}
		return nil, &pipeline.Error{Kind: pipeline.NotFound, Reason: "pipeline_not_found", Text: fmt.Sprintf("there is no pipeline %s", what)}
	}
	return &list[0], nil
}

// Pipelines implements store.Store.
func (s *Store) Pipelines(ctx context.Context, after string, limit int) ([]store.Pipeline, error) {
	return s.pipelines(ctx, listPipelines, store.Clean(after), store.PageSize(limit))
}

// Versions implements store.Store.
func (s *Store) Versions(ctx context.Context, id string) ([]store.Pipeline, error) {
	return s.pipelines(ctx, listVersions, store.Clean(id))
}

func (s *Store) pipelines(ctx context.Context, sql string, args ...any) ([]store.Pipeline, error) {
	var list []store.Pipeline
	err := s.do(ctx, "read pipelines", func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[store.Pipeline])
		return err
	})
	for i := range list {
		list[i].CreatedAt = list[i].CreatedAt.UTC()
	}
	return list, err
}
