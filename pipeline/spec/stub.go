package spec

import (
	"crypto/sha256"
	"encoding/json"
	"io"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

type compiler struct{}

func newCompiler(*text, *findings, pipeline.Catalog) *compiler { return &compiler{} }
func (c *compiler) document(*node) *pipeline.Plan               { return &pipeline.Plan{Format: pipeline.PlanFormat} }

// Inputs checks and completes submitted inputs.
func Inputs(plan *pipeline.Plan, given map[string]any) (map[string]any, error) { return given, nil }

// ParseInput reads an input's text by its type.
func ParseInput(in pipeline.Input, text string) (any, error) { return text, nil }

// ReadInputs reads an inputs file.
func ReadInputs(text []byte) (map[string]any, error) { return map[string]any{}, nil }

// EncodePlan encodes a plan.
func EncodePlan(p *pipeline.Plan) ([]byte, pipeline.Digest, error) {
	b, err := json.Marshal(p)
	sum := sha256.Sum256(b)
	return b, digestOf(sum[:]), err
}

// DecodePlan reads a plan.
func DecodePlan(b []byte) (*pipeline.Plan, error) {
	p := &pipeline.Plan{}
	return p, json.Unmarshal(b, p)
}

// Format prints findings.
func Format(w io.Writer, d *pipeline.Diagnostics, color bool) {}

// Schema is the JSON Schema of the language.
func Schema(cat pipeline.Catalog) []byte { return []byte("{}") }
