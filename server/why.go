package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	scrapeLimit = 2 * time.Second
	// stepsLooked bounds how many steps of a run are looked at for what it waits for.
	stepsLooked = 10_000
	causesMost  = 50
	// pauseLooked is how many of the newest records are looked at for who has
	// paused a run: what was under way then is recorded after it.
	pauseLooked = 1000
	// refsMost bounds what one cause names.
	refsMost = 10
)

func sinceSeconds(t time.Time) float64 { return max(0, time.Since(t).Seconds()) }

// WhyRun says why a run is where it is.
func (s runs) WhyRun(ctx context.Context, req *orchestratorv1.WhyRunRequest) (*orchestratorv1.WhyRunResponse, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	st, err := s.cfg.Store.Standing(ctx, id)
	if err != nil {
		return nil, err
	}
	w := &why{st: st, run: st.Run}
	if err := w.look(ctx, s.Server); err != nil {
		return nil, err
	}
	resp := &orchestratorv1.WhyRunResponse{Run: fromRun(st.Run)}
	for i := range w.causes {
		resp.Causes = append(resp.Causes, fromCause(&w.causes[i]))
	}
	return resp, nil
}

// why gathers causes. Each method adds what it knows of; the order is that of
// their weight.
type why struct {
	st     *store.Standing
	run    *pipeline.Run
	causes []pipeline.Cause
	busy   []pipeline.Ref // steps that are being carried out, some of them
	agents bool           // there are agents among them, which wait for the runs that their tools begin
}

func (w *why) add(c pipeline.Cause) {
	if len(w.causes) < causesMost {
		w.causes = append(w.causes, c)
	}
}

func (w *why) look(ctx context.Context, s *Server) error {
	if w.run.Status.Final() {
		w.ended()
		return w.children(ctx, s)
	}
	if err := w.paused(ctx, s); err != nil {
		return err
	}
	w.line()
	w.ownerGone()
	if w.run.StartedAt.IsZero() {
		return nil
	}
	if err := w.steps(ctx, s); err != nil {
		return err
	}
	w.inLine(s)
	w.running()
	return w.children(ctx, s)
}

// ended says why the run is over.
func (w *why) ended() {
	c := pipeline.Cause{Code: strings.ToLower(string(w.run.Status)), Since: w.run.FinishedAt, Message: "the run has completed"}
	switch f := w.run.Error; {
	case f != nil:
		c.Message = "the run has failed: " + f.Message
		if f.Step != "" {
			c.Refs = []pipeline.Ref{{Kind: "step", ID: string(f.Step)}}
		}
	case w.run.Status == pipeline.RunFailed:
		c.Message = "the run has failed"
	case w.run.Status == pipeline.RunCancelled:
		c.Message = "the run was cancelled"
	}
	if w.run.Reason != "" {
		c.Message += " (" + w.run.Reason + ")"
	}
	w.add(c)
}

// paused says by whom the run was paused, if its newest records tell.
func (w *why) paused(ctx context.Context, s *Server) error {
	if w.run.Status != pipeline.RunPaused {
		return nil
	}
	c := pipeline.Cause{Code: "paused", Message: "the run is paused"}
	r, err := s.hub.open(ctx, w.run.ID)
	if err != nil {
		return err
	}
	defer s.hub.release(r)
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	newest := r.seq
	r.mu.Unlock()
	for e, err := range s.cfg.Store.Events(ctx, w.run.ID, max(0, newest-pauseLooked)) {
		if err != nil {
			return err
		}
		if e.Type == pipeline.RunIsPaused {
			c.Since, c.Message = e.At, "the run was paused by "+e.Data.Actor
		}
	}
	w.add(c)
	return nil
}

// line says what holds a run that waits for its turn.
func (w *why) line() {
	st := w.st
	if !st.Waits {
		return
	}
	if st.UnderWay {
		w.add(pipeline.Cause{Code: "claimable", Since: st.Since, Message: fmt.Sprintf("the run is under way and goes on as soon as a server has room; %s before it", ahead(st.Ahead))})
		w.replicas()
		return
	}
	q := st.Queue
	queue := pipeline.Ref{Kind: "queue", ID: q.Name}
	if p := q.Paused; p != nil {
		w.add(pipeline.Cause{Code: "queue_paused", Since: p.At, Refs: []pipeline.Ref{queue}, Message: fmt.Sprintf("the queue %s was paused by %s", q.Name, p.By)})
	}
	if p := st.Pipeline; p != nil {
		w.add(pipeline.Cause{Code: "pipeline_paused", Since: p.At, Refs: []pipeline.Ref{{Kind: "pipeline", ID: w.run.Pipeline}}, Message: fmt.Sprintf("the pipeline %s was paused by %s", w.run.Pipeline, p.By)})
	}
	if k := w.run.Concurrency; k.Key != "" && len(st.Holders) >= int(min(k.Max, 10)) {
		c := pipeline.Cause{Code: "concurrency", Since: st.Since, Message: fmt.Sprintf("at most %d runs of the key %q may be under way, and as many are", k.Max, k.Key)}
		for _, id := range st.Holders {
			c.Refs = append(c.Refs, pipeline.Ref{Kind: "run", ID: string(id)})
		}
		w.add(c)
	}
	if q.MaxRunning > 0 && st.Running >= q.MaxRunning {
		w.add(pipeline.Cause{Code: "queue_full", Since: st.Since, Refs: []pipeline.Ref{queue}, Message: fmt.Sprintf("the queue %s lets %d runs be under way, and as many are", q.Name, q.MaxRunning)})
	}
	if !q.NextStart.IsZero() {
		w.add(pipeline.Cause{Code: "rate_limit", Since: st.Since, Until: q.NextStart, Refs: []pipeline.Ref{queue}, Message: fmt.Sprintf("the queue %s lets %s runs start; the next one may at %s", q.Name, q.Rate, q.NextStart.Format(time.RFC3339))})
	}
	w.add(pipeline.Cause{Code: "queued", Since: st.Since, Refs: []pipeline.Ref{queue}, Message: fmt.Sprintf("the run stands in the queue %s with priority %d; %s before it by age and fairness", q.Name, w.run.Priority, ahead(st.Ahead))})
	w.replicas()
}

