package executor_test

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestFilesThatArtifactsNameAreKept(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			e := start(t, s, troubled, inBundles(t), func(c *executor.Config) { c.Workspace = t.TempDir() })
			src := "steps:\n- {id: a, run: 'mkdir -p out; echo one >out/1.txt; echo two >out/2.txt; echo no >out/no.md', artifacts: ['out/*.txt', out/1.txt]}\noutputs: {n: '{{ steps.a.artifacts | map(attribute=\"artifact\") | list }}'}"
			run, v := e.wait(e.enter(e.packed(src, nil, nil)))
			if run.Status != pipeline.RunCompleted {
				t.Fatal(run.Error)
			}
			kept := v.Step("a").Artifacts
			if len(kept) != 2 || kept[0].Artifact != "out/1.txt" || kept[1].Artifact != "out/2.txt" || kept[0].Version != 1 {
				t.Fatalf("kept: %+v", kept)
			}
			data, err := s.Blob(t.Context(), run.ID, kept[1].Blob)
			if err != nil || string(data) != "two\n" || kept[1].Size != 4 {
				t.Errorf("content: %q %v %d", data, err, kept[1].Size)
			}

			run, _ = e.wait(e.enter(e.packed("steps:\n- {id: a, run: 'true', artifacts: 'out/*.pdf'}", nil, nil)))
			if run.Status != pipeline.RunFailed || run.Error.Kind != pipeline.CategoryContract || !strings.Contains(run.Error.Message, "out/*.pdf") {
				t.Errorf("nothing matches: %s %+v", run.Status, run.Error)
			}
		})
	}
}
