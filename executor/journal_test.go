package executor_test

import (
	"context"
	"errors"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func finishedCall(n int32, key pipeline.Digest, response any) pipeline.Event {
	return pipeline.Event{Type: pipeline.ModelCalled, Data: pipeline.Data{Call: &pipeline.Invocation{
		N: n, Key: key, State: pipeline.InvocationFinished, Response: response,
	}}}
}

func TestJournalGivesEachRecordedCallOnce(t *testing.T) {
	j := executor.NewJournal([]pipeline.Event{finishedCall(1, "a", "first"), finishedCall(2, "b", "other"), finishedCall(5, "a", "second")}, nil)
	for _, want := range []string{"first", "second"} {
		e := j.Take(pipeline.ModelCalled, "a")
		if e == nil || e.Data.Call.Response != want {
			t.Fatalf("got %+v, want %s", e, want)
		}
	}
	if e := j.Take(pipeline.ModelCalled, "a"); e != nil {
		t.Errorf("a third call of the key was never recorded: %+v", e)
	}
	if e := j.Take(pipeline.ToolCalled, "b"); e != nil {
		t.Errorf("the call of that key was of a model: %+v", e)
	}
	if n := j.Next(); n != 6 {
		t.Errorf("the next number is %d, want 6", n)
	}
}

func TestJournalAskEndsWithItsContext(t *testing.T) {
	boom := errors.New("boom")
	ctx, cancel := context.WithCancelCause(t.Context())
	asked := make(chan struct{})
	j := executor.NewJournal(nil, func(context.Context, []*pipeline.Approval, []pipeline.Event) error { close(asked); return nil })
	go func() { <-asked; cancel(boom) }()
	if _, err := j.Ask(ctx, &pipeline.Approval{ID: "x"}, pipeline.Invocation{N: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
