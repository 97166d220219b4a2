package executor

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// The reasons of steps whose artifacts are not there, or not new.
const (
	reasonMissing = "artifact_missing"
	reasonStale   = "artifact_stale"
)

// How an artifact is handed over.
const (
	asContent = "content"
	asNone    = "none" // only its version is recorded
	freshNew  = "new"
)

const (
	maxHanded   = 96 << 10 // bytes of a variable of the environment
	blobTimeout = time.Minute
)

// handed is an artifact as a step is given it.
type handed struct {
	version pipeline.Version
	content string // of as: content
	whole   bool   // its content is asked for
}

// consume finds the artifacts that a step is to be handed, before anything is
// launched.
func (r *runState) consume(t *pipeline.Task, w *work) *pipeline.Failure {
	for i := range t.Def.Consume {
		c := &t.Def.Consume[i]
		v, fail := r.newest(t.Path, c)
		if fail != nil {
			return fail
		}
		w.consumed = append(w.consumed, *v)
		h := handed{version: *v, whole: c.As == asContent}
		if h.whole {
			if h.content, fail = r.contentOf(v); fail != nil {
				return fail
			}
		}
		if c.As != asNone {
			w.handed = append(w.handed, h)
		}
	}
	if len(w.handed) == 0 {
		return nil
	}
	text := pipeline.EncodeValue(handedOver(w.handed))
	if len(text) > maxHanded {
		if t.Def.Kind != pipeline.KindCommand && t.Def.Kind != pipeline.KindSkill {
			return nil // it is in the prompt
		}
		return pipeline.Failuref(pipeline.CategoryContract, "the artifacts that this step consumes are larger than %d KiB together; hand them over by reference", maxHanded>>10)
	}
	w.vars = withVar(w.vars, "ORCHESTRATOR_CONSUMED", string(text))
	return nil
}

func withVar(vars map[string]string, name, value string) map[string]string {
	if vars == nil {
		vars = map[string]string{}
	}
	vars[name] = value
	return vars
}

// newest is the newest version that a step may be handed.
func (r *runState) newest(at pipeline.Path, c *pipeline.Consume) (*pipeline.Version, *pipeline.Failure) {
	versions := r.m.Versions(at, c.Artifact)
	i := len(versions) - 1
	for i >= 0 && len(c.From) > 0 && !slices.Contains(c.From, versions[i].Producer.ID()) {
		i--
	}
	if i < 0 {
		from := ""
		if len(c.From) > 0 {
			from = " of " + strings.Join(c.From, " or ")
		}
		return nil, &pipeline.Failure{
			Kind: pipeline.CategoryContract, Reason: reasonMissing, Line: c.Pos.Line, Column: c.Pos.Column,
			Message: fmt.Sprintf("consume: there is no version of the artifact %s%s yet", c.Artifact, from),
		}
	}
	v := versions[i]
	if before := r.m.ConsumedBy(at, c.Artifact); c.Fresh == freshNew && v.Version <= before {
		return nil, &pipeline.Failure{
			Kind: pipeline.CategoryContract, Reason: reasonStale, Line: c.Pos.Line, Column: c.Pos.Column,
			Message: fmt.Sprintf("consume: the newest version of the artifact %s is %d, which this step has been handed before", c.Artifact, v.Version),
		}
	}
	return &v, nil
}

// contentOf is what a version holds: of a file the text as it was published.
func (r *runState) contentOf(v *pipeline.Version) (string, *pipeline.Failure) {
	if v.Blob == "" {
		return word(v.Value), nil
	}
	ctx, cancel := context.WithTimeout(r.lane.ex.work, blobTimeout)
	defer cancel()
	data, err := r.lane.ex.cfg.Store.Blob(ctx, r.run.ID, v.Blob)
	if err != nil {
		return "", pipeline.Failuref(pipeline.CategorySystem, "read version %d of the artifact %s: %v", v.Version, v.Artifact, err)
	}
	return string(data), nil
}

// handedOver is the value of ORCHESTRATOR_CONSUMED: by artifact its version, its
// producer, its value, which is the path of a file, and its content where that is
// asked for.
func handedOver(list []handed) map[string]any {
	m := map[string]any{}
	for _, h := range list {
		e := map[string]any{"version": int64(h.version.Version), "producer": string(h.version.Producer), "value": h.version.Value}
		if h.whole {
			e["content"] = h.content
		}
		m[h.version.Artifact] = e
	}
	return m
}

