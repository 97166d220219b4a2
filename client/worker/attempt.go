package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/proto"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

const (
	maxPiece  = 256 << 10 // bytes of output in one message
	maxHeld   = 1 << 20   // bytes of output that an attempt keeps while no server is there
	maxOutput = 16 << 20  // bytes of a result
)

// Why attempts are ended from outside.
var (
	errCancelled = errors.New("cancelled")
	errHandBack  = errors.New("the worker leaves")
	errTimeout   = errors.New("timed out")
)

// attempt is one attempt of a step that this worker holds, until its result is
// acknowledged.
type attempt struct {
	w      *worker
	order  *api.WorkerAssignment
	cancel context.CancelCauseFunc
	blot   *blotter

	// Guarded by worker.mu.
	link    *link // where it is reported
	n       int32 // pieces of output
	kept    []*api.WorkerLog
	size    int // bytes of kept
	lost    bool
	ended   bool
	dropped bool // nobody wants the result
	result  *api.WorkerResult
	said    time.Time // when the result was last sent
}

// Task is an attempt as its action sees it.
type Task struct {
	Run, Path string
	Attempt   int
	// Key is equal over all attempts of the step: hand it to services that can
	// tell a repeated request by it.
	Key        string
	Parameters json.RawMessage   // a JSON object
	Env        map[string]string // the step's own variables
	Dir        string            // the working folder, of this attempt alone
	Bundle     string            // the folder of the files that travel with the pipeline; empty: none
	Sandbox    json.RawMessage   // how processes are to be confined; empty: they are not

	a *attempt
}

// Log shows a piece of output to the step's viewers. stream is stdout, stderr or
// system. It may be called concurrently, and waits while servers cannot keep up.
func (t *Task) Log(stream, text string) { t.a.log(stream, t.a.blot.pass(stream, text)) }

// Redact blots out the step's secrets.
func (t *Task) Redact(text string) string { return t.a.blot.text(text) }

// log sends output in pieces.
func (a *attempt) log(stream, text string) {
	for text != "" {
		piece := text
		if len(piece) > maxPiece {
			cut := maxPiece
			for cut > maxPiece-4 && piece[cut]&0xC0 == 0x80 { // not in the middle of a character
				cut--
			}
			piece = piece[:cut]
		}
		text = text[len(piece):]
		a.put(stream, piece)
	}
}

func (a *attempt) put(stream, text string) {
	w := a.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for a.link.up && a.link.size > maxUnsent && !a.dropped {
		w.moved.Wait()
	}
	a.n++
	l := &api.WorkerLog{Token: a.order.GetToken(), Stream: stream, Text: text, N: a.n}
	switch {
	case a.dropped:
	case a.link.up:
		a.link.say(&api.ConnectRequest{Message: &api.ConnectRequest_Log{Log: l}})
	case a.size+len(text) > maxHeld:
		if !a.lost {
			a.lost = true
			l.Stream, l.Text = "system", "Output is missing here: no server could be reached.\n"
			a.kept = append(a.kept, l)
		}
	default:
		a.kept = append(a.kept, l)
		a.size += len(text)
	}
}

// resume reports on the attempt by another connection. worker.mu is held.
func (a *attempt) resume(l *link) {
	a.link = l
	for _, k := range a.kept {
		l.say(&api.ConnectRequest{Message: &api.ConnectRequest_Log{Log: k}})
	}
	a.kept, a.size, a.lost = nil, 0, false
	a.tell()
}

// tell sends the result, if there is one. worker.mu is held.
func (a *attempt) tell() {
	if a.result != nil && a.link.up {
		a.said = time.Now()
		a.link.say(&api.ConnectRequest{Message: &api.ConnectRequest_Result{Result: a.result}})
	}
}

