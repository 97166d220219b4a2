package agent_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// A replay of a run asks no model and calls no tool; a rerun of the agent does.
func TestRunsWithAgentsAreReplayed(t *testing.T) {
	var asked atomic.Int32
	say := looksOften(2)
	p, s := server(t, func(r *model.Request) (*model.Response, error) {
		asked.Add(1)
		return say(r)
	})
	first := finishes(t, p, s, submission(t, p.ex, manyTurns(2)+"\n- {id: after, action: debug, with: {value: '{{ work }}!'}}"))
	if asked.Load() != 3 || first.Outputs["after"] != "done!" {
		t.Fatalf("asked %d times: %v", asked.Load(), first.Outputs)
	}
	for _, c := range []struct {
		how  pipeline.Forking
		asks int32
	}{
		{pipeline.Forking{From: first.ID, Mode: pipeline.ForkReplay}, 3},
		{pipeline.Forking{From: first.ID, Mode: pipeline.ForkRerun, Step: "after"}, 3},
		{pipeline.Forking{From: first.ID, Mode: pipeline.ForkRerun, Step: "work"}, 6},
	} {
		run := ends(t, s, func(ctx context.Context) (*pipeline.Run, error) { return p.ex.Fork(ctx, c.how) })
		if n := asked.Load(); n != c.asks || run.Outputs["after"] != "done!" {
			t.Errorf("%s %v: asked %d times in all, want %d; %v", c.how.Mode, c.how.Step, n, c.asks, run.Outputs)
		}
	}
}
