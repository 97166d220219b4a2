package executor

import (
	"context"
	"errors"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// cancelWait is how long a worker may take to end an attempt that is cancelled.
const cancelWait = 10 * time.Second

// ownLines is where this server's own lines of the log of a worker's attempt are
// numbered from: those below are the worker's.
const ownLines = 1 << 30

// Why an attempt that was given to a worker ended without a result.
var (
	errWorkerLost = errors.New("the worker is lost")
	errDeclined   = errors.New("the worker has declined")
	errHandedBack = errors.New("the worker has given the attempt back")
)

// errand is an attempt that a worker carries out: a Runner that waits for it.
type errand struct {
	crew   *crew
	order  pipeline.Assignment
	redact *redactor
	logged atomic.Int64 // the group that holds its newest piece of output

	// Guarded by crew.mu.
	seat  seat // its hand is nil where the worker is not known
	since time.Time
	gone  *time.Timer

	result chan Report   // capacity 1
	ended  chan struct{} // closed by close, which says why
	once   sync.Once
	why    error
}

func (c *crew) errand(s seat, o pipeline.Assignment, red *redactor) *errand {
	return &errand{crew: c, seat: s, order: o, redact: red, result: make(chan Report, 1), ended: make(chan struct{})}
}

// close ends the waiting for a result.
func (x *errand) close(why error) {
	x.once.Do(func() {
		x.why = why
		close(x.ended)
	})
}

// Run gives the attempt to its worker, or waits for the one that has it, until
// that has ended. A server that stops leaves the attempt to the worker: whoever
// owns the run next hears of it.
func (x *errand) Run(ctx context.Context, env Env) (Output, error) {
	if t := placeIn(ctx); t != nil && x.order.Env != nil { // a process there continues the trace
		x.order.Env[traceParent] = t.Parent
		if t.State != "" {
			x.order.Env[traceState] = t.State
		}
	}
	x.begin()
	defer x.finish()
	select {
	case r := <-x.result:
		return x.output(ctx, env, r)
	case <-x.ended:
		return Output{}, x.why
	case <-ctx.Done():
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, errStopped) || errors.Is(cause, errFenced) {
		return Output{}, cause
	}
	x.cancel()
	late := time.NewTimer(cancelWait)
	defer late.Stop()
	select {
	case <-x.result:
	case <-x.ended:
	case <-late.C:
	}
	return Output{}, cause
}

// begin makes the errand known and sends it off.
func (x *errand) begin() {
	c := x.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	x.since = c.ex.cfg.Now()
	c.errands[x.order.Token] = x
	h := x.seat.hand
	if h == nil {
		if y := c.relayed[x.order.Token]; y != nil && y.session != nil { // it was held here before its run was
			delete(c.relayed, x.order.Token)
			x.attach(y.session)
			return
		}
		x.expect()
		return
	}
	h.reserved--
	h.errands[x.order.Token] = x
	if h.session == nil {
		x.close(errDeclined) // it has not been told
		return
	}
	h.session.order(pipeline.WorkerOrder{Assign: &x.order})
}

// finish lets go of the seat.
func (x *errand) finish() {
	c := x.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.errands, x.order.Token)
	if x.gone != nil {
		x.gone.Stop()
	}
	if h := x.seat.hand; h != nil {
		delete(h.errands, x.order.Token)
		h.take(x.seat.need, -1)
		if h.session == nil && len(h.errands) == 0 {
			c.forget(h)
		}
	}
	c.serve()
}

// expect waits for a worker that holds the attempt. crew.mu is held.
func (x *errand) expect() {
	x.gone = time.AfterFunc(x.crew.ex.cfg.RemoteWait, func() { x.close(errWorkerLost) })
}