// carryOut does what is to be done, and keeps the result until it is acknowledged.
func (a *attempt) carryOut(ctx context.Context) {
	if s := a.order.GetTimeout(); s > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, time.Duration(s*float64(time.Second)), errTimeout)
		defer stop()
	}
	result, err := a.run(ctx)
	cause := context.Cause(ctx)
	a.flush()
	var r *api.WorkerResult
	if cause == nil || !errors.Is(cause, errHandBack) || err == nil {
		r = a.resultOf(result, err, cause)
		if proto.Size(r) > maxOutput+1<<20 {
			r = a.resultOf(outcome{}, &Failure{Reason: "output_too_large", Message: fmt.Sprintf("the result is larger than %d MiB; write it to a file instead", maxOutput>>20)}, nil)
		}
	}
	w := a.w
	w.mu.Lock()
	defer w.mu.Unlock()
	a.ended = true
	w.loaded(-1, a.order.GetResources())
	switch {
	case a.dropped || r == nil:
		delete(w.attempts, a.order.GetToken())
		if r == nil {
			a.link.say(declined(a.order.GetToken(), errHandBack.Error(), true))
		}
	default:
		a.result = r
		if !a.link.up {
			if l := w.anyLink(); l != nil {
				a.resume(l)
			}
		} else {
			a.tell()
		}
	}
	w.moved.Broadcast()
}

// flush sends the ends of the streams, which might have been the beginnings of
// secrets.
func (a *attempt) flush() {
	for stream, text := range a.blot.rest() {
		a.log(stream, text)
	}
}

// outcome is a result with the files that go with it.
type outcome struct {
	Result
	output json.RawMessage
	files  []*api.WorkerFile
}

// run prepares the working folder, carries the action out in it, and hands over
// the files that belong to the result.
func (a *attempt) run(ctx context.Context) (out outcome, err error) {
	t, err := a.prepare(ctx)
	if err != nil {
		return out, err
	}
	defer removeAll(t.Dir)
	out.Result, err = a.call(ctx, t)
	if out.Output != nil {
		data, merr := json.Marshal(out.Output)
		switch {
		case merr != nil && err == nil:
			err = &Failure{Category: "system", Message: "the result is no JSON: " + merr.Error()}
		case len(data) > maxOutput && err == nil:
			err = &Failure{Reason: "output_too_large", Message: fmt.Sprintf("the result is larger than %d MiB; write it to a file instead", maxOutput>>20)}
		case merr == nil && len(data) <= maxOutput:
			out.output = data
		}
	}
	if err == nil {
		out.files, err = a.collect(ctx, t.Dir, out.output)
	}
	return out, err
}

// call carries the action out. A panic is the attempt's failure.
func (a *attempt) call(ctx context.Context, t *Task) (r Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			a.w.log.Error("action panicked", "run", t.Run, "step", t.Path, "panic", p, "stack", string(debug.Stack()))
			err = &Failure{Category: "system", Message: fmt.Sprintf("the action broke down: %v", p)}
		}
	}()
	// Where the run is traced, spans of the action belong to its step.
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": t.Env["TRACEPARENT"], "tracestate": t.Env["TRACESTATE"]})
	return a.w.actions[a.order.GetAction()].Run(ctx, t)
}

// resultOf is what the server is told.
func (a *attempt) resultOf(out outcome, err, cause error) *api.WorkerResult {
	r := &api.WorkerResult{
		Token: a.order.GetToken(), Output: a.blot.text(string(out.output)), Model: out.Model, Files: out.files,
	}
	if out.InputTokens != 0 || out.OutputTokens != 0 || out.CostUSD != 0 {
		r.Usage = &api.WorkerUsage{InputTokens: out.InputTokens, OutputTokens: out.OutputTokens, CostUsd: out.CostUSD}
	}
	if err == nil {
		return r
	}
	f := &Failure{Category: "unknown", Message: err.Error()}
	if given, ok := errors.AsType[*Failure](err); ok {
		f = given
	}
	category := f.Category
	if category == "" {
		category = "failed"
	}
	r.Error = &api.WorkerFailure{
		Category: category, Reason: f.Reason, Message: a.blot.text(f.Message),
		ExitCode: int32(f.ExitCode), RetryAfter: f.RetryAfter.Seconds(), //nolint:gosec // of a program
	}
	switch {
	case errors.Is(cause, errTimeout):
		r.Error.Category, r.Error.Reason = "timeout", ""
		r.Error.Message = fmt.Sprintf("timed out after %s", time.Duration(a.order.GetTimeout()*float64(time.Second)))
	case errors.Is(cause, errCancelled):
		r.Error.Category, r.Error.Reason, r.Error.Message = "cancelled", "", "cancelled"
	}
	return r
}
