//go:build !linux

package process

import (
	"context"
	"errors"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

type rung struct{}

var errLinux = errors.New("bubblewrap is for Linux; here programs can be locked in by docker")

// Probe finds none.
func (*Driver) Probe(context.Context) (sandbox.Level, error) { return sandbox.Level{}, errLinux }

// Start fails.
func (*Driver) Start(context.Context, sandbox.Spec, sandbox.Program) (sandbox.Running, error) {
	f := pipeline.Failuref(pipeline.CategorySystem, "%v", errLinux)
	f.Reason = sandbox.ReasonNone
	return nil, f
}