func ahead(n int32) string {
	switch {
	case n >= store.AheadMost:
		return fmt.Sprintf("%d or more runs stand", n)
	case n == 1:
		return "1 run stands"
	}
	return fmt.Sprintf("%d runs stand", n)
}

// replicas says who could take the run.
func (w *why) replicas() {
	if len(w.st.Replicas) == 0 {
		w.add(pipeline.Cause{Code: "no_replica", Message: "no server is alive that could take the run"})
		return
	}
	owned := 0
	c := pipeline.Cause{Code: "replicas"}
	for id, n := range w.st.Replicas {
		owned += n
		c.Refs = append(c.Refs, pipeline.Ref{Kind: "replica", ID: string(id)})
	}
	c.Message = fmt.Sprintf("the living servers (%d) own %d runs; one of them takes the run when it has room", len(w.st.Replicas), owned)
	w.add(c)
}

// ownerGone says when another server takes a run whose own is gone.
func (w *why) ownerGone() {
	st := w.st
	if st.Replica == "" || !st.Dead {
		return
	}
	c := pipeline.Cause{Code: "owner_died", Refs: []pipeline.Ref{{Kind: "replica", ID: string(st.Replica)}}}
	switch {
	case len(st.Replicas) == 0:
		c.Message = fmt.Sprintf("the server %s that had the run is gone, and no other one is alive that could take it", st.Replica)
	case st.Expires.After(time.Now()):
		c.Until = st.Expires
		c.Message = fmt.Sprintf("the server %s that had the run is gone; another one takes the run when its lease is over", st.Replica)
	default:
		c.Message = fmt.Sprintf("the server %s that had the run is gone; another one takes the run with its next heartbeat", st.Replica)
	}
	w.add(c)
}

// running says what is carried out, and by whom, where nothing else holds the run.
func (w *why) running() {
	by, st := "", w.st
	var owner []pipeline.Ref
	if st.Replica != "" && !st.Dead {
		by, owner = " by the server "+string(st.Replica), []pipeline.Ref{{Kind: "replica", ID: string(st.Replica)}}
	}
	switch {
	case len(w.busy) > 0:
		w.add(pipeline.Cause{Code: "running", Since: w.run.StartedAt, Refs: append(w.busy, owner...), Message: "steps are being carried out" + by})
	case len(w.causes) == 0 && by != "":
		w.add(pipeline.Cause{Code: "owned", Until: st.Expires, Refs: owner, Message: fmt.Sprintf("the server %s has the run and keeps it until its lease is over; it begins a step as soon as it has room", st.Replica)})
	}
}

// inLine says which steps wait for a worker that has room. Only the server that
// has the run knows of them.
func (w *why) inLine(s *Server) {
	if s.cfg.Workers == nil {
		return
	}
	list := s.cfg.Workers.InLine(w.run.ID, refsMost)
	if len(list) == 0 {
		return
	}
	workers := s.cfg.Workers.Workers()
	for _, want := range list {
		c := pipeline.Cause{Code: "worker_busy", Refs: []pipeline.Ref{{Kind: "step", ID: string(want.Path)}}}
		for i := range workers {
			if have := &workers[i]; len(c.Refs) <= refsMost && have.Status == pipeline.WorkerConnected && !slices.ContainsFunc(want.Labels, func(l string) bool { return !slices.Contains(have.Labels, l) }) {
				c.Refs = append(c.Refs, pipeline.Ref{Kind: "worker", ID: have.Name})
			}
		}
		c.Message = fmt.Sprintf("the step %s waits until a worker%s has room", want.Path, labelled(want.Labels))
		w.add(c)
	}
}

func labelled(labels []string) string {
	switch len(labels) {
	case 0:
		return ""
	case 1:
		return " with the label " + labels[0]
	}
	return " with the labels " + strings.Join(labels, ", ")
}

