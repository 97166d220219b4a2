package executor_test

import (
	"context"
	"slices"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// What strangers have written sees of the caller's environment what is harmless.
func TestConfinedStepsSeeNoCaller(t *testing.T) {
	for name, c := range map[string]struct {
		confined, sees bool
	}{
		"a command's like":    {false, true},
		"a confined action's": {true, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, storetest.Open(t), func(_ context.Context, env executor.Env, _ string) (any, error) {
				return map[string]any{
					"caller": slices.Contains(env.Environ, "AWS_SESSION_TOKEN=sesame"),
					"path":   slices.Contains(env.Environ, "PATH=/bin"),
				}, nil
			}, func(cfg *executor.Config) {
				cfg.Environ = []string{"AWS_SESSION_TOKEN=sesame", "PATH=/bin"}
				for i := range cfg.Actions {
					if cfg.Actions[i].Spec.Key == "probe" {
						cfg.Actions[i].Workspace, cfg.Actions[i].Confined = true, c.confined
					}
				}
			})
			run, _ := e.wait(e.submit(`{steps: [{id: a, action: probe, with: {do: look}}], outputs: {a: "{{ a }}"}}`, nil))
			got, _ := run.Outputs["a"].(map[string]any)
			if run.Status != pipeline.RunCompleted || got["caller"] != c.sees || got["path"] != true {
				t.Errorf("%s: %v, %v", run.Status, run.Error, got)
			}
		})
	}
}
