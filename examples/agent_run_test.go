package examples_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// TestAgentReport runs the agent with the MCP server of others that its file names,
// which npx finds beside the workspace and does not fetch.
func TestAgentReport(t *testing.T) {
	modules := os.Getenv("MCP_SERVERS")
	if modules == "" {
		t.Skip("MCP_SERVERS is not set; bin/needs -for mcp -- go test ... sets it")
	}
	h := open(t, companion("agent-report.yaml", "script"))
	h.fills = true
	copyTree(t, ".", filepath.Join(h.dir, "examples"))
	if err := os.Symlink(modules, filepath.Join(h.dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	run := h.see(t, "agent-report.yaml", example{
		act:  say("approve", nil, "ann"),
		want: `{"honey":41.5,"report":"agent-report.md","weak":["wall"]}`,
		files: map[string]string{
			"agent-report.md": "# The bees in May\n\nThe hives hold 41.5 kg of honey. Weak: wall.\nOrdered: 8 kg of sugar for wall\n",
			"orders.txt":      "8 kg of sugar for wall\n",
		},
	})
	read := 0
	for e, err := range h.store.Events(t.Context(), run.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		c := e.Data.Call
		if c == nil || e.Type != pipeline.ToolCalled || c.State != pipeline.InvocationFinished {
			continue
		}
		if e.Data.Error != nil {
			t.Errorf("%s: %v", c.Name, e.Data.Error)
		}
		if c.Name == "mcp__notes__read_text_file" {
			read++
		}
	}
	if read != 3 {
		t.Errorf("%d notes were read", read)
	}
}
