package model

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// TestKeysDoNotDependOnWhatWasAskedBefore: parts that a conversation's requests have
// in common are not read again, and their keys are those of requests that stand alone.
func TestKeysDoNotDependOnWhatWasAskedBefore(t *testing.T) {
	schemas := []map[string]any{nil, {"type": "object"}, {"type": "object"}, {"type": "string"}}
	temperatures := []*float64{nil, new(0.5), new(0.7)}
	rapid.Check(t, func(rt *rapid.T) {
		one := &talk{}
		q := Request{}
		for range rapid.IntRange(1, 12).Draw(rt, "requests") {
			text := func(name string) string { return rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, name) }
			schema := func(name string) map[string]any { return rapid.SampledFrom(schemas).Draw(rt, name) }
			next := q // most of it stays
			switch rapid.IntRange(0, 7).Draw(rt, "change") {
			case 0:
				next.System, next.Model = text("system"), text("model")
			case 1:
				next.Tools = append(slices.Clip(next.Tools), ToolDef{Name: text("tool"), Description: text("does"), Schema: schema("arguments")})
			case 2:
				next.Tools = []ToolDef{{Name: text("tool"), Schema: schema("arguments")}}
			case 3:
				next.Schema, next.Expected = schema("schema"), schema("expected")
			case 4:
				next.Choice, next.Effort, next.MaxTokens = text("choice"), text("effort"), int64(rapid.IntRange(0, 2).Draw(rt, "tokens"))
			case 5:
				next.Temperature = rapid.SampledFrom(temperatures).Draw(rt, "temperature")
			case 6:
				next.Needs = &pipeline.Needs{Tasks: []string{text("task")}}
			default:
				next.Turn++
				next.Messages = append(slices.Clip(next.Messages), UserText(text("said")))
			}
			q = next
			asked := next
			fresh := &talk{}
			of, size := one.frame(&asked)
			alone, measured := fresh.frame(&asked)
			got, want := keyOf(&asked, of, one.digest(asked.Messages)), keyOf(&asked, alone, fresh.digest(asked.Messages))
			if got != want || size != measured {
				rt.Fatalf("%+v: key %s, size %d; alone %s, %d", asked, got, size, want, measured)
			}
		}
	})
}

// TestKeysStay: what runs have recorded is found again by later versions.
func TestKeysStay(t *testing.T) {
	warm := 0.5
	q := &Request{
		System: "Be short.", Model: "m", Choice: "auto", Temperature: &warm, Agent: "a", Turn: 2, Phase: PhaseTurn, Needs: &pipeline.Needs{Tasks: []string{"general"}},
		Tools: []ToolDef{{Name: "t", Description: "works", Schema: map[string]any{"type": "object"}}}, Messages: []Message{UserText("hello"), AssistantText("yes")},
	}
	one := &talk{}
	of, _ := one.frame(q)
	if got := fmt.Sprint(keyOf(q, of, one.digest(q.Messages))); got != "sha256:f04de12b1d6b3d853036fc38323ac5d535524bdbf4d0fa9be680010a56ce82cd" {
		t.Errorf("the key is %s", got)
	}
}
