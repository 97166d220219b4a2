package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// What the holder of an attempt says of it.
const (
	ReportHeld     = "held"     // it goes on
	ReportFinished = "finished" // it has ended, and this came of it
	ReportLost     = "lost"     // its outcome will never be known
)

// Report is what the holder of an attempt says of it.
type Report struct {
	Token  AttemptToken
	State  string            // ReportHeld, ReportFinished or ReportLost
	Output any               // of finished: a JSON value as of pipeline.DecodeValue, without secrets
	Error  *pipeline.Failure // of finished: why it failed; nil: it has succeeded
	Usage  *pipeline.Usage   // of finished
	Model  string            // of finished
	Worker string            // who says so
	// Files of finished: what a worker has made, kept as blobs of the run.
	Files []pipeline.WorkerFile

	// checked says that the output has been held against the step's contract and
	// that published are the artifacts which it made: the report is of a server.
	checked   bool
	published []pipeline.Version
}

// attemptOver refuses a report of what nobody waits for any more.
func attemptOver(id attemptID) error {
	return &pipeline.Error{
		Kind: pipeline.Conflict, Reason: "attempt_over",
		Text: fmt.Sprintf("attempt %d of step %s of run %s is over: its result has been recorded, or it was begun again; stop it and drop what it gave", id.Attempt, id.Path, id.Run),
	}
}

// errElsewhere says that a lane does not own the run.
var errElsewhere = errors.New("the run belongs to another lane")

// Report takes what the holder of a token says of its attempt, at any replica:
// the run's owner hears it, through the store's inbox if that is another process.
// When it returns nil, what finished has given is durable, and recorded exactly once.
// The errors are *pipeline.Error: Denied (token_invalid), Conflict
// (attempt_over: the holder can forget the attempt), Invalid, and Unavailable (try again).
func (e *Executor) Report(ctx context.Context, r Report) error {
	id, err := e.attemptOf(ctx, string(r.Token))
	if err != nil {
		return err
	}
	if !slices.Contains([]string{ReportHeld, ReportFinished, ReportLost}, r.State) {
		return &pipeline.Error{Kind: pipeline.Invalid, Reason: "report_state", Text: fmt.Sprintf("%q cannot be said of an attempt; it is %s, %s or %s", r.State, ReportHeld, ReportFinished, ReportLost)}
	}
	if err := e.tell(ctx, id, &r); !errors.Is(err, errElsewhere) {
		return err
	}
	if err := e.stands(ctx, id); err != nil {
		return err
	}
	return e.leave(ctx, id, &r)
}

// tell hands a report to the lane of this process that owns the run.
func (e *Executor) tell(ctx context.Context, id attemptID, r *Report) error {
	e.mu.Lock()
	lanes := slices.Clone(e.lanes)
	e.mu.Unlock()
	for _, l := range lanes {
		reply := make(chan error, 1)
		l.post(func() { l.told(id, r, func(err error) { reply <- err }) })
		var err error
		select {
		case err = <-reply:
		case <-l.ended:
			err = errElsewhere
		case <-ctx.Done():
			return ctx.Err()
		}
		if !errors.Is(err, errElsewhere) {
			return err
		}
	}
	return errElsewhere
}

// told is the lane's side of tell.
func (l *lane) told(id attemptID, r *Report, reply func(error)) {
	run := l.runs[id.Run]
	if l.fenced || l.parted || run == nil || run.parked || l.mute() != nil {
		reply(errElsewhere)
		return
	}
	run.do(func() { run.hear(id, r, "", reply) })
}

// stands refuses a report on an attempt that is known to be over. An attempt
// whose start is not known yet may be very young.
func (e *Executor) stands(ctx context.Context, id attemptID) error {
	run, err := e.cfg.Store.Run(ctx, id.Run)
	if err != nil {
		return err
	}
	if run.Status.Final() {
		return attemptOver(id)
	}
	for ev, err := range e.cfg.Store.Events(ctx, id.Run, 0) {
		if err != nil {
			return err
		}
		if ev.Path != id.Path {
			continue
		}
		switch ev.Type {
		case pipeline.StepStarted:
			if ev.Attempt > id.Attempt {
				return attemptOver(id)
			}
		case pipeline.StepRetrying, pipeline.StepFinished, pipeline.StepIsWaiting, pipeline.StepWasSkipped:
			if ev.Attempt >= id.Attempt {
				return attemptOver(id)
			}
		}
	}
	return nil
}

// leave puts a report into the run's inbox.
func (e *Executor) leave(ctx context.Context, id attemptID, r *Report) error {
	err := e.cfg.Store.Send(ctx, id.Run, store.Message{
		Kind: store.MessageAttempt, Actor: r.Worker, Body: encodeReport(r),
	})
	if pipeline.KindOf(err) == pipeline.Conflict {
		return attemptOver(id)
	}
	return err
}

