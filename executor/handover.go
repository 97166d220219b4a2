package executor

import "github.com/orchestrator-project/orchestrator/pipeline"

// part notes in each run that its owner leaves in good order, so that the steps
// which the next owner begins again are not held to have killed this one.
func (l *lane) part() {
	l.parted = true
	for _, r := range l.runs {
		if !r.finished && !r.asleep && !r.m.Run.StartedAt.IsZero() {
			r.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: pipeline.SignalHandedOver, Actor: string(l.ex.cfg.Replica)})
		}
	}
}

// idle reports whether a stopping lane has nothing left to wait for.
func (l *lane) idle() bool {
	if l.sent != nil || !l.batch.Empty() || l.claiming {
		return false
	}
	for _, r := range l.runs {
		if len(r.attempts) > 0 || r.busy {
			return false
		}
	}
	return true
}

// parting is why a run that has come so far lost its owner.
func parting(m *pipeline.Machine) string {
	if m.HandedOver() {
		return pipeline.ReasonHandedOver
	}
	return pipeline.ReasonOwnerDied
}
