package pipeline_test

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestNeedsSayWhatAModelLacks(t *testing.T) {
	big := pipeline.ModelSpec{Name: "big", Tasks: []string{"reasoning"}, Context: 1000, Expertise: "medium", Size: 7, Cost: 0.5, Languages: []string{"en"}}
	bare := pipeline.ModelSpec{Name: "bare"}
	for _, c := range []struct {
		needs pipeline.Needs
		model *pipeline.ModelSpec
		lacks string
	}{
		{pipeline.Needs{}, &bare, ""},
		{pipeline.Needs{Tasks: []string{"reasoning"}, MinContext: 1000, Expertise: "low", CostLimit: 0.5, MinSize: "7B", MaxSize: "7b", Languages: []string{"en"}}, &big, ""},
		{pipeline.Needs{Tasks: []string{"reasoning", "painting"}}, &big, "task painting"},
		{pipeline.Needs{Languages: []string{"de"}}, &big, "language de"},
		{pipeline.Needs{MinContext: 1001}, &big, "1000 tokens, not 1001"},
		{pipeline.Needs{Expertise: "very-high"}, &big, "expertise is medium"},
		{pipeline.Needs{CostLimit: 0.4}, &big, "cost 0.5 USD"},
		{pipeline.Needs{MinSize: "8B"}, &big, "fewer than 8B"},
		{pipeline.Needs{MaxSize: "350M"}, &big, "more than 350M"},
		{pipeline.Needs{Tools: true}, &big, "call tools"},
		{pipeline.Needs{Structured: true}, &big, "schema"},
		{pipeline.Needs{Streaming: true}, &big, "stream"},
		{pipeline.Needs{Expertise: "high", MinSize: "1T", CostLimit: 1}, &bare, ""}, // not stated
		{pipeline.Needs{MinContext: 1}, &bare, "0 tokens"},
	} {
		if got := c.needs.Lacks(c.model); (got == "") != (c.lacks == "") || !strings.Contains(got, c.lacks) {
			t.Errorf("%+v of %s: %q, not %q", c.needs, c.model.Name, got, c.lacks)
		}
	}
	if got := (*pipeline.Needs)(nil).Lacks(&bare); got != "" {
		t.Errorf("nothing required: %q", got)
	}
}

func TestModelSize(t *testing.T) {
	for s, want := range map[string]float64{"7B": 7, " 70b ": 70, "350M": 0.35, "1.5T": 1500, "7": 0, "B": 0, "-1B": 0, "": 0, "bigB": 0} {
		if got := pipeline.ModelSize(s); got != want {
			t.Errorf("%q: %g, not %g", s, got, want)
		}
	}
}

func TestNamesOfMCPToolsComeApart(t *testing.T) {
	for _, c := range [][2]string{{"fs", "read_file"}, {"a-b", "x__y"}, {"a", "_b"}, {"a_b", "c"}} {
		name := pipeline.MCPName(c[0], c[1])
		if server, tool, ok := pipeline.MCPTool(name); !ok || server != c[0] || tool != c[1] {
			t.Errorf("%s: %q, %q, %v", name, server, tool, ok)
		}
	}
	for _, name := range []string{"", "fs", "mcp__", "mcp__fs", "mcp__fs__", "mcp____x", "mcp_fs__x"} {
		if _, _, ok := pipeline.MCPTool(name); ok {
			t.Errorf("%q was taken for a tool of a server", name)
		}
	}
}

func TestServerAllowsTools(t *testing.T) {
	s := pipeline.MCPServer{Allow: []string{"read_*", "list"}, Deny: []string{"*_secret"}}
	for tool, want := range map[string]bool{"read_file": true, "list": true, "write": false, "read_secret": false} {
		if s.Allows(tool) != want {
			t.Errorf("%s: %v", tool, !want)
		}
	}
	if !(&pipeline.MCPServer{}).Allows("x") || (&pipeline.MCPServer{Deny: []string{"x"}}).Allows("x") {
		t.Error("a server without allow has all but what it denies")
	}
}

func TestAgentsAreFoundByName(t *testing.T) {
	a := pipeline.Agent{Name: "a", Agents: []pipeline.Agent{{Name: "b"}}}
	if a.Find("a") != &a || a.Find("b") != &a.Agents[0] || a.Find("c") != nil {
		t.Error("not found by its name")
	}
}
