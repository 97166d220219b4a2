package tool_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// blobs keeps content in memory.
type blobs struct {
	mu      sync.Mutex
	by      map[pipeline.Digest][]byte
	largest int
	size    int
}

func (b *blobs) PutBlob(_ context.Context, run pipeline.RunID, data []byte) (pipeline.Digest, error) {
	sum := sha256.Sum256(data)
	d := pipeline.Digest("sha256:" + hex.EncodeToString(sum[:]))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.largest, b.size = max(b.largest, len(data)), b.size+len(data)
	if b.by == nil {
		b.by = map[pipeline.Digest][]byte{}
	}
	b.by[pipeline.Digest(run)+d] = append([]byte(nil), data...)
	return d, nil
}

func (b *blobs) Blob(_ context.Context, run pipeline.RunID, d pipeline.Digest) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.by[pipeline.Digest(run)+d]
	if !ok {
		return nil, &pipeline.Error{Kind: pipeline.NotFound, Text: "no such content"}
	}
	return data, nil
}

// config has all that tools need, with the host in the place of a sandbox.
func config(kept *blobs) tool.Config {
	set := &sandbox.Set{Drivers: []sandbox.Driver{sandbox.Host{}}}
	return tool.Config{Actions: step.All(step.Config{Sandbox: set}), Sandbox: set, Results: kept}
}

func environment(t *testing.T) executor.Env {
	t.Helper()
	return executor.Env{
		Run: "run-1", Path: "agent", Attempt: 1, Workspace: t.TempDir(), Environ: []string{"PATH=/usr/bin:/bin"},
		Log:    func(string, string) {},
		Redact: func(s string) string { return strings.ReplaceAll(s, "hunter2hunter2", "[secret PASSWORD]") },
	}
}

// text evaluates a field as the engine does.
func text(f *pipeline.Field, more map[string]any) (any, error) {
	switch {
	case f.Template != nil:
		t, err := expr.Compile(f.Template.Src)
		if err != nil {
			return nil, err
		}
		return t.Eval(&expr.Env{Scope: expr.MapScope(more)})
	case f.Map != nil:
		m := map[string]any{}
		for i := range f.Map {
			v, err := text(&f.Map[i].Value, more)
			if err != nil {
				return nil, err
			}
			m[f.Map[i].Name] = v
		}
		return m, nil
	}
	return f.Const, nil
}

func template(src string) pipeline.Field {
	return pipeline.Field{Template: &pipeline.Template{Src: src}}
}

// want is what an agent with these tools is to get.
func want(tools ...pipeline.Tool) tool.Want {
	return tool.Want{
		Agent: &pipeline.Agent{Name: "worker", Tools: tools}, Unit: &pipeline.Unit{}, Text: text,
		Secret: func(name string) (string, bool) {
			v, ok := map[string]string{"PASSWORD": "hunter2hunter2"}[name]
			return v, ok
		},
	}
}

func open(t *testing.T, cfg tool.Config, env executor.Env, w tool.Want) tool.Box {
	t.Helper()
	box, err := tool.New(cfg).Open(t.Context(), env, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	return box
}

// call calls a tool as the loop does: the arguments are held against its schema.
func call(t *testing.T, box tool.Box, env executor.Env, name, arguments string, change ...func(*tool.Call)) (string, tool.Result) {
	t.Helper()
	found := box.Find(name)
	if found == nil {
		t.Fatalf("there is no tool %s", name)
	}
	args, wrong := tool.Check(found, arguments)
	if wrong != nil {
		t.Fatalf("%s %s: %v", name, arguments, wrong)
	}
	c := tool.Call{N: 1, ID: "c1", Arguments: args, Key: "run-1/agent#1"}
	for _, f := range change {
		f(&c)
	}
	r, err := found.Run(t.Context(), env, c)
	if err != nil {
		t.Fatalf("%s %s: %v", name, arguments, err)
	}
	var out strings.Builder
	for _, b := range r.Content {
		out.WriteString(b.Text)
		if b.Media != nil {
			fmt.Fprintf(&out, "[%s %s %d]", b.Kind, b.Media.Type, len(b.Media.Data))
		}
	}
	return out.String(), r
}

func names(tools []tool.Tool) string {
	var list []string
	for _, t := range tools {
		list = append(list, t.Name)
	}
	return strings.Join(list, " ")
}
