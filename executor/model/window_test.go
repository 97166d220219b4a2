package model

import (
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestWindowIsOfTheModelBehindTheName(t *testing.T) {
	g := BuiltIn()
	u := &pipeline.Unit{Models: []pipeline.ModelAlias{{Name: "fast", Model: "claude-haiku-4-5"}}}
	for _, c := range []struct {
		unit *pipeline.Unit
		name string
		want int64
	}{{u, "fast", 200_000}, {u, "claude-sonnet-4-5", 200_000}, {nil, "fast", 0}, {u, "", 0}} {
		if got := g.Window(c.unit, c.name); got != c.want {
			t.Errorf("%q: %d, want %d", c.name, got, c.want)
		}
	}
}