// attach notes which worker holds the attempt. crew.mu is held.
func (x *errand) attach(s *session) {
	if x.gone != nil {
		x.gone.Stop()
		x.gone = nil
	}
	if h := x.seat.hand; h != s.hand {
		if h != nil {
			delete(h.errands, x.order.Token)
			h.take(x.seat.need, -1)
		}
		x.seat = seat{hand: s.hand, need: x.order.Resources}
		s.hand.take(x.seat.need, 1)
		s.hand.errands[x.order.Token] = x
	}
}

// heldElsewhere notes that another server hears of the attempt.
func (x *errand) heldElsewhere() {
	c := x.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.gone != nil {
		x.gone.Stop()
		x.gone = nil
	}
}

// cancel tells the worker that nobody wants the result any more.
func (x *errand) cancel() {
	c := x.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := x.seat.hand; h != nil && h.session != nil {
		h.session.order(pipeline.WorkerOrder{Cancel: x.order.Token})
	} else {
		x.close(errWorkerLost) // who cannot be told is not waited for
	}
}

// hear takes what is said of the attempt, by this server's workers or through
// another server.
func (x *errand) hear(r Report) {
	switch r.State {
	case ReportFinished:
		select {
		case x.result <- r:
		default: // it has been said before
		}
	case ReportHeld:
		x.heldElsewhere()
	case ReportLost:
		x.close(errWorkerLost)
	}
}

// output is what the worker gave, with its files in the workspace.
func (x *errand) output(ctx context.Context, env Env, r Report) (Output, error) {
	x.crew.ex.logs.await(x.logged.Load())
	out := Output{Value: r.Output, Model: r.Model, Usage: r.Usage}
	if r.Error != nil {
		f := *r.Error
		return out, &f
	}
	if err := x.crew.ex.bringBack(ctx, env.Run, env.Workspace, r.Files); err != nil {
		return out, err
	}
	return out, nil
}

// bringBack puts files that a worker has made into the run's workspace.
func (e *Executor) bringBack(ctx context.Context, run pipeline.RunID, workspace string, files []pipeline.WorkerFile) error {
	if len(files) == 0 {
		return nil
	}
	if err := makeWorkspace(workspace); err != nil {
		return err
	}
	b := pipeline.Bundle{}
	for _, f := range files {
		if !filepath.IsLocal(filepath.FromSlash(f.Name)) {
			return pipeline.Failuref(pipeline.CategoryContract, "the worker gave back a file outside its working folder: %s", beginning(f.Name, 100))
		}
		data, err := e.cfg.Store.Blob(ctx, run, f.Digest)
		if err != nil {
			return pipeline.Failuref(pipeline.CategorySystem, "read %s, which the worker gave back: %v", f.Name, err)
		}
		b[f.Name] = data
	}
	if err := writeFiles(workspace, b, 0o600); err != nil {
		return pipeline.Failuref(pipeline.CategorySystem, "write the files that the worker gave back: %v", err)
	}
	return nil
}

// assignment is what the worker of a step is told.
func (r *runState) assignment(t *pipeline.Task, w *work, env Env, token AttemptToken) pipeline.Assignment {
	o := pipeline.Assignment{
		Token: string(token), Run: env.Run, Path: env.Path, Attempt: env.Attempt, Key: env.IdempotencyKey(),
		Action: w.key, Parameters: w.params, Env: map[string]string{}, Timeout: t.Def.TimeoutOf(r.m.Tries(t.Path)),
		Sandbox: env.Sandbox, Resources: t.Def.Resources, Bundle: r.prog.plan.Bundle, BundleMark: env.Bundle, Uploads: r.m.Uploads(),
	}
	if t.Def.Kind != pipeline.KindAction {
		o.Action = pipeline.CommandAction
	}
	for _, kv := range env.Environ {
		if name, value, _ := strings.Cut(kv, "="); name != "PWD" { // the worker's own folder
			o.Env[name] = value
		}
	}
	for _, v := range w.consumed {
		if name, ok := v.Value.(string); ok && v.Blob != "" {
			o.Files = append(o.Files, pipeline.WorkerFile{Name: path.Clean(name), Digest: v.Blob, Size: v.Size})
		}
	}
	o.Secrets = r.secretsIn(&o)
	o.Collect, o.CollectFields = w.comesBack(t.Def)
	return o
}

