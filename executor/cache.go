package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const cacheTimeout = 10 * time.Second

// cacheKey names what makes steps equal: what they do and by which code, their
// parameters, or what the step gives in their place, and what they promise.
// Secrets are no part of it.
func (r *runState) cacheKey(ev evaluation, t *pipeline.Task, w *work) (pipeline.Digest, *pipeline.Failure) {
	def := t.Def
	all := map[string]any{"kind": string(def.Kind), "returns": def.Returns, "gives": w.gives, "capture": def.Capture, "file": w.file}
	switch def.Kind {
	case pipeline.KindAction:
		all["action"], all["parameters"] = w.action.Spec, w.shown
	case pipeline.KindSkill:
		code, err := treeDigest(filepath.Join(r.lane.ex.bundleDir(r.prog.plan.Bundle), filepath.FromSlash(def.Skill.Dir)))
		if err != nil {
			return "", pipeline.Failuref(pipeline.CategorySystem, "read the skill %s: %v", def.Skill.Name, err)
		}
		all["skill"], all["parameters"] = code, w.shown
	case pipeline.KindAgent:
		if w.agent == nil {
			all["parameters"] = w.params // a program
			break
		}
		before := map[string]any{}
		for _, s := range ev.scope.Before() { // which its tools may mention
			before[string(s.Path)] = s.Output
		}
		all["agent"], all["parameters"], all["before"], all["inputs"] = def.Agent, w.shown, before, r.m.Run.Inputs
		all["servers"], all["models"] = w.agent.Unit.MCPServers, w.agent.Unit.Models
	default: // commands
		all["parameters"] = w.params
	}
	if def.Needs != nil {
		all["needs"] = def.Needs
	}
	all["env"], all["secrets"] = w.env, def.Secrets
	if def.Cache.Key != nil {
		v, fail := ev.field(def.Cache.Key, "cache.key")
		if fail != nil {
			return "", fail
		}
		delete(all, "parameters")
		delete(all, "env")
		all["key"] = v
	} else {
		consumed := []any{}
		for _, v := range w.consumed {
			consumed = append(consumed, []any{v.Artifact, v.Value, string(v.Blob)})
		}
		all["consumed"] = consumed
	}
	text, err := json.Marshal(all) // maps marshal with sorted keys
	if err != nil {
		return "", pipeline.Failuref(pipeline.CategorySystem, "name the result: %v", err)
	}
	return digestOf([]byte(w.redact.text(string(text)))), nil
}

func digestOf(data []byte) pipeline.Digest {
	sum := sha256.Sum256(data)
	return pipeline.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// treeDigest names the files of a folder.
func treeDigest(dir string) (pipeline.Digest, error) {
	b := pipeline.Bundle{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		b[filepath.ToSlash(name)], err = os.ReadFile(path) //nolint:gosec // of the bundle
		return err
	})
	return b.Digest(), err
}

// cached is the result of an equal step that is still good here: it is as
// promised, and the files that it names are there as they were then.
func (j *job) cached() (output any, ok bool) {
	ctx, cancel := context.WithTimeout(j.r.lane.ex.work, cacheTimeout)
	defer cancel()
	data, _, err := j.r.lane.ex.cfg.Cache.Cached(ctx, j.cacheAs)
	if err != nil {
		j.r.lane.ex.log.Warn("cached result not read", "run", j.env.Run, "step", j.env.Path, "err", err)
	}
	if err != nil || data == nil {
		return nil, false
	}
	v, err := pipeline.DecodeValue(data)
	if err != nil {
		return nil, false
	}
	m, _ := v.(map[string]any)
	files, _ := m["files"].(map[string]any)
	for name, digest := range files {
		if content, err := readWithin(j.env.Workspace, name); err != nil || string(digestOf(content)) != digest {
			return nil, false
		}
	}
	if output, fail := j.checked(m["output"]); fail == nil {
		return output, true
	}
	return nil, false
}

// keepResult keeps the result of the attempt for equal steps. Results that name
// folders or large files are not kept: nobody could tell whether they are as
// they were.
func (j *job) keepResult(ctx context.Context, output any) {
	files := map[string]any{}
	good := true
	note := func(_ *pipeline.Type, name, _ string) {
		content, err := readWithin(j.env.Workspace, name)
		switch {
		case err == nil:
			files[name] = string(digestOf(content))
		case !errors.Is(err, fs.ErrNotExist):
			good = false
		}
	}
	for _, t := range j.promised() {
		eachPath(t, output, "", note)
	}
	for i := range j.task.Def.Publish {
		p := &j.task.Def.Publish[i]
		if v, ok := fieldOf(output, p.From); ok && j.work.artifacts[p.Artifact] != nil {
			eachPath(j.work.artifacts[p.Artifact], v, "", note)
		}
	}
	if !good {
		return
	}
	ttl := j.task.Def.Cache.TTL
	if ttl <= 0 {
		ttl = j.r.lane.ex.cfg.CacheTTL
	}
	value := pipeline.EncodeValue(map[string]any{"output": j.work.redact.value(output), "files": files})
	if err := j.r.lane.ex.cfg.Cache.PutCached(ctx, j.cacheAs, value, ttl); err != nil {
		j.r.lane.ex.log.Warn("result not cached", "run", j.env.Run, "step", j.env.Path, "err", err)
	}
}

// reuse ends a step with the result of an equal one: nothing is launched.
func (r *runState) reuse(t *pipeline.Task, j *job, output any) (func() bool, *pipeline.Failure) {
	ctx, cancel := context.WithTimeout(r.lane.ex.work, blobTimeout)
	defer cancel()
	published, fail := j.publish(ctx, output)
	if fail != nil {
		return nil, fail
	}
	d := pipeline.Data{
		Kind: t.Def.Kind, Action: j.work.key, Parameters: j.work.redact.value(j.work.shown),
		Status: pipeline.StepCompleted, Output: output, Cached: true, Given: j.work.beyond(r.run.ID, t.Def),
	}
	d = r.withState(t, d)
	return func() bool {
		if len(j.work.consumed) > 0 {
			r.record(pipeline.StepStarted, t.Path, t.Attempt, pipeline.Data{
				Kind: d.Kind, Action: d.Action, Parameters: d.Parameters, Consumed: j.work.consumed,
			})
		}
		if d.Status == pipeline.StepCompleted {
			d.Published = r.numbered(published)
		}
		r.record(pipeline.StepFinished, t.Path, t.Attempt, d)
		return false
	}, nil
}
