package spec_test

import (
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

func TestCheckpointSetting(t *testing.T) {
	for text, want := range map[string]struct {
		word  string
		every int
		bad   bool
	}{
		"settings: {}":                                {},
		"settings: {checkpoint: adaptive}":            {},
		"settings: {checkpoint: fixed}":               {word: "fixed"},
		"settings: {checkpoint: {fixed: 250}}":        {word: "fixed", every: 250},
		"settings: {checkpoint: none}":                {word: "none"},
		"context: {checkpoint_strategy: {fixed: 9}}":  {word: "fixed", every: 9},
		"settings: {checkpoint: {fixed: 0}}":          {bad: true},
		"settings: {checkpoint: {}}":                  {bad: true},
		"settings: {checkpoint: {adaptive: 5}}":       {bad: true},
		"settings: {checkpoint: [fixed]}":             {bad: true},
		"settings: {checkpoint: sometimes}":           {bad: true},
		"settings: {checkpoint: {fixed: 5, more: 1}}": {bad: true},
	} {
		plan, _, err := spec.Compile(spec.Source{File: "p.yaml", Text: []byte("steps: [{id: a, set: {x: 1}}]\n" + text)}, pipeline.Catalog{})
		if want.bad {
			if err == nil {
				t.Errorf("%s is accepted", text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		compiled, _, err := spec.EncodePlan(plan)
		if err != nil {
			t.Fatal(err)
		}
		if plan, err = spec.DecodePlan(compiled); err != nil {
			t.Fatal(err)
		}
		if s := plan.Settings; s.Checkpoint != want.word || s.CheckpointEvery != want.every {
			t.Errorf("%s: %q, %d", text, s.Checkpoint, s.CheckpointEvery)
		}
	}
}
