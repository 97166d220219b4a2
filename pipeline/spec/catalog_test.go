package spec

import (
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func str(name string, required bool) pipeline.Property {
	return pipeline.Property{Name: name, Type: pipeline.Type{Kind: "string"}, Required: required}
}

func result(names ...string) pipeline.Type {
	t := pipeline.Type{Kind: "map"}
	for _, n := range names {
		t.Properties = append(t.Properties, pipeline.Property{Name: n, Type: pipeline.Type{Kind: "any"}, Required: true})
	}
	return t
}

// testCatalog is a small catalogue with one action of each sort.
func testCatalog() pipeline.Catalog {
	list := []*pipeline.ActionSpec{
		{Key: "generate", Name: "generate", Doc: "Asks a model.", Params: []pipeline.Property{str("prompt", true), {Name: "max_tokens", Type: pipeline.Type{Kind: "integer"}}, str("model", false)}, Returns: pipeline.Type{Kind: "string"}, Effect: pipeline.EffectAtLeastOnce, Model: true},
		{Key: "generate_structured", Name: "generate_structured", Doc: "Asks a model for a value.", Params: []pipeline.Property{str("prompt", true), {Name: "schema", Type: pipeline.Type{Kind: "map", Additional: true}, Required: true}, str("model", false)}, Returns: pipeline.Type{Kind: "any"}, Effect: pipeline.EffectAtLeastOnce, Model: true},
		{Key: "analyze", Name: "analyze", Open: true, Params: []pipeline.Property{{Name: "input", Type: pipeline.Type{Kind: "any"}}}, Returns: pipeline.Type{Kind: "any"}, Effect: pipeline.EffectAtLeastOnce},
		{Key: "search", Name: "search", Params: []pipeline.Property{{Name: "queries", Type: pipeline.Type{Kind: "list"}, Required: true}, {Name: "depth", Type: pipeline.Type{Kind: "enum", Values: []any{"shallow", "deep"}}}}, Returns: result("results"), Effect: pipeline.EffectAtLeastOnce},
		{Key: "parse_code", Name: "parse_code", Params: []pipeline.Property{str("source", true)}, Returns: result("parsed_code", "language"), Effect: pipeline.EffectPure},
		{Key: "security_analysis", Name: "security_analysis", Params: []pipeline.Property{{Name: "code", Type: pipeline.Type{Kind: "any"}, Required: true}}, Returns: result("findings")},
		{Key: "http", Name: "http", Params: []pipeline.Property{str("url", true), str("method", false), {Name: "headers", Type: pipeline.Type{Kind: "map", Additional: true}}}, Returns: result("status", "body"), Secret: []string{"headers"}},
		{Key: "filesystem.write", Tool: "filesystem", Name: "write", Params: []pipeline.Property{{Name: "path", Type: pipeline.Type{Kind: "path"}, Required: true}, {Name: "content", Type: pipeline.Type{Kind: "any"}}}, Returns: result("path", "size"), Effect: pipeline.EffectIdempotent},
		{Key: "filesystem.list", Tool: "filesystem", Name: "list", Params: []pipeline.Property{str("pattern", false)}, Returns: pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "string"}}, Effect: pipeline.EffectIdempotent},
		{Key: "data.filter", Tool: "data", Name: "filter", Bare: true, Params: []pipeline.Property{{Name: "data", Type: pipeline.Type{Kind: "list"}, Required: true}}, Returns: result("data"), Effect: pipeline.EffectPure},
		{Key: "typed", Name: "typed", Params: []pipeline.Property{
			{Name: "rows", Type: pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "map", Properties: []pipeline.Property{
				str("name", true), {Name: "n", Type: pipeline.Type{Kind: "integer"}},
			}}}},
			{Name: "strict", Type: pipeline.Type{Kind: "boolean"}, Doc: "whether to stop", Default: true},
			{Name: "wait", Type: pipeline.Type{Kind: "duration", Optional: true}},
			{Name: "ratio", Type: pipeline.Type{Kind: "number"}},
		}, Returns: pipeline.Type{Kind: "map", Properties: []pipeline.Property{
			{Name: "rows", Type: pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "map", Properties: []pipeline.Property{str("name", true)}}}},
			{Name: "count", Type: pipeline.Type{Kind: "integer"}},
		}}, Effect: pipeline.EffectPure},
		{Key: "debug", Name: "debug", Open: true, Returns: pipeline.Type{Kind: "any"}, Effect: pipeline.EffectPure},
	}
	cat := pipeline.Catalog{Actions: map[string]*pipeline.ActionSpec{}, Digest: "sha256:test"}
	for _, a := range list {
		cat.Actions[a.Key] = a
	}
	return cat
}

// catalogOf is the catalogue that a golden input is held against: those named
// registry have models, those named policy a server that does not allow everything,
// those named installed one with MCP servers of its own.
func catalogOf(file string) pipeline.Catalog {
	cat := testCatalog()
	switch {
	case strings.HasPrefix(file, "registry"):
		cat.Models = []pipeline.ModelSpec{
			{Name: "big", Tasks: []string{"reasoning", "code_review"}, Context: 200_000, Expertise: "high", Cost: 0.03, Tools: true, Structured: true, Languages: []string{"en", "de"}},
			{Name: "llama2-7b", Tasks: []string{"summarization"}, Context: 4096, Size: 7, Languages: []string{"en"}},
		}
	case strings.HasPrefix(file, "installed"):
		cat.Servers = []pipeline.MCPServer{{Name: "docs", Allow: []string{"read_*"}}, {Name: "fs"}}
	case strings.HasPrefix(file, "policy"):
		cat.Policy = &pipeline.Policy{Actions: []string{"generate", "data", "mcp__docs__read_*", "ask_human", "filesystem.list"}}
	}
	return cat
}
