package executor_test

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// simTTL is how long a lease of the simulated store lasts, as in deployments.
const simTTL = 15 * time.Second

// simDB is the database that all replicas of a simulation share: the contract
// of package store, without latency and without fear. It never forgets a record,
// and whatever no correct engine would ask of it is a violation.
type simDB struct {
	w *simWorld

	mu        sync.Mutex
	runs      map[pipeline.RunID]*simRow
	order     []*simRow // as they were created
	leases    map[int64]*simLease
	epoch     int64 // the newest one given out
	keys      map[string]simKey
	plans     map[pipeline.Digest]store.Plan
	approvals map[pipeline.ApprovalID]*pipeline.Approval
	asked     []pipeline.ApprovalID // in the order of asking
	messages  int
}

// simRow is a run with all that belongs to it.
type simRow struct {
	number int // in the order of creation, for people
	run    pipeline.Run
	epoch  int64 // of the lane that owns it; 0: none
	queued bool
	due    time.Time // of a parked one; zero: only a message wakes it
	log    []simRecord
	inbox  []store.Message
	key    string    // of idempotency
	taken  time.Time // when it was claimed or created
	freed  time.Time // when it had an owner at last
}

// simRecord is one committed event, as bytes: what is read is a fresh copy.
type simRecord struct {
	event pipeline.Event // without Data
	body  []byte
}

type simLease struct {
	epoch   int64
	owner   *simClient
	expires time.Time
}

type simKey struct {
	run    pipeline.RunID
	digest pipeline.Digest
}

func newSimDB(w *simWorld) *simDB {
	return &simDB{
		w: w, runs: map[pipeline.RunID]*simRow{}, leases: map[int64]*simLease{}, keys: map[string]simKey{},
		plans: map[pipeline.Digest]store.Plan{}, approvals: map[pipeline.ApprovalID]*pipeline.Approval{},
	}
}

// parked reports whether the run waits in rows alone, for its time or a message.
func (r *simRow) parked() bool {
	return (r.run.Status == pipeline.RunWaiting || r.run.Status == pipeline.RunPaused) && r.epoch == 0
}

// wakes reports whether a message of this kind queues the run, which is parked.
func (r *simRow) wakes(m store.Message) bool {
	return r.run.Status == pipeline.RunWaiting || store.WakesPaused(m.Kind)
}

// dead reports whether others may take the lease's runs: its time is over, or its
// process is known to be gone.
func (d *simDB) dead(l *simLease) bool {
	now := time.Now()
	return !l.expires.After(now) || l.owner.knownGone(now)
}

func (d *simDB) openLane(c *simClient) *simLease {
	d.epoch++
	l := &simLease{epoch: d.epoch, owner: c, expires: time.Now().Add(simTTL)}
	d.leases[l.epoch] = l
	return l
}

func (d *simDB) heartbeat(c *simClient) store.Pulse {
	var p store.Pulse
	now := time.Now()
	for _, epoch := range c.open {
		if l := d.leases[epoch]; l != nil {
			l.expires = now.Add(simTTL)
		} else {
			p.Lost = true
		}
	}
	for _, l := range d.leases {
		p.Expired = p.Expired || l.owner != c && d.dead(l)
	}
	for _, r := range d.order {
		due := r.parked() && !r.due.IsZero() && !d.w.flaw.forgetsTimers
		switch {
		case r.queued && !(d.w.flaw.losesBells && r.parked()):
			p.Queued = true
		case due && !r.due.After(now):
			p.Queued = true
		case due && (p.NextDue.IsZero() || r.due.Before(p.NextDue)):
			p.NextDue = r.due.UTC()
		}
	}
	return p
}

// reclaim frees the runs of dead lanes of others.
func (d *simDB) reclaim(c *simClient) int {
	n := 0
	for epoch, l := range d.leases {
		if l.owner != c && d.w.flaw.freesTheLiving {
			n += d.free(epoch)
		}
		if l.owner != c && d.dead(l) {
			delete(d.leases, epoch)
			d.w.tell("lane %d of replica %d is reclaimed", epoch, l.owner.number)
			if !l.owner.knownGone(time.Now()) {
				d.noteExpired(epoch)
			}
			n += d.free(epoch)
		}
	}
	return n
}

