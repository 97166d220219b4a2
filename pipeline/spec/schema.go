package spec

import "github.com/orchestrator-project/orchestrator/pipeline"

// Schema is the JSON Schema of the language.
func Schema(cat pipeline.Catalog) []byte { return []byte("{}") }
