package executor

import (
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// layDown keeps a question waiting for people, as a Suspension of the filler
// says. Its step has not begun, or evaluates what comes after it: nothing of it is
// under way, so that the run may be parked. Whoever owns it then evaluates again,
// and finds what was asked in the journal.
func (r *runState) layDown(f *filling, s *Suspension, red *redactor) {
	home := homeOf(f.path)
	open := r.m.Open(home)
	for i := range s.Asks {
		q := &s.Asks[i]
		if q.Approval.ID == "" || !slices.Contains(open, q.Approval.ID) {
			r.askFor(q.Approval, f.path)
			c := q.Call
			c.State, c.Approval = pipeline.InvocationAsked, q.Approval.ID
			c.Request = red.value(c.Request)
			r.record(q.Type, f.path, 0, pipeline.Data{Call: &c})
		}
		f.open = append(f.open, q.Approval.ID)
	}
	open = r.m.Open(home)
	decided := false
	for _, id := range s.Open {
		f.open = append(f.open, id)
		decided = decided || !slices.Contains(open, id)
	}
	f.waits, f.due = true, s.Due
	if decided || len(f.open) == 0 {
		r.putAgain(f)
		return
	}
	if !s.Due.IsZero() {
		r.after(s.Due.Sub(r.lane.ex.cfg.Now()), func() { r.putAgain(f) })
	}
}

// putAgain puts a question that has waited for people once more, as soon as its
// journal can tell what they have decided.
func (r *runState) putAgain(f *filling) {
	if !f.waits {
		return
	}
	f.waits = false // the run stays
	again := func() {
		if r.gone || r.over() || r.fills.asking[f.content] != f {
			return
		}
		r.putQuestion(f.wanting, f.content, f.then, f.paths)
	}
	if r.durable >= r.m.Seq {
		again()
		return
	}
	r.lane.whenDurable(r, r.m.Seq, again)
}

// decidedFills puts the questions again that have waited for the decision, or for
// a budget that was raised. It reports whether one of them has waited for it.
func (r *runState) decidedFills(d *pipeline.Decision) bool {
	var again []*filling
	found := false
	for _, f := range r.fills.asking {
		mine := f.waits && slices.Contains(f.open, d.Approval)
		found = found || mine
		if f.waits && (mine || d.Decision == sayApprove) {
			again = append(again, f)
		}
	}
	if found {
		for _, f := range again {
			r.putAgain(f)
		}
	}
	return found
}

// waitingFills are the steps whose tags wait for people, and the first time that
// ends such a wait; zero: none does.
func (r *runState) waitingFills() (steps int, due time.Time) {
	homes := map[pipeline.Path]bool{}
	for _, f := range r.fills.asking {
		if f.waits {
			for _, p := range f.paths {
				homes[homeOf(p)] = true
			}
			if !f.due.IsZero() && (due.IsZero() || f.due.Before(due)) {
				due = f.due
			}
		}
	}
	return len(homes), due
}

// dropFill ends the wait of a question whose step is to end.
func (r *runState) dropFill(f *filling) {
	delete(r.fills.asking, f.content)
	r.lane.batch.Withdraw = append(r.lane.batch.Withdraw, f.open...)
	r.lane.post(func() {
		if r.gone {
			return
		}
		r.do(func() {
			for _, then := range f.then {
				then(filled{fail: &pipeline.Failure{Kind: pipeline.CategoryCancelled, Message: "cancelled"}})
			}
			r.pump()
		})
	})
}
