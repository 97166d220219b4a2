package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// waits reports whether people have to decide before the call may go on.
func (c *call) waits() bool { return c.ask != nil || c.open != "" }

// asking are the calls about which people are still to be asked.
func asking(calls []*call) []*call {
	var list []*call
	for _, c := range calls {
		if c.ask != nil {
			list = append(list, c)
		}
	}
	return list
}

// pose asks people about calls while others go on, and records the events in the
// same commit.
func (l *loop) pose(ctx context.Context, calls []*call, events ...pipeline.Event) error {
	asks := make([]executor.Asked, len(calls))
	for i, c := range calls {
		asks[i] = *c.ask
	}
	if err := l.env.Journal.Pose(ctx, asks, events...); err != nil {
		return err
	}
	for _, c := range calls {
		c.open, c.ask = c.ask.Approval.ID, nil
	}
	return nil
}

// runAll carries out the calls that are ready, some at a time. One that fails
// does not end the others. As long as anything of the step is at work, those that
// people decide about begin with the decision, and what calls come to ask is asked at
// once.
func (l *loop) runAll(ctx context.Context, calls, ready []*call) {
	if len(calls) == 1 && len(ready) == 1 {
		l.carryOut(ctx, ready[0])
		return
	}
	ended := make(chan *call)
	for running := 0; ; {
		for ; len(ready) > 0 && running < l.limits.Parallel; running++ {
			c := ready[0]
			ready = ready[1:]
			l.crew.join()
			go func() {
				l.carryOut(ctx, c)
				ended <- c
			}()
		}
		changed := l.env.Journal.Changed()
		if more := l.decided(ctx, calls); len(more) > 0 {
			ready = append(ready, more...)
			continue
		}
		if running == 0 {
			over, stays := (<-chan struct{})(nil), false
			if ctx.Err() == nil && slices.ContainsFunc(calls, func(c *call) bool { return c.open != "" }) {
				over, stays = l.crew.stay()
			}
			if !stays {
				return
			}
			select {
			case <-changed:
			case <-over:
			case <-ctx.Done():
			}
			l.crew.join()
			continue
		}
		l.crew.leave()
		select {
		case c := <-ended: // whose place in the crew is this agent's now
			if running--; running > 0 {
				l.relay(ctx, c)
			}
		case <-changed:
			l.crew.join()
		}
	}
}

// decided are the calls that people have let begin since.
func (l *loop) decided(ctx context.Context, calls []*call) []*call {
	var ready []*call
	var begin []pipeline.Event
	for _, c := range calls {
		if c.open == "" || ctx.Err() != nil {
			continue
		}
		d := l.env.Journal.Decision(c.open)
		if d == nil {
			continue
		}
		l.heed(c, d)
		if c.ask != nil { // the decision cannot be carried out
			c.err = l.pose(ctx, []*call{c})
			continue
		}
		ready, begin = c.enlist(ready, begin)
	}
	if len(begin) == 0 {
		return ready
	}
	if err := l.env.Journal.Append(ctx, begin...); err != nil {
		for _, c := range ready {
			c.err = err
		}
		return nil
	}
	return ready
}

// relay asks what a call that was laid down would ask, now that others go on.
func (l *loop) relay(ctx context.Context, c *call) {
	s, ok := errors.AsType[*executor.Suspension](c.err)
	if !ok || len(s.Asks) == 0 {
		return
	}
	if err := l.env.Journal.Pose(ctx, s.Asks); err != nil {
		c.err = err
	}
}

// outcome gathers what the calls of a turn wait for, or what ends the attempt.
func (l *loop) outcome(calls []*call) (error, error) {
	var s *executor.Suspension
	var broken error
	sooner := func(t time.Time) {
		if !t.IsZero() && (s.Due.IsZero() || t.Before(s.Due)) {
			s.Due = t
		}
	}
	for _, c := range calls {
		inner, waits := errors.AsType[*executor.Suspension](c.err)
		if !waits && c.err != nil && (broken == nil || errors.Is(c.err, executor.ErrJournal)) {
			broken = c.err
		}
		if s == nil && (waits || c.waits()) {
			s = &executor.Suspension{}
		}
		switch {
		case waits:
			s.Open = append(s.Open, inner.Open...)
			for _, q := range inner.Asks {
				if l.env.Journal.Posed(q.Approval.ID) {
					s.Open = append(s.Open, q.Approval.ID)
				} else {
					s.Asks = append(s.Asks, q)
				}
			}
			if s.Reason == "" {
				s.Reason = inner.Reason
			}
			sooner(inner.Due)
		case c.ask != nil:
			s.Asks = append(s.Asks, *c.ask)
			sooner(c.due)
		case c.open != "":
			s.Open = append(s.Open, c.open)
			sooner(c.due)
		}
	}
	if s == nil || broken != nil {
		return nil, broken
	}
	return s, nil
}
