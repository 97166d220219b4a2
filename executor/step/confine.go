package step

import (
	"context"
	"errors"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// reasonNoSandbox is the reason of a step that cannot be locked in here.
const reasonNoSandbox = "no_sandbox"

// confined is the command line that runs a program locked in, as the step says,
// or as usual where it says nothing. The program can read the bundle and the
// given folders. noSandbox makes a failure of the error.
func confined(ctx context.Context, env executor.Env, driver sandbox.Bubblewrap, argv []string, readable ...string) ([]string, error) {
	s := sandbox.Spec{Workspace: env.Workspace, Readable: readable}
	if env.Bundle != "" {
		s.Readable = append(s.Readable, env.Bundle)
	}
	if x := env.Sandbox; x != nil {
		if x.Driver != "" && x.Driver != sandbox.Name {
			f := invalid("there is no sandbox %s; this server has %s", x.Driver, sandbox.Name)
			f.Reason = reasonNoSandbox
			return nil, f
		}
		s.Network, s.Memory, s.Pids, s.CPU = x.Network, x.Memory, x.Pids, x.CPU
	}
	return driver.Wrap(ctx, s, argv)
}

// noSandbox is the failure of a step that must be locked in and cannot be.
func noSandbox(err error) *pipeline.Failure {
	if f, ok := errors.AsType[*pipeline.Failure](err); ok {
		return f
	}
	f := pipeline.Failuref(pipeline.CategorySystem, "sandbox: required, but there is none: %v; install bubblewrap, or let the step run without", err)
	f.Reason = reasonNoSandbox
	return f
}
