package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
)

// compiled is what came of compiling a source: a plan, or only diagnostics.
type compiled struct {
	plan    *pipeline.Plan
	digest  pipeline.Digest
	encoded []byte
	source  string
	files   pipeline.Bundle       // that travel with the source; nil where they are stored
	diags   *pipeline.Diagnostics // never nil
}

// refused is the error of a source that did not compile, or nil.
func (c *compiled) refused() error {
	if c.plan == nil {
		return c.diags
	}
	return nil
}

// compile returns what comes of a source; a refused pipeline is no error. Each
// source is compiled once, however many send it.
func (s *Server) compile(ctx context.Context, file, source string, files pipeline.Bundle) (*compiled, error) {
	if file == "" {
		file = "pipeline.yaml"
	}
	if err := checkPaths("files", files); err != nil {
		return nil, err
	}
	files, lacks, err := s.withSkills(ctx, source, files)
	if err != nil {
		return nil, err
	}
	src := spec.Source{File: file, Text: []byte(source), Files: files}
	cat := s.cfg.Catalog()
	return s.plans.get(ctx, spec.Digest(src, cat), func() (*compiled, int64, error) {
		if lacks {
			cat.Skills = s.installed(ctx)
		}
		plan, diags, err := spec.Compile(src, cat)
		if diags == nil {
			diags = &pipeline.Diagnostics{}
		}
		var refusal *pipeline.Diagnostics
		switch {
		case errors.As(err, &refusal):
			plan, diags = nil, refusal
		case err != nil:
			return nil, 0, fmt.Errorf("compile pipeline: %w", err)
		case diags.HasErrors():
			plan = nil
		case plan == nil:
			return nil, 0, errors.New("compile pipeline: neither a plan nor errors")
		}
		c := &compiled{plan: plan, source: source, files: files, diags: diags}
		if plan != nil {
			if c.encoded, c.digest, err = spec.EncodePlan(plan); err != nil {
				return nil, 0, fmt.Errorf("encode plan: %w", err)
			}
		}
		return c, c.weight(), nil
	})
}

// weight is about the bytes that c holds; a plan as structs takes several
// times its JSON.
func (c *compiled) weight() int64 {
	n := 1024 + len(c.source) + 6*len(c.encoded) + int(c.files.Size())
	for i := range c.diags.List {
		d := &c.diags.List[i]
		n += 256 + len(d.Message) + len(d.Hint) + len(d.Excerpt)
	}
	return int64(n)
}

// registered returns the plan of a registered pipeline.
func (s *Server) registered(ctx context.Context, id, version string) (*compiled, error) {
	p, err := s.cfg.Store.Pipeline(ctx, id, version)
	if err != nil {
		return nil, err
	}
	return s.stored(ctx, p.PlanDigest)
}

// stored returns a plan of the store. One of another format is compiled again
// from its source.
func (s *Server) stored(ctx context.Context, digest pipeline.Digest) (*compiled, error) {
	return s.plans.get(ctx, "plan "+digest, func() (*compiled, int64, error) {
		p, err := s.cfg.Store.Plan(ctx, digest)
		if err != nil {
			return nil, 0, err
		}
		if p.Format != pipeline.PlanFormat {
			c, err := s.recompile(ctx, p)
			if err != nil {
				return nil, 0, err
			}
			return c, c.weight(), nil
		}
		plan, err := spec.DecodePlan(p.Compiled)
		if err != nil {
			return nil, 0, fmt.Errorf("read plan %s: %w", digest, err)
		}
		c := &compiled{plan: plan, digest: digest, encoded: p.Compiled, source: string(p.Source), diags: &pipeline.Diagnostics{}}
		return c, c.weight(), nil
	})
}

func (s *Server) recompile(ctx context.Context, p *store.Plan) (*compiled, error) {
	var old struct {
		File   string          `json:"file"`
		Bundle pipeline.Digest `json:"bundle"`
	}
	if err := json.Unmarshal(p.Compiled, &old); err != nil {
		return nil, fmt.Errorf("read plan %s: %w", p.Digest, err)
	}
	var files pipeline.Bundle
	if old.Bundle != "" {
		var err error
		if files, err = s.cfg.Store.Bundle(ctx, old.Bundle); err != nil {
			return nil, err
		}
	}
	c, err := s.compile(ctx, old.File, string(p.Source), files)
	if err != nil {
		return nil, err
	}
	if err := c.refused(); err != nil {
		return nil, err
	}
	return c, nil
}

// checkInputs checks and completes what was given.
func checkInputs(plan *pipeline.Plan, given map[string]any) (map[string]any, error) {
	inputs, err := spec.Inputs(plan, given)
	if found, ok := errors.AsType[*pipeline.Diagnostics](err); ok {
		return nil, &inputsError{found}
	}
	return inputs, err
}

// unfilled refuses a run with <AUTO> tags that nothing can fill in: neither an
// answer, nor a fallback, nor a model of the server's or of the pipeline's own.
func (s *Server) unfilled(ctx context.Context, plan *pipeline.Plan, answers map[string]any) error {
	err := spec.MissingAnswers(plan, answers)
	if err != nil && (len(plan.Models) > 0 || s.cfg.Fills != nil && s.cfg.Fills(ctx)) {
		return nil
	}
	return err
}