// secretsIn are the secrets that stand in what a worker is told, so that it can
// keep them to itself; it hears of no others.
func (r *runState) secretsIn(o *pipeline.Assignment) map[string]string {
	var list map[string]string
	for _, name := range r.prog.plan.Secrets {
		value, ok := r.lane.ex.cfg.Secret(name)
		if !ok || len(value) < minSecret {
			continue
		}
		x := &redactor{}
		x.add(name, value)
		found := x.text(string(pipeline.EncodeValue(o.Parameters))) != string(pipeline.EncodeValue(o.Parameters))
		for _, v := range o.Env {
			found = found || strings.Contains(v, value)
		}
		if found {
			list = withVar(list, name, value)
		}
	}
	return list
}

// comesBack says which files of a worker's folder the step's result is made of:
// by patterns, and by fields of its output.
func (w *work) comesBack(def *pipeline.StepDef) (patterns, fields []string) {
	patterns = append(patterns, w.kept...)
	types := w.gives
	if c := def.Returns; c != nil {
		types = append(slices.Clip(types), &c.Type)
		switch c.From {
		case fromJSON:
			patterns = append(patterns, w.file)
		case fromFiles:
			for i := range c.Type.Properties {
				p := &c.Type.Properties[i]
				if p.Type.Kind == "list" && p.Type.Items != nil {
					patterns = append(patterns, path.Join(p.Type.Items.Under, "**"))
				} else {
					patterns = append(patterns, path.Join(p.Type.Under, p.Name), path.Join(p.Type.Under, p.Name+".*"))
				}
			}
		}
	}
	for _, t := range types {
		fields = append(fields, pathFields(t, "")...)
	}
	for i := range def.Publish {
		p := &def.Publish[i]
		if t := w.artifacts[p.Artifact]; t != nil && (t.Kind == "path" || t.Kind == "file") {
			fields = append(fields, p.From)
		}
	}
	return patterns, fields
}

// pathFields are the fields of a type whose values are paths.
func pathFields(t *pipeline.Type, at string) []string {
	in := func(name string) string {
		if at == "" {
			return name
		}
		return at + "." + name
	}
	var list []string
	switch t.Kind {
	case "path":
		list = append(list, at)
	case "list":
		if t.Items != nil {
			list = pathFields(t.Items, in("*"))
		}
	case "map":
		for i := range t.Properties {
			list = append(list, pathFields(&t.Properties[i].Type, in(t.Properties[i].Name))...)
		}
	case "union":
		for i := range t.Cases {
			for j := range t.Cases[i].Fields {
				f := &t.Cases[i].Fields[j]
				list = append(list, pathFields(&f.Type, in(f.Name))...)
			}
		}
	}
	return list
}

// broughtAction is an action that workers bring: its parameters are held against
// what they say of them, and a worker does the rest.
func broughtAction(a pipeline.ActionSpec) Action {
	typ := &pipeline.Type{Kind: "map", Properties: a.Params, Additional: a.Open}
	return Action{Spec: a, Workspace: true, Bind: func(params map[string]any) (Runner, error) {
		v, wrong := spec.Conform(typ, params)
		if wrong != nil {
			return nil, pipeline.Failuref(pipeline.CategoryValidation, "the parameters do not suit the action %s: %s", a.Key, listed(wrong))
		}
		checked, _ := v.(map[string]any)
		maps.Copy(params, checked) // with defaults
		return elsewhere(a.Key), nil
	}}
}

// elsewhere is an action that no server carries out.
type elsewhere string

func (k elsewhere) Run(context.Context, Env) (Output, error) {
	return Output{}, pipeline.Failuref(pipeline.CategorySystem, "the action %s is carried out by workers only", string(k))
}
