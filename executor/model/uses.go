package model

import (
	"context"
	"sync"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Uses counts how often each rule of a scripted provider has answered within a
// run. It is safe for concurrent use. nil counts nothing and has every rule
// unused.
type Uses struct {
	past func(ctx context.Context, each func(pipeline.Event)) error

	mu   sync.Mutex
	read bool
	n    map[string]int
}

// UsesOf are those of the run that env belongs to, over all of its steps. What
// was used before this process took the run is read from its log, from
// Invocation.Rules of the events model_called, when a rule that has a number of
// uses first asks. Outside of a run they begin with none.
func UsesOf(env executor.Env) *Uses {
	if env.Tenure == nil {
		return &Uses{}
	}
	type key struct{}
	u, _ := env.Tenure.Keep(key{}, func() any { return &Uses{past: env.Tenure.Past} }).(*Uses)
	return u
}

// Take uses the rule once more, if it was used less often than most times. The
// error is that of reading the log.
func (u *Uses) Take(ctx context.Context, rule string, most int) (bool, error) {
	if u == nil {
		return true, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.read {
		n := map[string]int{}
		if u.past != nil {
			err := u.past(ctx, func(e pipeline.Event) {
				if e.Data.Call != nil && e.Type == pipeline.ModelCalled {
					for _, r := range e.Data.Call.Rules {
						n[r]++
					}
				}
			})
			if err != nil {
				return false, err
			}
		}
		u.n, u.read = n, true
	}
	if u.n[rule] >= most {
		return false, nil
	}
	u.n[rule]++
	return true, nil
}
