package executor_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// What only asks models and calls tools that need no files costs no directory; what
// needs one makes it.
func TestAnActionWithAJournalMakesItsWorkspaceWhenItNeedsOne(t *testing.T) {
	dir := t.TempDir()
	calls := func(_ context.Context, env executor.Env, do string) (any, error) {
		if do == "write" {
			if err := env.MakeWorkspace(); err != nil {
				return nil, err
			}
			if err := os.WriteFile(filepath.Join(env.Workspace, "note"), nil, 0o600); err != nil {
				return nil, err
			}
		}
		_, err := os.Stat(env.Workspace)
		return err == nil, nil
	}
	e := start(t, storetest.Open(t), calls, func(c *executor.Config) {
		c.Workspaces = dir
		last := &c.Actions[len(c.Actions)-1]
		last.Workspace, last.Journal = true, true
	})
	for do, there := range map[string]bool{"talk": false, "write": true} {
		run, _ := e.wait(e.submit("id: lazy\nsteps: [{id: s, action: probe, parameters: {do: "+do+"}}]\noutputs: {there: '{{ s }}'}", nil))
		if run.Outputs["there"] != there {
			t.Errorf("%s: the directory is there while the step runs: %v, %v", do, run.Outputs["there"], run.Error)
		}
		if _, err := os.Stat(filepath.Join(dir, string(run.ID))); (err == nil) != there || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: afterwards: %v", do, err)
		}
	}
}