// children names runs that the run has begun and that have not ended.
func (w *why) children(ctx context.Context, s *Server) error {
	page, err := s.cfg.Store.Runs(ctx, store.Query{Parent: w.run.ID, Limit: refsMost, Status: []pipeline.RunStatus{
		pipeline.RunQueued, pipeline.RunRunning, pipeline.RunWaiting, pipeline.RunPaused,
	}})
	if err != nil || len(page.Runs) == 0 {
		return err
	}
	c := pipeline.Cause{Code: "children", Since: page.Runs[len(page.Runs)-1].CreatedAt}
	for _, run := range page.Runs {
		c.Refs = append(c.Refs, pipeline.Ref{Kind: "run", ID: string(run.ID)})
	}
	switch n := len(page.Runs); {
	case page.More:
		c.Message = fmt.Sprintf("%d or more runs that it began have not ended", n)
	case n == 1:
		c.Message = "1 run that it began has not ended"
	default:
		c.Message = fmt.Sprintf("%d runs that it began have not ended", n)
	}
	if !w.agents {
		c.Message += "; it does not wait for them"
		w.add(c)
		return nil
	}
	c.Message += "; its agents wait for those that their tools have begun"
	w.add(c)
	for _, run := range page.Runs {
		if run.Status == pipeline.RunQueued {
			w.add(pipeline.Cause{
				Code: "child_queued", Since: run.CreatedAt, Refs: []pipeline.Ref{{Kind: "run", ID: string(run.ID)}},
				Message: fmt.Sprintf("the run %s of the pipeline %s that it began has not started yet", run.ID, run.Pipeline),
			})
		}
	}
	return nil
}

// steps says what the steps of the run do or wait for.
func (w *why) steps(ctx context.Context, s *Server) error {
	r, err := s.hub.open(ctx, w.run.ID)
	if err != nil {
		return err
	}
	defer s.hub.release(r)
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	_, err = r.steps(ctx, 0, stepsLooked, func(step *pipeline.Step) bool {
		ref := pipeline.Ref{Kind: "step", ID: string(step.Path)}
		w.agents = w.agents || step.Status == pipeline.StepRunning && step.Action == pipeline.AgentAction
		switch {
		case step.Status == pipeline.StepWaiting:
			w.add(waitingFor(step, ref))
		case step.Status == pipeline.StepRunning && !step.Kind.Block() && len(w.busy) < refsMost:
			w.busy = append(w.busy, ref)
		}
		return true
	})
	return err
}

func waitingFor(step *pipeline.Step, ref pipeline.Ref) pipeline.Cause {
	c := pipeline.Cause{Code: step.Reason, Since: step.StartedAt, Refs: []pipeline.Ref{ref}}
	wait := step.Waiting
	if wait == nil {
		c.Message = fmt.Sprintf("the step %s waits", step.Path)
		return c
	}
	c.Code, c.Until = wait.For, wait.Due
	switch wait.For {
	case pipeline.WaitRetry:
		c.Message = fmt.Sprintf("the step %s is tried again after a pause", step.Path)
		if step.Error != nil {
			c.Message += "; attempt " + fmt.Sprint(step.Attempt) + " failed: " + step.Error.Message
		}
	case "signal":
		c.Refs = append(c.Refs, pipeline.Ref{Kind: "signal", ID: wait.Signal})
		c.Message = fmt.Sprintf("the step %s waits for the signal %s", step.Path, wait.Signal)
	case "approval":
		if step.Reason == pipeline.ReasonBudget && len(wait.Approvals) > 0 {
			id := string(wait.Approvals[0])
			c.Code, c.Refs = pipeline.ReasonBudget, append(c.Refs, pipeline.Ref{Kind: "approval", ID: id})
			c.Message = fmt.Sprintf("the next call of a model of the step %s goes beyond a budget; a person must raise it or reject that, approval %s", step.Path, id)
			return c
		}
		c.Refs = append(c.Refs, pipeline.Ref{Kind: "approval", ID: string(wait.Approval)})
		c.Message = fmt.Sprintf("the step %s waits for a person to decide approval %s", step.Path, wait.Approval)
		if step.Reason == pipeline.ReasonUnknown {
			c.Code = string(pipeline.ApprovalDecide)
			c.Message = fmt.Sprintf("the step %s may run only once, and nobody knows whether it took effect; a person must decide approval %s", step.Path, wait.Approval)
		}
	case "files":
		c.Message = fmt.Sprintf("the step %s waits for files: %s", step.Path, wait.Files)
	case "worker":
		c.Code = "no_worker"
		what := labelled(wait.Labels)
		if step.Action != "" && step.Kind == pipeline.KindAction {
			what += " that carries out " + step.Action
		}
		c.Message = fmt.Sprintf("the step %s waits for a worker%s; none is connected that could ever take it", step.Path, what)
	default:
		c.Message = fmt.Sprintf("the step %s waits for its time", step.Path)
	}
	return c
}

func fromCause(c *pipeline.Cause) *orchestratorv1.Cause {
	out := &orchestratorv1.Cause{Code: c.Code, Message: c.Message, Since: fromTime(c.Since), Until: fromTime(c.Until)}
	for _, r := range c.Refs {
		out.Refs = append(out.Refs, &orchestratorv1.Ref{Kind: r.Kind, Id: r.ID})
	}
	return out
}
