package executor

import (
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// listenAgain reads, in one statement, what was said to the runs in memory and to
// those that a Selective executor has parked: whoever said it may have died before
// its bell, or the bell was lost. An executor without runs asks nothing.
func (e *Executor) listenAgain() {
	ids := e.sleepers.of(store.Bell{All: true})
	e.mu.Lock()
	lanes := slices.Clone(e.lanes)
	e.mu.Unlock()
	lanes = slices.DeleteFunc(lanes, func(l *lane) bool { return l.size.Load() == 0 })
	if len(lanes)+len(ids) == 0 || !e.listening.CompareAndSwap(false, true) {
		return
	}
	e.tasks.Go(func() {
		defer e.listening.Store(false)
		for _, l := range lanes {
			owned := make(chan []pipeline.RunID, 1)
			l.post(func() { owned <- l.owned() })
			ids = append(ids, <-owned...)
		}
		messages, err := e.cfg.Store.Inbox(e.work, ids)
		if err != nil && e.work.Err() == nil {
			e.log.Warn("inbox not read; the next heartbeat tries again", "err", err)
		}
		for _, l := range lanes {
			l.post(func() {
				l.deliver(messages)
				l.read()
			})
		}
		if err == nil {
			e.rouse(store.Bell{Inbox: e.sleepers.news(messages)})
		}
	})
}

// owned lists the runs whose inboxes are about to be read; read ends that.
func (l *lane) owned() []pipeline.RunID {
	l.reading++
	ids := make([]pipeline.RunID, 0, len(l.runs))
	for id := range l.runs {
		ids = append(ids, id)
	}
	return ids
}

// news lists the runs of messages that were not there when this was last asked:
// what has woken a run without being consumed, as in a paused one, waits for more.
func (s *sleepers) news(messages []store.Message) []pipeline.RunID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var runs []pipeline.RunID
	now := make(map[store.MessageID]bool, len(messages))
	for i := range messages {
		m := &messages[i]
		if now[m.ID] = true; !s.told[m.ID] {
			runs = append(runs, m.Run)
		}
	}
	s.told = now
	return runs
}
