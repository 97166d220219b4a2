package web

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// views keeps the views of the runs that were looked at last. It holds no
// goroutine: whoever needs a view brings it up to date with catchUp.
type views struct {
	mu  sync.Mutex
	all map[string]*list.Element
	lru list.List // of *view, the newest use first
}

// Bounds of what is kept. A view in use stays alive through its users.
const (
	maxViews = 200
	maxKept  = 1_000_000 // step instances over all views
)

func newViews() *views { return &views{all: map[string]*list.Element{}} }

// of returns the view of a run, which may be empty still.
func (vs *views) of(id string) *view {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if e, ok := vs.all[id]; ok {
		vs.lru.MoveToFront(e)
		return e.Value.(*view)
	}
	kept := 0
	for e := vs.lru.Front(); e != nil; {
		next := e.Next()
		v := e.Value.(*view)
		kept += v.size()
		if kept > maxKept || vs.lru.Len() >= maxViews && next == nil {
			vs.lru.Remove(e)
			delete(vs.all, v.id)
		}
		e = next
	}
	v := newView(id)
	vs.all[id] = vs.lru.PushFront(v)
	return v
}

// forget drops the view of a run that is not what the view says any more.
func (vs *views) forget(v *view) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if e, ok := vs.all[v.id]; ok && e.Value.(*view) == v {
		vs.lru.Remove(e)
		delete(vs.all, v.id)
	}
}

func (v *view) size() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.steps)
}

// stepPage is how many steps or events one call reads: the API's most.
const stepPage = 500

var bigAnswers = grpc.MaxCallRecvMsgSize(maxMessage)

// catchUp brings the view up to what the API knows now. Reading a very long run
// for the first time takes longer than a page may wait: after patience it
// returns with v.complete false, and the next call goes on where it stopped.
func (v *view) catchUp(ctx context.Context, runs api.RunsClient, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	select {
	case v.load <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-v.load }()
	if err := v.begin(ctx, runs); err != nil {
		return err
	}
	if done, err := v.snapshot(ctx, runs, deadline); err != nil || !done {
		return err
	}
	for !v.final() {
		after := v.at()
		page, err := runs.ListEvents(ctx, &api.ListEventsRequest{Id: v.id, After: after, PageSize: stepPage}, bigAnswers)
		if err != nil {
			return err
		}
		for _, e := range page.GetEvents() {
			if err := v.apply(e); err != nil {
				return err
			}
		}
		if page.GetNextPageToken() == "" && len(page.GetEvents()) < stepPage {
			break
		}
	}
	return nil
}

func (v *view) at() int32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seq
}

// foldMost is up to how many steps a run is read from its events alone, which
// say a little more than its list of steps, as the number of a loop's items.
const foldMost = 500

// begin reads the run and decides how the rest is read. Of a long run that goes
// on it first notes the number of the newest event: what the snapshot shows is
// at least as new as that. Of a long run that has ended the number does not
// matter until somebody asks for it (newest).
func (v *view) begin(ctx context.Context, runs api.RunsClient) error {
	v.mu.Lock()
	begun := v.begun
	v.mu.Unlock()
	if begun {
		return nil
	}
	run, err := runs.GetRun(ctx, &api.GetRunRequest{Id: v.id}, bigAnswers)
	if err != nil {
		return err
	}
	var seq int32
	short := run.GetUsage().GetSteps() <= foldMost
	if !short && !finalRun(run.GetStatus()) {
		if seq, err = lastSeq(ctx, runs, v.id, guess(run)); err != nil {
			return err
		}
		if run, err = runs.GetRun(ctx, &api.GetRunRequest{Id: v.id}, bigAnswers); err != nil {
			return err
		}
	}
	g, err := runs.GetGraph(ctx, &api.GetGraphRequest{Id: v.id}, bigAnswers)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.graph = newGraph(g) // before any step: it says where steps belong
	v.begun, v.run, v.seq, v.runSeq = true, run, seq, seq
	v.pages = []stepsFrom{{}}
	if short {
		v.complete = true
		if finalRun(run.GetStatus()) { // the events will say so again
			v.run = proto.CloneOf(run)
			v.run.Status = api.Run_RUNNING
		}
	}
	return nil
}

