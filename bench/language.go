package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// language measures, in this process, how long pipelines take from text to plan
// and how many expressions are evaluated.
func (b *bench) language(context.Context) error {
	ms, _, err := compile(rich(1000), 15)
	if err != nil {
		return err
	}
	b.atMost("compile of a pipeline of 1,000 steps", ms, "ms", 50)
	for _, p := range []struct {
		name, source string
	}{
		{"simple", wide(10_000)},
		{"rich", rich(10_000)},
	} {
		ms, mib, err := compile(p.source, 5)
		if err != nil {
			return err
		}
		b.atMost("compile of 10,000 "+p.name+" steps, processor time", ms, "ms", 500)
		b.atMost("memory that this allocates", mib, "MiB", 200)
	}
	for _, e := range []struct{ name, source string }{
		{"a path", "{{ inputs.topic.name }}"},
		{"a comparison", "{{ depth >= 3 }}"},
		{"a text with two placeholders", "Find {{ inputs.topic.name }} in {{ depth }} steps."},
	} {
		rate, err := evaluations(e.source)
		if err != nil {
			return err
		}
		b.atLeast("evaluations of "+e.name+", per second of processor time", rate, "1/s", 1e6)
	}
	return nil
}

// rich is a pipeline whose steps have a condition, two templates and a reference
// to the step before.
func rich(n int) string {
	var b strings.Builder
	b.WriteString("id: compile-bench\ninputs: {topic: string, depth: 3}\nsteps:\n")
	b.WriteString("  - {id: s0, action: debug, parameters: {value: 1}}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "  - id: s%d\n    action: debug\n    condition: \"{{ inputs.depth > 1 and s%d is defined }}\"\n", i, i-1)
		fmt.Fprintf(&b, "    parameters:\n      message: \"step %d of {{ inputs.topic | upper }}\"\n      value: \"{{ s%d }}\"\n", i, i-1)
	}
	return b.String()
}

// compile returns the median time of some compilations, in milliseconds of the
// processor, the collector's included, and the MiB that one allocates.
func compile(text string, times int) (ms, mib float64, err error) {
	catalog := pipeline.Catalog{
		Digest: "sha256:bench",
		Actions: map[string]*pipeline.ActionSpec{"debug": {
			Key: "debug", Name: "debug", Effect: pipeline.EffectPure, Returns: pipeline.Type{Kind: "any"},
			Params: []pipeline.Property{
				{Name: "message", Type: pipeline.Type{Kind: "string"}},
				{Name: "value", Type: pipeline.Type{Kind: "any"}},
			},
		}},
	}
	src := spec.Source{File: "compile-bench.yaml", Text: []byte(text)}
	var took []time.Duration
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		began := processorTime()
		if _, _, err := spec.Compile(src, catalog); err != nil {
			return 0, 0, err
		}
		took = append(took, processorTime()-began)
	}
	runtime.ReadMemStats(&after)
	slices.Sort(took)
	return took[times/2].Seconds() * 1e3, float64(after.TotalAlloc-before.TotalAlloc) / float64(times) / (1 << 20), nil
}

// evaluations is how often a template that was compiled once is evaluated in a
// second of the processor.
func evaluations(source string) (perSecond float64, err error) {
	t, err := expr.Compile(source)
	if err != nil {
		return 0, err
	}
	env := &expr.Env{Scope: expr.MapScope{
		"inputs": map[string]any{"topic": map[string]any{"name": "solar power"}}, "depth": int64(3),
	}}
	const n = 2_000_000
	began := processorTime()
	for range n {
		if _, err := t.Eval(env); err != nil {
			return 0, err
		}
	}
	return n / (processorTime() - began).Seconds(), nil
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