// noteExpired tells the next owners of a lane's runs that the last one may live.
func (d *simDB) noteExpired(epoch int64) {
	for _, r := range d.order {
		if r.epoch == epoch {
			d.messages++
			m := store.Message{ID: store.MessageID(fmt.Sprint("m", d.messages)), Run: r.run.ID, Kind: store.MessageExpired, At: time.Now().UTC()}
			r.inbox = append(r.inbox, m)
		}
	}
}

func (d *simDB) release(epoch int64) int {
	if d.leases[epoch] == nil {
		return 0
	}
	delete(d.leases, epoch)
	return d.free(epoch)
}

func (d *simDB) free(epoch int64) int {
	n := 0
	for _, r := range d.order {
		if r.epoch == epoch {
			r.epoch, r.run.Status, r.queued, r.freed = 0, pipeline.RunQueued, true, time.Now()
			n++
		}
	}
	return n
}

// fence is what every write of a lane begins with.
func (d *simDB) fence(epoch int64) error {
	l := d.leases[epoch]
	if d.w.flaw.fencesNobody || l != nil && l.expires.After(time.Now()) {
		return nil
	}
	return store.ErrFenced
}

func (d *simDB) claim(epoch int64, n int) ([]*pipeline.Run, error) {
	if err := d.fence(epoch); err != nil {
		return nil, err
	}
	now := time.Now()
	var list []*simRow
	for _, r := range d.order {
		if r.parked() && !r.due.IsZero() && !r.due.After(now) && !d.w.flaw.forgetsTimers {
			r.queued, r.due = true, time.Time{}
		}
		if r.queued && r.epoch == 0 {
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b *simRow) int { return cmp.Compare(b.run.Priority, a.run.Priority) })
	runs := make([]*pipeline.Run, 0, min(n, len(list)))
	for _, r := range list[:min(n, len(list))] {
		runs = append(runs, d.own(epoch, r))
	}
	return runs, nil
}

func (d *simDB) own(epoch int64, r *simRow) *pipeline.Run {
	now := time.Now()
	r.epoch, r.queued, r.due, r.taken = epoch, false, time.Time{}, now
	if r.run.Status != pipeline.RunWaiting && r.run.Status != pipeline.RunPaused {
		r.run.Status = pipeline.RunRunning
	}
	if r.run.StartedAt.IsZero() {
		r.run.StartedAt = now.UTC().Truncate(time.Microsecond)
	}
	d.w.tell("lane %d claims run %d", epoch, r.number)
	run := r.run
	return &run
}

func (d *simDB) claimRun(epoch int64, id pipeline.RunID) (*pipeline.Run, error) {
	if err := d.fence(epoch); err != nil {
		return nil, err
	}
	r := d.runs[id]
	switch {
	case r == nil:
		return nil, simNoRun(id)
	case r.epoch != 0 || r.run.Status != pipeline.RunQueued && !r.parked():
		return nil, &pipeline.Error{Kind: pipeline.Conflict, Reason: "run_not_queued", Text: "run is neither queued nor parked"}
	}
	return d.own(epoch, r), nil
}

func simNoRun(id pipeline.RunID) error {
	return &pipeline.Error{Kind: pipeline.NotFound, Reason: "run_not_found", Text: fmt.Sprintf("there is no run %s", id)}
}

// commit records a batch, all of it or nothing; one that stands already changes
// nothing. The bell is the store's own.
func (d *simDB) commit(epoch int64, b *store.Batch) (res store.Result, bell store.Bell, err error) {
	if err := d.fence(epoch); err != nil {
		return res, bell, err
	}
	lost := d.create(epoch, b.Create, &res)
	for i := range b.Append {
		if !lost[b.Append[i].Run] {
			d.append(epoch, b.Append[i].Run, b.Append[i].Events)
		}
	}
	for i := range b.Finish {
		d.finish(epoch, b.Finish[i].Run, &bell)
	}
	for _, id := range b.Yield {
		if r := d.runs[id]; r != nil && r.epoch == epoch {
			r.epoch, r.run.Status, r.queued, r.freed = 0, pipeline.RunQueued, true, time.Now()
		}
	}
	for i := range b.Park {
		p := &b.Park[i]
		if r := d.runs[p.Run.ID]; r != nil && r.epoch == epoch {
			r.row(p.Run)
			r.epoch, r.due, r.freed = 0, p.Wake, time.Now()
			d.w.tell("run %d is parked; wake %s", r.number, simClock(p.Wake))
		}
	}
	for _, id := range b.Consume {
		for _, r := range d.order {
			r.inbox = slices.DeleteFunc(r.inbox, func(m store.Message) bool { return m.ID == id })
		}
	}
	for _, a := range b.Ask {
		if d.approvals[a.ID] == nil {
			c := *a
			d.approvals[a.ID], d.asked = &c, append(d.asked, a.ID)
			d.w.asked(a.ID, a)
		}
		bell.Approvals = true
	}
	for _, id := range b.Withdraw {
		if a := d.approvals[id]; a != nil && a.Status == pipeline.ApprovalOpen {
			a.Status, bell.Approvals = pipeline.ApprovalWithdrawn, true
		}
	}
	for i := range b.Park {
		if r := d.runs[b.Park[i].Run.ID]; r.parked() && slices.ContainsFunc(r.inbox, r.wakes) && !d.w.flaw.parksDeaf {
			r.queued, bell.Queued = true, true
		}
	}
	return res, bell, nil
}