// encodeReport writes a report as a message's body. What came of the attempt is
// written as the log's records are.
func encodeReport(r *Report) []byte {
	files := make([]any, len(r.Files))
	for i, f := range r.Files {
		files[i] = map[string]any{"name": f.Name, "digest": string(f.Digest), "size": f.Size}
	}
	b := pipeline.EncodeValue(map[string]any{"token": string(r.Token), "state": r.State, "checked": r.checked, "files": files})
	b = append(b[:len(b)-1], `,"data":`...)
	b = pipeline.AppendData(b, &pipeline.Data{
		Output: r.Output, Error: r.Error, Usage: r.Usage, Model: r.Model, Worker: r.Worker, Published: r.published,
	})
	return append(b, '}')
}

// decodeReport reads what encodeReport wrote.
func decodeReport(b []byte) (*Report, error) {
	var stored struct {
		Token   AttemptToken    `json:"token"`
		State   string          `json:"state"`
		Checked bool            `json:"checked"`
		Data    json.RawMessage `json:"data"`
		Files   []struct {
			Name   string          `json:"name"`
			Digest pipeline.Digest `json:"digest"`
			Size   int64           `json:"size"`
		} `json:"files"`
	}
	if err := json.Unmarshal(b, &stored); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	d, err := pipeline.DecodeData(stored.Data)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	r := &Report{
		Token: stored.Token, State: stored.State, Output: d.Output, Error: d.Error, Usage: d.Usage, Model: d.Model, Worker: d.Worker,
		checked: stored.Checked, published: d.Published,
	}
	for _, f := range stored.Files {
		r.Files = append(r.Files, pipeline.WorkerFile{Name: f.Name, Digest: f.Digest, Size: f.Size})
	}
	return r, nil
}

// reported takes a report that came as a message, which stays in the inbox until
// the report has had its effect. It says whether the message is a report.
func (r *runState) reported(m *store.Message) bool {
	rep, err := decodeReport(m.Body)
	var id attemptID
	if err == nil {
		id, err = r.lane.ex.attemptOf(r.lane.ex.work, string(rep.Token))
	}
	if err != nil || id.Run != r.run.ID {
		r.lane.ex.log.Warn("report not understood", "run", r.run.ID, "err", err)
		return false
	}
	r.hear(id, rep, m.ID, func(error) {})
	return true
}

// unheeded leaves to the next owner what was reported.
func (r *runState) unheeded() {
	for _, about := range r.said {
		for _, id := range about.messages {
			delete(r.lane.taken, id)
		}
		for _, reply := range about.replies {
			reply(errElsewhere)
		}
	}
	r.said, r.adoptions = nil, nil
}

// said is what has been reported on a step and has had no effect in the log yet.
type said struct {
	messages []store.MessageID // they stay in the inbox until then
	replies  []func(error)     // they wait until it is durable
}

// hear takes what the holder of an attempt says. The message, if it came as one,
// is consumed with its effect.
func (r *runState) hear(id attemptID, rep *Report, message store.MessageID, reply func(error)) {
	l := r.lane
	s, a := r.m.Step(id.Path), r.attempts[id.Path]
	stands := !r.over() && s != nil && s.Status == pipeline.StepRunning && s.Attempt == id.Attempt && r.settling(id.Path) == nil
	if here := a != nil && a.number == id.Attempt; stands && here && a.hear == nil {
		stands = false // this process carries it out, and hears of it in another way
	}
	if !stands {
		if message != "" && !r.gone {
			l.batch.Consume = append(l.batch.Consume, message)
		}
		reply(attemptOver(id))
		return
	}
	about := r.said[id.Path]
	if about == nil {
		if r.said == nil {
			r.said = map[pipeline.Path]*said{}
		}
		about = &said{}
		r.said[id.Path] = about
	}
	if message != "" {
		about.messages = append(about.messages, message)
	}
	if rep.State == ReportFinished {
		about.replies = append(about.replies, reply)
	} else {
		reply(nil)
	}
	if a != nil && a.number == id.Attempt {
		a.hear(*rep)
		return
	}
	r.heardOf(id.Path, rep)
}

// heeded notes that the log says what came of a step's attempt: what was
// reported on it has had its effect, or will never have one.
func (r *runState) heeded(e *pipeline.Event) {
	switch e.Type {
	case pipeline.StepStarted, pipeline.StepRetrying, pipeline.StepIsWaiting, pipeline.StepFinished, pipeline.StepWasSkipped:
		r.settleReports(e.Path, e.Seq)
	case pipeline.RunFinished:
		for path := range r.said {
			r.settleReports(path, e.Seq)
		}
	}
}

func (r *runState) settleReports(path pipeline.Path, seq int32) {
	if a := r.adoptions[path]; a != nil && a.holder != nil && a.report == nil { // nobody waits for it any more
		r.lane.ex.crew.recall(a.holder.Worker, string(a.holder.Token))
	}
	delete(r.adoptions, path)
	about := r.said[path]
	if about == nil {
		return
	}
	delete(r.said, path)
	r.lane.batch.Consume = append(r.lane.batch.Consume, about.messages...)
	for _, reply := range about.replies {
		r.lane.eager = true
		r.lane.durables = append(r.lane.durables, durable{run: r, seq: seq, f: func() { reply(nil) }, always: true})
	}
}
