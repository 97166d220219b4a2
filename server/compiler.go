package server

import (
	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

type specSource struct{ File, Text string }

func notYet() error {
	return fault(pipeline.Unavailable, "not_built", "this build has no compiler")
}

func specDigest(src specSource, _ pipeline.Catalog) pipeline.Digest {
	return pipeline.Digest(src.File + src.Text)
}

func specCompile(specSource, pipeline.Catalog) (*pipeline.Plan, *pipeline.Diagnostics, error) {
	return nil, nil, notYet()
}
func specEncode(*pipeline.Plan) ([]byte, pipeline.Digest, error)        { return nil, "", notYet() }
func specDecode([]byte) (*pipeline.Plan, error)                         { return nil, notYet() }
func specInputs(*pipeline.Plan, map[string]any) (map[string]any, error) { return nil, notYet() }
func specSchema(pipeline.Catalog) []byte                                { return []byte("{}") }
func drawing(*pipeline.Plan) (g *orchestratorv1.Graph, mermaid string)  { return nil, "" }
