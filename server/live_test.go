package server

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// A piece is on a viewer's stream before anything of its call is recorded, and
// nothing of it comes after the record.
func TestPiecesComeBeforeTheirRecord(t *testing.T) {
	f := start(t)
	id := f.create()
	f.engine.add(id, pipeline.Event{Type: pipeline.StepStarted, Path: "a", Attempt: 1, Data: pipeline.Data{Kind: pipeline.KindAgent, Action: pipeline.AgentAction}})
	w := f.watch(t.Context(), id, 0)
	w.until(3)
	show := func(d pipeline.Delta) {
		f.st.Show(store.Shown{Run: id, Path: "a", Attempt: 1, Delta: d})
	}
	show(pipeline.Delta{Call: 1, Agent: "writer", Kind: "text", Text: "Hel"})
	e, err := w.stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	data := object(t, e.GetData())
	if e.GetType() != "delta" || e.GetSeq() != 0 || e.GetPath() != "a" || data["text"] != "Hel" || data["kind"] != "text" || data["agent"] != "writer" {
		t.Errorf("the first piece: %v", e)
	}
	show(pipeline.Delta{Call: 1, Agent: "writer", Kind: "text", Text: "lo"})
	f.engine.add(id, pipeline.Event{Type: pipeline.ModelCalled, Path: "a", Attempt: 1, Data: pipeline.Data{
		Model: "fast", Usage: &pipeline.Usage{InputTokens: 7, OutputTokens: 2, CostUSD: 0.5},
		Call: &pipeline.Invocation{N: 1, State: pipeline.InvocationFinished, Agent: "writer", Response: map[string]any{"stop": "end"}},
	}})
	var seen strings.Builder
	for {
		if e, err = w.stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if e.GetSeq() != 0 {
			break
		}
		text, _ := object(t, e.GetData())["text"].(string)
		seen.WriteString(text)
	}
	if seen.String() != "lo" || e.GetType() != "model_called" {
		t.Errorf("before the record came %q, then %s", seen.String(), e.GetType())
	}
	data = object(t, e.GetData())
	step, _ := data["step"].(map[string]any)
	usage, _ := step["usage"].(map[string]any)
	if data["model"] != "fast" || data["usage"] == nil || step["status"] != "RUNNING" || usage["output_tokens"] == nil || usage["cost_usd"] == nil {
		t.Errorf("the record lacks the call's figures or the whole step: %s", e.GetData())
	}
	f.engine.finish(id)
	if e, err = w.stream.Recv(); err != nil || e.GetType() != "run_finished" {
		t.Errorf("the last event: %v, %v", e, err)
	}
}

func TestAViewerThatDoesNotReadLosesTheOldest(t *testing.T) {
	l := newLooker()
	text := func(call int32, text string) {
		l.add(store.Shown{Path: "a", Delta: pipeline.Delta{Call: call, Kind: "text", Text: text}})
	}
	text(1, "first")
	for range 1000 {
		text(2, strings.Repeat("x", 1000))
	}
	text(3, "la")
	text(3, "st")
	events := l.take()
	size := 0
	for _, e := range events {
		size += len(e.GetData())
	}
	if size > 2*maxLive || strings.Contains(events[0].GetData(), "first") {
		t.Errorf("%d bytes in %d pieces wait, the oldest is %.80s", size, len(events), events[0].GetData())
	}
	if last := events[len(events)-1]; !strings.Contains(last.GetData(), `"text":"last"`) {
		t.Errorf("the newest piece is %s", last.GetData())
	}
	if len(l.take()) != 0 {
		t.Error("something is taken twice")
	}
}
