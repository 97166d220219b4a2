package server

import (
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// deaf is a store that hears no bells of other processes.
type deaf struct{ store.Store }

func (deaf) Deaf() bool { return true }

// Promise 6: where no bell comes, whoever watches a run sees it go on, and nobody
// asks once the last viewer has gone.
func TestViewersWithoutBellsAsk(t *testing.T) {
	f := start(t)
	id := f.create()
	h := newHub(deaf{f.st}, f.srv.log, 1<<30, func(*pipeline.Event) {})
	t.Cleanup(func() { close(h.closing) })
	r, err := h.open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	_, rung := r.events.state()
	<-rung // nobody has rung
	seen := 0
	for after := int32(0); seen < 7; {
		gen, _ := r.events.state()
		events, err := r.next(t.Context(), after, gen)
		if err != nil {
			t.Fatal(err)
		}
		if seen == 0 {
			f.engine.steps(id, 0, 3)
		}
		if seen += len(events); len(events) > 0 {
			after = events[len(events)-1].GetSeq()
		}
		_, rung := r.events.state()
		<-rung
	}
	h.release(r)
	if h.look(true) {
		t.Error("it goes on asking for nobody")
	}
}
