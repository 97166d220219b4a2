package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// compile measures how long a pipeline of 1,000 steps takes from text to plan:
// the median of 15, each step with a condition, two templates and a reference to
// the step before.
func compile(r *report) error {
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
	var b strings.Builder
	b.WriteString("id: compile-bench\ninputs: {topic: string, depth: 3}\nsteps:\n")
	b.WriteString("  - {id: s0, action: debug, parameters: {value: 1}}\n")
	for i := 1; i < 1000; i++ {
		fmt.Fprintf(&b, "  - id: s%d\n    action: debug\n    condition: \"{{ inputs.depth > 1 and s%d is defined }}\"\n", i, i-1)
		fmt.Fprintf(&b, "    parameters:\n      message: \"step %d of {{ inputs.topic | upper }}\"\n      value: \"{{ s%d }}\"\n", i, i-1)
	}
	src := spec.Source{File: "compile-bench.yaml", Text: []byte(b.String())}
	var times []time.Duration
	for range 15 {
		began := time.Now()
		if _, _, err := spec.Compile(src, catalog); err != nil {
			return err
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	r.atMost("compile of a pipeline of 1,000 steps", times[len(times)/2].Seconds()*1e3, "ms", 50)
	return nil
}
