package executor

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// ledgerTail is how much of a ledger's end is searched for an entry that an
// earlier owner of the run has already made.
const ledgerTail = 256 << 10

// enter adds a line about a contest to its ledger. After a crash the line may
// already be there; it is then not added again.
func (r *runState) enter(t *pipeline.Task) *pipeline.Failure {
	ev := r.evaluation(r.m.Scope(t.Path))
	name, fail := ev.text(t.Def.Compete.Ledger, "compete.ledger")
	if fail != nil {
		return fail
	}
	if name, err := ev.local(name); err != nil {
		return pipeline.Failuref(pipeline.CategoryValidation, "compete.ledger: %v", err)
	} else if err := r.addLine(name, t); err != nil {
		return pipeline.Failuref(pipeline.CategorySystem, "compete.ledger: %v", err)
	}
	return nil
}

func (r *runState) addLine(name string, t *pipeline.Task) error {
	root, err := os.OpenRoot(r.workspace)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := root.MkdirAll(filepath.FromSlash(path.Dir(name)), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	key := pipeline.EncodeValue(string(r.run.ID) + "/" + string(t.Path))
	known, err := entered(f, append([]byte(`"key":`), key...))
	if err == nil && !known {
		line := map[string]any{"key": string(r.run.ID) + "/" + string(t.Path), "at": r.lane.ex.cfg.Now().UTC().Format(time.RFC3339)}
		if result, ok := t.Output.(map[string]any); ok {
			maps.Copy(line, result)
		}
		_, err = f.Write(append(pipeline.EncodeValue(line), '\n'))
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	return err
}

// entered reports whether the end of a ledger holds that text.
func entered(f *os.File, text []byte) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	from := max(0, info.Size()-ledgerTail)
	b, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	return bytes.Contains(b, text), err
}