func (d *simDB) create(epoch int64, list []store.Create, res *store.Result) map[pipeline.RunID]bool {
	lost := map[pipeline.RunID]bool{}
	if len(list) > 0 {
		res.Creates = make([]store.CreateResult, len(list))
	}
	for i := range list {
		c := &list[i]
		if k, used := d.keys[c.IdempotencyKey]; c.IdempotencyKey != "" && used && k.run != c.Run.ID {
			res.Creates[i] = store.CreateResult{Existing: k.run, Mismatch: k.digest != c.RequestDigest}
			lost[c.Run.ID] = true
			continue
		}
		if d.runs[c.Run.ID] == nil {
			if c.IdempotencyKey != "" {
				d.keys[c.IdempotencyKey] = simKey{c.Run.ID, c.RequestDigest}
			}
			r := &simRow{number: len(d.order) + 1, run: *c.Run, key: c.IdempotencyKey, taken: time.Now()}
			if r.run.Status == pipeline.RunQueued {
				r.queued = true
			} else {
				r.epoch = epoch
			}
			d.runs[c.Run.ID], d.order = r, append(d.order, r)
			d.w.tell("run %d is created, %s, by lane %d", r.number, r.run.Status, epoch)
			d.record(r, c.Events)
			d.w.created(r)
		}
		d.write(epoch, d.runs[c.Run.ID], c.Events)
	}
	return lost
}

func (d *simDB) append(epoch int64, id pipeline.RunID, events []pipeline.Event) {
	r := d.runs[id]
	if r == nil {
		d.w.violation("lane %d writes to a run that does not exist", epoch)
		return
	}
	d.write(epoch, r, events)
}

// write appends events; those that stand already must be the same.
func (d *simDB) write(epoch int64, r *simRow, events []pipeline.Event) {
	for i := range events {
		e := &events[i]
		n := int32(len(r.log))
		switch {
		case e.Seq > n+1:
			d.w.violation("run %d: record %d would follow %d", r.number, e.Seq, n)
			return
		case e.Seq <= n:
			old := &r.log[e.Seq-1]
			if old.event.Type != e.Type || old.event.Path != e.Path || old.event.Attempt != e.Attempt || !old.event.At.Equal(e.At) ||
				!bytes.Equal(old.body, pipeline.AppendData(nil, &e.Data)) {
				d.w.violation("run %d: record %d, a %s at %q, would be overwritten by a %s at %q of lane %d",
					r.number, e.Seq, old.event.Type, old.event.Path, e.Type, e.Path, epoch)
				return
			}
		case r.epoch != epoch:
			d.w.violation("run %d: lane %d writes record %d, a %s, and does not own it", r.number, epoch, e.Seq, e.Type)
			return
		case r.run.Status.Final():
			d.w.violation("run %d has ended, and record %d is a %s", r.number, e.Seq, e.Type)
			return
		default:
			if d.w.flaw.losesRecord && e.Type == pipeline.StepFinished && n%5 == 4 {
				d.w.flaw.losesRecord = false
				continue
			}
			d.record(r, events[i:i+1])
		}
	}
}

func (d *simDB) record(r *simRow, events []pipeline.Event) {
	for i := range events {
		e := events[i]
		rec := simRecord{event: e, body: pipeline.AppendData(nil, &e.Data)}
		rec.event.Data = pipeline.Data{}
		r.log = append(r.log, rec)
		if e.Type == pipeline.StepStarted || e.Type == pipeline.RunResumed || e.Type == pipeline.StepFinished {
			d.w.tell("run %d: %d %s %s %d %s", r.number, e.Seq, e.Type, e.Path, e.Attempt, e.Data.Reason)
		}
		d.w.count.events++
	}
}

