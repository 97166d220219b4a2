package executor_test

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestEqualStepsNeedNotRunAgain(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			dir := t.TempDir()
			e := start(t, s, troubled, inBundles(t), func(c *executor.Config) { c.Workspace = dir })
			launched := func() int {
				data, err := os.ReadFile(filepath.Join(dir, "launched"))
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				return len(data)
			}
			// run tells whether the step a was taken from an equal one.
			run := func(src string, files map[string]string, inputs map[string]any) (bool, *pipeline.View) {
				t.Helper()
				before := launched()
				r, v := e.wait(e.enter(e.packed(src, files, inputs)))
				if r.Status != pipeline.RunCompleted {
					t.Fatalf("%s: %v", src, r.Error)
				}
				if hit := v.Step("a").CacheHit; hit == (launched() > before) {
					t.Fatalf("%s: cached %v, but launched %d after %d", src, hit, launched(), before)
				}
				return v.Step("a").CacheHit, v
			}
			want := func(src string, hit bool, inputs map[string]any) {
				t.Helper()
				if got, _ := run(src, nil, inputs); got != hit {
					t.Errorf("%s with %v: cached %v", src, inputs, got)
				}
			}
			plain := "inputs: {x: 1}\nsteps:\n- {id: a, run: 'printf . >>launched; echo {{ x }}', cache: true, state: {y: '{{ a }}'}}\noutputs: {y: '{{ y }}'}"
			want(plain, false, nil)
			if hit, v := run(plain, nil, nil); !hit || v.Run.Outputs["y"] != "1" {
				t.Errorf("cached %v, outputs %v", hit, v.Run.Outputs)
			}
			want(plain, false, map[string]any{"x": int64(2)})

			keyed := "inputs: {x: 1, k: a}\nsteps:\n- {id: a, run: 'printf . >>launched; echo {{ x }}', cache: {key: '{{ k }}', ttl: 1h}}"
			want(keyed, false, nil)
			want(keyed, true, map[string]any{"x": int64(9)})
			want(keyed, false, map[string]any{"k": "b"})

			once := "steps:\n- {id: a, run: 'printf . >>launched; echo once', cache: true, effect: at_most_once}"
			want(once, false, nil)
			want(once, false, nil)

			env := "inputs: {x: 1}\nsteps:\n- {id: a, run: 'printf . >>launched', cache: true, env: {X: '{{ x }}'}}"
			want(env, false, nil)
			want(env, true, nil)
			want(env, false, map[string]any{"x": int64(2)})

			file := "artifacts: {f: {type: path}}\nsteps:\n- {id: a, run: 'printf . >>launched; echo content >made; echo ''{\"f\": \"made\"}''', cache: true, returns: {f: {type: path, must_exist: true}}, publish: {artifact: f, from: f}}\n" +
				"- {id: b, needs: a, run: 'printf \"%s\" \"$ORCHESTRATOR_CONSUMED\"', consume: {artifact: f, as: content}, capture: json}\noutputs: {c: '{{ b.f.content }}'}"
			want(file, false, nil)
			if hit, v := run(file, nil, nil); !hit || v.Run.Outputs["c"] != "content\n" {
				t.Errorf("cached %v, outputs %v", hit, v.Run.Outputs)
			}
			if err := os.WriteFile(filepath.Join(dir, "made"), []byte("other"), 0o600); err != nil {
				t.Fatal(err)
			}
			want(file, false, nil)
			if err := os.Remove(filepath.Join(dir, "made")); err != nil {
				t.Fatal(err)
			}
			want(file, false, nil)

			use := "steps:\n- {id: a, skill: s, with: {x: 1}, cache: true}"
			skill := func(more string) map[string]string {
				return map[string]string{"skills/s/SKILL.md": "---\nname: s\ndescription: d\nrun: 'printf . >>launched; cat'\n---\n", "skills/s/more": more}
			}
			for i, hit := range []bool{false, true, false} {
				if got, _ := run(use, skill([]string{"a", "a", "b"}[i]), nil); got != hit {
					t.Errorf("skill %d: cached %v", i, got)
				}
			}

			failing := "steps:\n- {id: a, run: 'printf . >>launched; exit 1', cache: true, on_failure: skip}"
			want(failing, false, nil)
			want(failing, false, nil)
		})
	}
}

// told is an agent that answers with what it was told, and counts.
type told struct{ count *atomic.Int32 }

func (a told) Run(_ context.Context, env executor.Env) (executor.Output, error) {
	a.count.Add(1)
	return executor.Output{Value: env.Agent.Instructions + env.Agent.Prompt}, nil
}

func TestEqualAgentsNeedNotRunAgain(t *testing.T) {
	var count atomic.Int32
	e := start(t, storetest.Open(t), troubled, func(c *executor.Config) {
		c.Agent = executor.Action{
			Spec: pipeline.ActionSpec{Key: pipeline.AgentAction, Effect: pipeline.EffectAtLeastOnce}, Journal: true,
			Bind: func(map[string]any) (executor.Runner, error) { return told{&count}, nil },
		}
	})
	src := "inputs: {x: {type: string}}\nagents: {a: {model: m, instructions: 'Say '}}\nsteps:\n- {id: s, agent: a, prompt: '{{ inputs.x }}', cache: true}\noutputs: {v: '{{ s }}'}"
	for _, c := range []struct {
		x    string
		runs int32
	}{{"one", 1}, {"two", 2}, {"one", 2}} {
		run, _ := e.wait(e.submit(src, map[string]any{"x": c.x}))
		if run.Outputs["v"] != "Say "+c.x && run.Outputs["v"] != "Say"+c.x || count.Load() != c.runs {
			t.Errorf("%s: %v (%v) after %d runs of the agent", c.x, run.Outputs, run.Error, count.Load())
		}
	}
}
