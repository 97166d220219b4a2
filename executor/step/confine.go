package step

import (
	"context"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// confined starts programs locked in, as want says. They can read the bundle and
// the given folders. The log tells what holds for them.
func confined(env executor.Env, set *sandbox.Set, want *pipeline.Sandbox, image string, readable ...string) starter {
	return func(ctx context.Context, s sandbox.Spec, p sandbox.Program) (sandbox.Running, error) {
		s.Readable, s.Image = readable, image
		if env.Bundle != "" {
			s.Readable = append(s.Readable, env.Bundle)
		}
		r, err := set.Start(ctx, want, s, p)
		if err != nil {
			return nil, err
		}
		env.Log("system", "Sandbox "+r.Level().String()+".\n")
		return r, nil
	}
}
