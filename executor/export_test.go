package executor

import (
	"encoding/json"
	"errors"
	"os"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// TokenOf is the token of an attempt, whether there is one or not.
func (e *Executor) TokenOf(run pipeline.RunID, path pipeline.Path, attempt int32) AttemptToken {
	return attemptID{Run: run, Path: path, Attempt: attempt, Epoch: 1}.sign(*e.signer.Load())
}

// DigestOf names a content.
var DigestOf = digestOf

// RestoreFiles restores what a list of files names into a folder.
func RestoreFiles(list []byte, dir string, get func(pipeline.Digest) ([]byte, error)) error {
	m := &manifest{}
	if err := json.Unmarshal(list, m); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	return errors.Join(m.unpack(root, get), root.Close())
}
