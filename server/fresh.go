package server

import (
	"container/list"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// fresh keeps the events of runs that were created in this process and that
// nobody has looked at yet: whoever submits a run mostly watches it at once,
// and then needs nothing from the store. The oldest runs are forgotten first.
// It is guarded by the hub's mutex.
type fresh struct {
	limit int64
	bytes int64
	runs  map[pipeline.RunID]*list.Element
	order list.List // of *freshRun, newest first
}

type freshRun struct {
	run    *pipeline.Run
	events [][]pipeline.Event // as they were committed
	bytes  int64
}

func newFresh(limit int64) fresh {
	return fresh{limit: limit, runs: map[pipeline.RunID]*list.Element{}}
}

// add takes a run that was just created.
func (f *fresh) add(run *pipeline.Run) {
	f.runs[run.ID] = f.order.PushFront(&freshRun{run: run, bytes: runBytes})
	f.bytes += runBytes
}

// append takes the next events of a run, if it is kept.
func (f *fresh) append(id pipeline.RunID, events []pipeline.Event) {
	el := f.runs[id]
	if el == nil {
		return
	}
	r, _ := el.Value.(*freshRun)
	r.events = append(r.events, events)
	var n int64
	for i := range events {
		d := &events[i].Data
		n += eventBytes + weight(d.Parameters) + weight(d.Output) + weight(d.Items) + weight(d.State) + weight(d.Outputs)
	}
	r.bytes += n
	f.bytes += n
	for f.bytes > f.limit && f.order.Len() > 0 {
		oldest, _ := f.order.Back().Value.(*freshRun)
		f.drop(oldest.run.ID)
	}
}

// take gives a run's events away.
func (f *fresh) take(id pipeline.RunID) (*pipeline.Run, []pipeline.Event, bool) {
	r := f.drop(id)
	if r == nil {
		return nil, nil, false
	}
	return r.run, slices.Concat(r.events...), true
}

// drop forgets a run and returns what was kept of it, or nil.
func (f *fresh) drop(id pipeline.RunID) *freshRun {
	el := f.runs[id]
	if el == nil {
		return nil
	}
	delete(f.runs, id)
	r, _ := f.order.Remove(el).(*freshRun)
	f.bytes -= r.bytes
	return r
}

// weight is about how many bytes a value takes in memory.
func weight(v any) int64 {
	switch v := v.(type) {
	case string:
		return int64(len(v)) + 16
	case []any:
		n := int64(24)
		for _, e := range v {
			n += 16 + weight(e)
		}
		return n
	case map[string]any:
		n := int64(48)
		for k, e := range v {
			n += int64(len(k)) + 32 + weight(e)
		}
		return n
	}
	return 8
}
