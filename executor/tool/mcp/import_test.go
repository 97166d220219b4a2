package mcp

import (
	"slices"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

func TestImportedServersStandInAPipeline(t *testing.T) {
	got, err := Import([]byte(`{"mcpServers": {
		"files": {"command": "npx", "args": ["-y", "server-filesystem", "/data", "a {{ b }}"]},
		"git hub": {"command": "gh-mcp", "env": {"GITHUB_TOKEN": "ghp_verysecret", "LEVEL": "info"}},
		"search": {"type": "http", "url": "https://search.example.org/mcp", "headers": {"Authorization": "Bearer ${SEARCH_KEY}"}},
		"older": {"type": "sse", "url": "https://old.example.org/sse", "headers": {"X-Api-Key": "k-1234"}},
		"off": {"command": "x", "disabled": true},
		"empty": {}
	}}`))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got.YAML+strings.Join(got.Notes, ""), "verysecret") || strings.Contains(got.YAML, "k-1234") {
		t.Errorf("a secret shows in\n%s\n%s", got.YAML, got.Notes)
	}
	if want := []string{"files", "git-hub", "older", "search"}; !slices.Equal(got.Servers, want) {
		t.Errorf("the servers are %v, not %v", got.Servers, want)
	}
	if want := []string{"GITHUB_TOKEN", "OLDER_X_API_KEY", "SEARCH_KEY"}; !slices.Equal(got.Secrets, want) {
		t.Errorf("the secrets are %v, not %v", got.Secrets, want)
	}
	src := got.YAML + "steps:\n"
	for _, s := range got.Servers {
		src += "- {id: " + s + ", action: mcp__" + s + "__do}\n"
	}
	plan, _, err := spec.Compile(spec.Source{File: "imported.yaml", Text: []byte(src)}, pipeline.Catalog{})
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	if s := plan.Server("older"); s == nil || s.Transport != sse {
		t.Errorf("the older server is %+v", s)
	}
}

func TestImportRefusesOtherFiles(t *testing.T) {
	for _, text := range []string{"", "[]", "{}", `{"mcpServers": {}}`, `{"mcpServers": 5}`} {
		if got, err := Import([]byte(text)); err == nil {
			t.Errorf("%q became %s", text, got.YAML)
		}
	}
}