// publish makes the versions of artifacts that the result holds. Their numbers
// are given when they are recorded. Files are kept as they are now.
func (j *job) publish(ctx context.Context, result any) ([]pipeline.Version, *pipeline.Failure) {
	var list []pipeline.Version
	for i := range j.task.Def.Publish {
		p := &j.task.Def.Publish[i]
		v, ok := fieldOf(result, p.From)
		if !ok || v == nil {
			if j.sometimes() {
				continue
			}
			return nil, broken("what is published", []spec.Violation{{Path: p.From, Text: "must be in the result, as it is published as " + p.Artifact}})
		}
		t := j.work.artifacts[p.Artifact]
		if t == nil {
			t = &pipeline.Type{Kind: "any"}
		}
		checked, wrong := spec.Conform(t, v)
		if wrong == nil {
			wrong = checkPaths(j.env.Workspace, t, checked)
		}
		if wrong != nil {
			return nil, broken("the artifact "+p.Artifact, wrong)
		}
		version := pipeline.Version{Artifact: p.Artifact, Producer: j.task.Path, Value: j.work.redact.value(checked)}
		if name, is := checked.(string); is && (t.Kind == "path" || t.Kind == "file") {
			if fail := j.keepFile(ctx, name, &version); fail != nil {
				return nil, fail
			}
		}
		list = append(list, version)
	}
	kept, fail := j.keep(ctx)
	return append(list, kept...), fail
}

// maxKept bounds the files that one step's artifacts may name.
const maxKept = 1000

// keep stores the files that the step's artifacts name, each as an artifact of
// the name of its path.
func (j *job) keep(ctx context.Context) ([]pipeline.Version, *pipeline.Failure) {
	var list []pipeline.Version
	for _, pattern := range j.work.kept {
		files, err := evaluation{dir: j.env.Workspace}.listFiles(pattern)
		if err != nil || len(files) == 0 {
			return nil, broken("artifacts", []spec.Violation{{Path: pattern, Text: "matches no file that the step has left"}})
		}
		for _, name := range files {
			name = path.Clean(name)
			if slices.ContainsFunc(list, func(v pipeline.Version) bool { return v.Artifact == name }) {
				continue
			}
			if len(list) == maxKept {
				return nil, broken("artifacts", []spec.Violation{{Path: pattern, Text: fmt.Sprintf("names more than %d files", maxKept)}})
			}
			v := pipeline.Version{Artifact: name, Producer: j.task.Path, Value: name}
			if fail := j.keepFile(ctx, name, &v); fail != nil {
				return nil, fail
			}
			list = append(list, v)
		}
	}
	return list, nil
}

// sometimes reports whether the result has several forms, of which some may lack
// what others publish.
func (j *job) sometimes() bool {
	c := j.task.Def.Returns
	return c != nil && c.Type.Kind == "union"
}

// fieldOf is a field of a result by its dotted name.
func fieldOf(v any, name string) (any, bool) {
	for part := range strings.SplitSeq(name, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[part]; !ok {
			return nil, false
		}
	}
	return v, true
}

// keepFile stores the content of a file of the workspace. Folders, and files that
// are too large, stay in the workspace alone.
func (j *job) keepFile(ctx context.Context, name string, v *pipeline.Version) *pipeline.Failure {
	data, err := readWithin(j.env.Workspace, name)
	if large, ok := errors.AsType[tooLarge](err); ok {
		j.env.Log("system", large.Error()+" and stays in the workspace: it is not kept with the run.\n")
		return nil
	}
	if err != nil {
		return nil //nolint:nilerr // what must exist does; a folder is no content
	}
	data = j.work.redact.bytes(data)
	digest, err := j.r.lane.ex.putBlob(ctx, j.env.Run, data)
	if err != nil {
		if ctx.Err() != nil {
			return asFailure(context.Cause(ctx))
		}
		return pipeline.Failuref(pipeline.CategorySystem, "keep %s with the run: %v", path.Clean(name), err)
	}
	v.Blob, v.Size = digest, int64(len(data))
	return nil
}

// numbered gives the versions their numbers.
func (r *runState) numbered(list []pipeline.Version) []pipeline.Version {
	for i := range list {
		v := &list[i]
		v.Version = int32(len(r.m.Versions(v.Producer, v.Artifact))) + 1 //nolint:gosec // versions of one run
	}
	return list
}
