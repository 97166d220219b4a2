package server

import (
	"context"
	"fmt"
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
}

func (w *why) add(c pipeline.Cause) {
	if len(w.causes) < causesMost {
		w.causes = append(w.causes, c)
	}
}

func (w *why) look(ctx context.Context, s *Server) error {
	if w.run.Status.Final() {
		w.ended()
		return nil
	}
	w.paused()
	w.line()
	w.owner()
	if w.run.StartedAt.IsZero() {
		return nil
	}
	return w.steps(ctx, s)
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

func (w *why) paused() {
	if w.run.Status == pipeline.RunPaused {
		w.add(pipeline.Cause{Code: "paused", Message: fmt.Sprintf("the run is paused; go on with: orchestrator runs resume %s", w.run.ID)})
	}
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
		w.add(pipeline.Cause{Code: "queue_paused", Since: p.At, Refs: []pipeline.Ref{queue}, Message: fmt.Sprintf("the queue %s was paused by %s; go on with: orchestrator queues resume %s", q.Name, p.By, q.Name)})
	}
	if p := st.Pipeline; p != nil {
		w.add(pipeline.Cause{Code: "pipeline_paused", Since: p.At, Refs: []pipeline.Ref{{Kind: "pipeline", ID: w.run.Pipeline}}, Message: fmt.Sprintf("the pipeline %s was paused by %s; go on with: orchestrator pipelines resume %s", w.run.Pipeline, p.By, w.run.Pipeline)})
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
		w.add(pipeline.Cause{Code: "no_replica", Message: "no server is alive that could take the run; start one with: orchestrator serve"})
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

// owner says what became of the process that has the run.
func (w *why) owner() {
	if st := w.st; st.Replica != "" && st.Dead {
		w.add(pipeline.Cause{Code: "owner_died", Until: st.Expires, Refs: []pipeline.Ref{{Kind: "replica", ID: string(st.Replica)}}, Message: "the server that had the run is gone; another one takes the run when its lease is over"})
	}
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
	var running []pipeline.Ref
	_, err = r.steps(ctx, 0, stepsLooked, func(step *pipeline.Step) bool {
		ref := pipeline.Ref{Kind: "step", ID: string(step.Path)}
		switch {
		case step.Status == pipeline.StepWaiting:
			w.add(waitingFor(step, ref))
		case step.Status == pipeline.StepRunning && !step.Kind.Block() && len(running) < 10:
			running = append(running, ref)
		}
		return true
	})
	if len(running) > 0 {
		w.add(pipeline.Cause{Code: "running", Since: w.run.StartedAt, Refs: running, Message: "steps are being carried out"})
	}
	return err
}

func waitingFor(step *pipeline.Step, ref pipeline.Ref) pipeline.Cause {
	c := pipeline.Cause{Code: step.Reason, Since: step.StartedAt, Refs: []pipeline.Ref{ref}}
	wait := step.Waiting
	if wait == nil {
		c.Code, c.Message = "retry", fmt.Sprintf("the step %s is tried again after a pause", step.Path)
		if step.Error != nil {
			c.Message += ": " + step.Error.Message
		}
		return c
	}
	c.Code, c.Until = wait.For, wait.Due
	switch wait.For {
	case "signal":
		c.Refs = append(c.Refs, pipeline.Ref{Kind: "signal", ID: wait.Signal})
		c.Message = fmt.Sprintf("the step %s waits for the signal %s", step.Path, wait.Signal)
	case "approval":
		c.Refs = append(c.Refs, pipeline.Ref{Kind: "approval", ID: string(wait.Approval)})
		c.Message = fmt.Sprintf("the step %s waits for a person to decide approval %s", step.Path, wait.Approval)
	case "files":
		c.Message = fmt.Sprintf("the step %s waits for files: %s", step.Path, wait.Files)
	case "worker":
		c.Code = "no_worker"
		c.Message = fmt.Sprintf("the step %s waits for a worker with the labels %s", step.Path, strings.Join(wait.Labels, ", "))
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