// row takes over what a Finish or Park says of the run.
func (r *simRow) row(run *pipeline.Run) {
	r.run.Status, r.run.Reason, r.run.Error, r.run.Outputs = run.Status, run.Reason, run.Error, run.Outputs
	r.run.StartedAt, r.run.FinishedAt, r.run.Usage = run.StartedAt, run.FinishedAt, run.Usage
}

func (d *simDB) finish(epoch int64, run *pipeline.Run, bell *store.Bell) {
	r := d.runs[run.ID]
	if r == nil || r.epoch != epoch {
		return
	}
	r.row(run)
	if !run.Status.Final() {
		return
	}
	r.epoch, r.inbox, r.queued = 0, nil, false
	for _, id := range d.asked {
		if a := d.approvals[id]; a.Run == run.ID && a.Status == pipeline.ApprovalOpen {
			a.Status, bell.Approvals = pipeline.ApprovalWithdrawn, true
		}
	}
	if last := r.log[len(r.log)-1].event.Type; last != pipeline.RunFinished {
		d.w.violation("run %d: its row says %s, and its log ends with %s", r.number, run.Status, last)
	}
	d.w.tell("run %d ends, %s", r.number, run.Status)
	d.w.count.runs++
}

func (d *simDB) send(id pipeline.RunID, m store.Message, bell *store.Bell) error {
	r := d.runs[id]
	switch {
	case r == nil:
		return simNoRun(id)
	case r.run.Status.Final():
		return &pipeline.Error{Kind: pipeline.Conflict, Reason: "run_finished", Text: "run has already finished"}
	}
	if m.ID == "" {
		d.messages++
		m.ID = store.MessageID(fmt.Sprint("m", d.messages))
	}
	d.leave(r, m, bell)
	return nil
}

func (d *simDB) leave(r *simRow, m store.Message, bell *store.Bell) {
	if m.Run = r.run.ID; m.Kind == store.MessageAttempt {
		d.w.count.faults["attempt reported"]++
		if d.w.flaw.losesReports {
			return
		}
	}
	if m.At.IsZero() {
		m.At = time.Now().UTC()
	}
	bell.Inbox = []pipeline.RunID{r.run.ID}
	if !slices.ContainsFunc(r.inbox, func(o store.Message) bool { return o.ID == m.ID }) {
		r.inbox = append(r.inbox, m)
		d.w.tell("run %d gets a message: %s %s", r.number, m.Kind, m.Body)
		d.w.mustBeHeard(r, m)
	}
	if r.parked() && r.wakes(m) {
		r.queued, bell.Queued = true, true
	}
}

func (d *simDB) decide(id pipeline.ApprovalID, dec pipeline.Decision, bell *store.Bell) (*pipeline.Approval, error) {
	a := d.approvals[id]
	if a == nil {
		return nil, store.ApprovalNotFound(id)
	}
	r := d.runs[a.Run]
	if a.Status == pipeline.ApprovalOpen && r.run.Status.Final() {
		return nil, &pipeline.Error{Kind: pipeline.Conflict, Reason: "run_finished", Text: "run has already finished"}
	}
	dec.Approval, dec.At = id, store.DecisionTime(dec.At, time.Now())
	c := *a
	c.Decisions = slices.Clone(a.Decisions)
	m, err := store.Settle(&c, dec)
	if err != nil {
		return nil, err
	}
	*a = c
	bell.Approvals = true
	if m != nil {
		d.leave(r, *m, bell)
	}
	return &c, nil
}

// read is the run's log after a record.
func (d *simDB) read(r *simRow, after int32) ([]pipeline.Event, error) {
	list := make([]pipeline.Event, 0, max(0, len(r.log)-int(after)))
	for i := int(after); i < len(r.log); i++ {
		e := r.log[i].event
		var err error
		if e.Data, err = pipeline.DecodeData(r.log[i].body); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// ended reports whether the step has ended, by what is durable.
func (r *simRow) ended(path pipeline.Path) bool {
	return slices.ContainsFunc(r.log, func(rec simRecord) bool {
		return rec.event.Path == path && (rec.event.Type == pipeline.StepFinished || rec.event.Type == pipeline.StepWasSkipped)
	})
}