// snapshot reads the steps page by page until their end or the deadline.
func (v *view) snapshot(ctx context.Context, runs api.RunsClient, deadline time.Time) (bool, error) {
	ctx, release := context.WithCancel(ctx)
	defer release()
	held := false
	for {
		v.mu.Lock()
		complete, from := v.complete, v.pages[len(v.pages)-1]
		v.mu.Unlock()
		if complete {
			return true, nil
		}
		if !held {
			// A server keeps at hand what is being watched; without this it may
			// have to gather a long run anew for each of its pages. Nobody reads
			// what the stream brings.
			held = true
			if _, err := runs.WatchRun(ctx, &api.WatchRunRequest{Id: v.id}, bigAnswers); err != nil {
				return false, err
			}
		}
		page, err := runs.ListSteps(ctx, &api.ListStepsRequest{Id: v.id, PageSize: stepPage, PageToken: from.token}, bigAnswers)
		if err != nil {
			return false, err
		}
		v.mu.Lock()
		for _, s := range page.GetSteps() {
			v.put(s, v.seq)
		}
		if next := page.GetNextPageToken(); next != "" {
			v.pages = append(v.pages, stepsFrom{from.first + len(page.GetSteps()), next})
		} else {
			v.complete, complete = true, true
		}
		v.mu.Unlock()
		if !complete && time.Now().After(deadline) {
			return false, nil
		}
	}
}

// guess is about how many events a run has.
func guess(run *api.Run) int32 { return 2*run.GetUsage().GetSteps() + 2 }

// newest is the number of the run's newest event.
func (v *view) newest(ctx context.Context, runs api.RunsClient) (int32, error) {
	if seq := v.at(); seq > 0 {
		return seq, nil
	}
	seq, err := lastSeq(ctx, runs, v.id, guess(v.current()))
	if err != nil {
		return 0, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seq = max(v.seq, seq)
	return v.seq, nil
}

// lastSeq finds the number of a run's newest event. Numbers have no gaps, so a
// few small reads around a guess are enough: steps that double, then halves.
func lastSeq(ctx context.Context, runs api.RunsClient, id string, guess int32) (int32, error) {
	beyond := func(n int32) (bool, error) { // is there an event after n?
		page, err := runs.ListEvents(ctx, &api.ListEventsRequest{Id: id, After: n, PageSize: 1}, bigAnswers)
		return len(page.GetEvents()) > 0, err
	}
	more, err := beyond(guess)
	if err != nil {
		return 0, err
	}
	low, high := int32(0), guess // the last one is in between
	for step := int32(1); more; step *= 2 {
		low, high = high+1, high+step
		if more, err = beyond(high); err != nil {
			return 0, err
		}
	}
	for step := int32(1); low == 0 && high > 0; step *= 2 {
		at := max(0, high-step)
		if more, err = beyond(at); err != nil {
			return 0, err
		}
		if more {
			low = at + 1
			break
		}
		high = at
	}
	for low < high {
		mid := low + (high-low)/2
		if more, err = beyond(mid); err != nil {
			return 0, err
		}
		if more {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, nil
}

// step reads the whole of a step instance, or nil if it has not begun.
func (v *view) step(ctx context.Context, runs api.RunsClient, path string) (*api.Step, error) {
	v.mu.Lock()
	i, ok := v.index[path]
	var from stepsFrom
	for _, p := range v.pages { // steps are listed in the order in which they began, as in the view
		if p.first <= int(i) {
			from = p
		}
	}
	v.mu.Unlock()
	if !ok {
		return nil, nil //nolint:nilnil // absent is an answer
	}
	for token := from.token; ; {
		got, err := runs.ListSteps(ctx, &api.ListStepsRequest{Id: v.id, PageSize: stepPage, PageToken: token}, bigAnswers)
		if err != nil {
			return nil, err
		}
		for _, s := range got.GetSteps() {
			if s.GetPath() == path {
				return s, nil
			}
		}
		if token = got.GetNextPageToken(); token == "" {
			return nil, fmt.Errorf("step %s of run %s is in its events but not in its list", path, v.id)
		}
	}
}
