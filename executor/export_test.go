package executor

import "github.com/orchestrator-project/orchestrator/pipeline"

// TokenOf is the token of an attempt, whether there is one or not.
func (e *Executor) TokenOf(run pipeline.RunID, path pipeline.Path, attempt int32) AttemptToken {
	return attemptID{Run: run, Path: path, Attempt: attempt, Epoch: 1}.sign(*e.signer.Load())
}
