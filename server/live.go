package server

import (
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// maxLive bounds what waits for a viewer that does not read, in bytes. Beyond it
// the oldest pieces are lost: what is recorded in the end has them all.
const maxLive = 256 << 10

// looker gathers for one viewer what calls give on their way. It never holds up
// whoever shows it.
type looker struct {
	news chan struct{} // capacity 1: something has been shown

	mu   sync.Mutex
	list []store.Shown
	size int
}

func newLooker() *looker { return &looker{news: make(chan struct{}, 1)} }

// add takes a piece, together with the one before it if it goes on.
func (l *looker) add(p store.Shown) {
	l.mu.Lock()
	if n := len(l.list); n > 0 && goesOn(&l.list[n-1], &p) {
		l.list[n-1].Delta.Text += p.Delta.Text
	} else {
		l.list = append(l.list, p)
	}
	l.size += len(p.Delta.Text)
	for l.size > maxLive && len(l.list) > 0 {
		l.size -= len(l.list[0].Delta.Text)
		l.list = l.list[1:]
	}
	l.mu.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// goesOn reports whether b continues a.
func goesOn(a, b *store.Shown) bool {
	x, y := a.Delta, b.Delta
	x.Text, y.Text = "", ""
	return a.Path == b.Path && a.Attempt == b.Attempt && x == y && x.Kind != pipeline.DeltaReset && len(a.Delta.Text) < 4<<10
}

// take gives what has gathered, as events.
func (l *looker) take() []*orchestratorv1.Event {
	l.mu.Lock()
	list := l.list
	l.list, l.size = nil, 0
	l.mu.Unlock()
	events := make([]*orchestratorv1.Event, len(list))
	for i := range list {
		events[i] = fromShown(&list[i])
	}
	return events
}

func fromShown(p *store.Shown) *orchestratorv1.Event {
	data := map[string]any{"call": int64(p.Delta.Call), "kind": p.Delta.Kind}
	for key, text := range map[string]string{"agent": p.Delta.Agent, "name": p.Delta.Name, "text": p.Delta.Text} {
		if text != "" {
			data[key] = text
		}
	}
	return &orchestratorv1.Event{
		RunId: string(p.Run), Type: string(pipeline.EventDelta), Path: string(p.Path), Attempt: p.Attempt,
		At: timestamppb.New(p.At), Data: string(pipeline.EncodeValue(data)),
	}
}
