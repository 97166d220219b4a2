package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	insertPlan = `INSERT INTO plan (digest, source, compiled, format, used_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at`
	planThere = `SELECT 1 FROM plan WHERE digest = ? AND used_at > ?`
	readPlan  = `SELECT digest, source, compiled, format FROM plan WHERE digest = ?`
)

// PutPlan implements store.Store.
func (s *Store) PutPlan(ctx context.Context, p store.Plan) error {
	if there, err := s.there(ctx, planThere, text(p.Digest), freshSince()); err == nil && there { // the common case costs no write
		return nil
	}
	return s.writer.do(ctx, "store a plan", func(t *tx) error {
		_, err := t.exec(insertPlan, text(p.Digest), nonNil(p.Source), nonNil(p.Compiled), p.Format, t.now.UnixMicro())
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
	p, err := s.plan(ctx, d)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, &pipeline.Error{Kind: pipeline.NotFound, Reason: "plan_not_found", Text: fmt.Sprintf("there is no plan %s", d)}
	}
	return p, storeError("read a plan", err)
}

func (s *Store) plan(ctx context.Context, d pipeline.Digest) (*store.Plan, error) {
	var p *store.Plan
	err := s.query(ctx, readPlan, []any{text(d)}, func(r *sql.Rows) error {
		p = new(store.Plan)
		return r.Scan(&p.Digest, &p.Source, &p.Compiled, &p.Format)
	})
	if err == nil && p == nil {
		err = sql.ErrNoRows
	}
	return p, err
}

const (
	insertPipeline = `INSERT INTO pipeline (id, version, name, description, plan_digest, created_at)
		VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`
	pipelineDigest  = `SELECT plan_digest FROM pipeline WHERE id = ? AND version = ?`
	pipelineColumns = `SELECT id, version, name, description, plan_digest, created_at FROM pipeline `
	readPipeline    = pipelineColumns + `WHERE id = ?1 AND (?2 = '' OR version = ?2) ORDER BY seq DESC LIMIT 1`
	listVersions    = pipelineColumns + `WHERE id = ? ORDER BY seq DESC`
	listPipelines   = pipelineColumns + `WHERE id > ? AND seq IN (SELECT max(seq) FROM pipeline GROUP BY id) ORDER BY id LIMIT ?`
)

// PutPipeline implements store.Store.
func (s *Store) PutPipeline(ctx context.Context, p store.Pipeline) error {
	return s.writer.do(ctx, "register a pipeline", func(t *tx) error {
		at := p.CreatedAt
		if at.IsZero() {
			at = t.now
		}
		n, err := t.exec(insertPipeline, text(p.ID), text(p.Version), text(p.Name), text(p.Description), text(p.PlanDigest), at.UnixMicro())
		if err != nil || n > 0 {
			return err
		}
		var digest string
		if err := t.row(pipelineDigest, []any{text(p.ID), text(p.Version)}, &digest); err != nil {
			return err
		}
		if digest != text(p.PlanDigest) {
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
	list, err := s.pipelines(ctx, readPipeline, text(id), text(version))
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
	return s.pipelines(ctx, listPipelines, text(after), store.PageSize(limit))
}

// Versions implements store.Store.
func (s *Store) Versions(ctx context.Context, id string) ([]store.Pipeline, error) {
	return s.pipelines(ctx, listVersions, text(id))
}

func (s *Store) pipelines(ctx context.Context, query string, args ...any) ([]store.Pipeline, error) {
	var list []store.Pipeline
	err := s.query(ctx, query, args, func(r *sql.Rows) error {
		var p store.Pipeline
		var at int64
		if err := r.Scan(&p.ID, &p.Version, &p.Name, &p.Description, &p.PlanDigest, &at); err != nil {
			return err
		}
		p.CreatedAt = time.UnixMicro(at).UTC()
		list = append(list, p)
		return nil
	})
	return list, storeError("read pipelines", err)
}
