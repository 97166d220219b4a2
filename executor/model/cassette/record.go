package cassette

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Record gathers the calls of models that the log of a run tells of, in their
// order. Calls that failed are left out.
func Record(ctx context.Context, events iter.Seq2[pipeline.Event, error]) ([]Recording, error) {
	byPath := map[pipeline.Path][]pipeline.Event{}
	type place struct {
		path pipeline.Path
		n    int32
	}
	var order []place
	for e, err := range events {
		if err != nil {
			return nil, err
		}
		if c := e.Data.Call; c != nil && c.State == pipeline.InvocationFinished {
			byPath[e.Path] = append(byPath[e.Path], e)
			if e.Type == pipeline.ModelCalled && !c.Failed {
				order = append(order, place{e.Path, c.N})
			}
		}
	}
	list := make([]Recording, 0, len(order))
	for _, o := range order {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		past := byPath[o.path]
		i := slices.IndexFunc(past, func(e pipeline.Event) bool { return e.Data.Call.N == o.n && !e.Data.Call.Failed })
		e := &past[i]
		r, err := model.Conversation(past, o.n)
		if err != nil {
			return nil, fmt.Errorf("step %s: %w", o.path, err)
		}
		a := model.Recorded(e)
		if a == nil {
			continue
		}
		c := e.Data.Call
		list = append(list, Recording{
			Key: KeyOf(r), Step: o.path, Agent: c.Agent, Turn: int(c.Turn), Param: c.Param, Phase: c.Phase, Model: e.Data.Model,
			Request: r, Answer: a,
		})
	}
	return list, nil
}
