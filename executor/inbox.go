package executor

import (
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// heard acts on a bell: messages for runs of ours, or a queue that has grown.
func (e *Executor) heard(b store.Bell) {
	e.endings.heard(b)
	if b.Gates {
		e.gates.changed()
	}
	if b.Gates || b.All {
		nudge(e.alarm.rung)
	}
	if b.Queued || b.All {
		e.claim()
		for _, id := range e.standing.list() {
			e.wake(id)
		}
	}
	if len(b.Inbox) == 0 && !b.All {
		return
	}
	e.rouse(b)
	e.each(func(l *lane) { l.post(func() { l.heard(b) }) })
}

func (l *lane) heard(b store.Bell) {
	if l.stopping || l.fenced {
		return
	}
	ids := make([]pipeline.RunID, 0, len(b.Inbox))
	if b.All {
		for id, r := range l.runs {
			ids = append(ids, id)
			r.rung = r.rung || r.parked
		}
		for id := range l.loading {
			l.loading[id] = true
		}
	}
	for _, id := range b.Inbox {
		if _, ok := l.loading[id]; ok {
			l.loading[id] = true // what is being read may not hold the message
		}
		if r := l.runs[id]; r != nil && !b.All {
			ids = append(ids, id)
			r.rung = r.rung || r.parked
		}
	}
	if len(ids) > 0 {
		l.readInbox(ids)
	}
}

// readInbox fetches messages of owned runs.
func (l *lane) readInbox(ids []pipeline.RunID) {
	l.reading++
	l.ex.tasks.Go(func() {
		messages, err := l.ex.cfg.Store.Inbox(l.ex.work, ids)
		if err != nil {
			l.ex.log.Warn("inbox not read; trying again", "err", err)
			time.AfterFunc(time.Second, func() {
				l.post(func() {
					l.read()
					if !l.stopping && !l.fenced {
						l.readInbox(ids)
					}
				})
			})
			return
		}
		l.post(func() {
			l.deliver(messages)
			l.read()
		})
	})
}

// read notes that a reading of inboxes has ended. A message may be found again by
// a reading that began before its effect was durable, and by no later one.
func (l *lane) read() {
	if l.reading--; l.reading > 0 {
		return
	}
	for id, durable := range l.taken {
		if durable {
			delete(l.taken, id)
		}
	}
}

// consumed learns that the effects of messages are durable.
func (l *lane) consumed(ids []store.MessageID) {
	for _, id := range ids {
		if l.reading > 0 {
			l.taken[id] = true
		} else {
			delete(l.taken, id)
		}
	}
}

// deliver hands messages to their runs, each once.
func (l *lane) deliver(messages []store.Message) {
	for _, m := range messages {
		r := l.runs[m.Run]
		if _, ok := l.taken[m.ID]; ok || r == nil {
			continue
		}
		if r.parked { // the message stays for whoever claims the run
			r.rung = true
			continue
		}
		l.taken[m.ID] = false
		r.do(func() { r.receive(&m) })
	}
}

// receive carries out what a message says. It is consumed with its effect, and
// also where it has none: what stays would wake the run for ever.
func (r *runState) receive(m *store.Message) {
	l := r.lane
	if r.gone || r.parked {
		delete(l.taken, m.ID)
		r.rung = true
		return
	}
	if r.putOff(m) {
		return
	}
	if m.Kind == store.MessageAttempt && r.reported(m) {
		return
	}
	l.batch.Consume = append(l.batch.Consume, m.ID)
	if r.finished {
		return
	}
	switch m.Kind {
	case store.MessageCancel:
		r.signal(pipeline.SignalCancel, nil, m.Actor)
	case store.MessagePause:
		r.pause(m.Actor)
	case store.MessageResume:
		r.unpause(m.Actor)
	case store.MessageSignal:
		name, data, err := signalOf(m.Body)
		if err != nil {
			l.ex.log.Warn("signal not understood", "run", r.run.ID, "err", err)
			return
		}
		r.signal(name, data, m.Actor)
	case store.MessageSteer:
		path, text, err := steeringOf(m.Body)
		if err != nil || !r.steer(path, text, m.Actor) {
			l.ex.log.Info("message to an agent not heard: it is not at work", "run", r.run.ID, "step", path, "err", err)
		}
	case store.MessageDecision:
		d, err := pipeline.DecodeDecision(m.Body)
		if err != nil {
			l.ex.log.Warn("decision not understood", "run", r.run.ID, "err", err)
			return
		}
		r.decided(d)
	case store.MessageFiles:
		for _, w := range r.m.Waits() {
			if w.Waiting != nil && w.Waiting.For == waitFiles {
				r.look(w.Path, w.Def)
			}
		}
	}
	r.pump()
}

// signal records something said to the run from outside, and gives it to a step
// that waits for it.
func (r *runState) signal(name string, value any, actor string) {
	if r.over() {
		return
	}
	paused := r.m.Paused()
	r.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: name, Value: value, Actor: actor})
	if name == pipeline.SignalCancel {
		r.cancelChildren()
	}
	if paused && !r.m.Paused() {
		r.unpaused()
	}
	for _, w := range r.m.Waits() {
		if w.Waiting != nil && w.Waiting.For == waitSignal && w.Waiting.Signal == name {
			r.do(func() { r.takeSignal(w.Path, w.Def) })
		}
	}
	r.do(r.pump)
}
