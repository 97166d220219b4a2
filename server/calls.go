package server

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// calls serves orchestrator.v1.Calls.
type calls struct {
	orchestratorv1.UnimplementedCallsServer
	*Server
}

var _ orchestratorv1.CallsServer = calls{}

// The values of Call.kind.
const (
	callOfModel = "model"
	callOfTool  = "tool"
)

// ListCalls pages through the calls of one step, or of all.
func (s calls) ListCalls(ctx context.Context, req *orchestratorv1.ListCallsRequest) (*orchestratorv1.ListCallsResponse, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	size, err := s.cfg.Limits.pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	p := callPage{size: size, weight: s.cfg.Limits.Response}
	list := "calls " + string(id) + " " + req.GetStep()
	place, err := readPageToken(list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	if req.GetStep() != "" {
		after, err := readPageNumber(list, req.GetPageToken())
		if err != nil {
			return nil, err
		}
		if _, err := s.cfg.Store.Run(ctx, id); err != nil {
			return nil, err
		}
		if err := s.addCalls(ctx, &p, id, pipeline.Path(req.GetStep()), after); err != nil {
			return nil, err
		}
		if p.more {
			p.resp.NextPageToken = pageToken(list, strconv.Itoa(p.next))
		}
		return &p.resp, nil
	}
	step, after, ok := places(place)
	if !ok {
		return nil, refuse("page_token", "invalid_page_token", "not a token of this list; begin without one")
	}
	if step, err = s.allCalls(ctx, &p, id, step, after); err != nil {
		return nil, err
	}
	if p.more {
		p.resp.NextPageToken = pageToken(list, strconv.Itoa(step)+" "+strconv.Itoa(p.next))
	}
	return &p.resp, nil
}

// places reads where a list over all steps goes on.
func places(text string) (step, after int, ok bool) {
	if text == "" {
		return 0, 0, true
	}
	a, b, _ := strings.Cut(text, " ")
	step, err := strconv.Atoi(a)
	after, wrong := strconv.Atoi(b)
	return step, after, err == nil && wrong == nil && step >= 0 && after >= 0
}

// callPage is a page that fills.
type callPage struct {
	resp   orchestratorv1.ListCallsResponse
	size   int
	weight int  // bytes that it may still take
	next   int  // how many calls of the step the pages have given, where it is full
	more   bool // it is full
}

// allCalls goes on with a run's steps, from one on, of which so many calls are
// given already. Only steps that have used models or tools are read.
func (s calls) allCalls(ctx context.Context, p *callPage, id pipeline.RunID, from, after int) (int, error) {
	r, err := s.hub.open(ctx, id)
	if err != nil {
		return 0, err
	}
	defer s.hub.release(r)
	if err := r.catchUp(ctx); err != nil {
		return 0, err
	}
	for {
		var paths []pipeline.Path // from the step from on
		total, err := r.steps(ctx, from, 200, func(step *pipeline.Step) bool {
			path := step.Path
			if !step.Called && step.Usage == (pipeline.Usage{}) { // older snapshots say only what it has used
				path = "" // it has asked nobody
			}
			paths = append(paths, path)
			return len(paths) < 200
		})
		if err != nil {
			return 0, err
		}
		for _, path := range paths {
			if path != "" {
				if err := s.addCalls(ctx, p, id, path, after); err != nil || p.more {
					return from, err
				}
			}
			from, after = from+1, 0
		}
		if from >= total || len(paths) == 0 {
			return from, nil
		}
	}
}

// addCalls adds the calls of a step but for so many, as long as there is room.
func (s calls) addCalls(ctx context.Context, p *callPage, id pipeline.RunID, path pipeline.Path, skip int) error {
	_, list, err := s.callsOf(ctx, id, path)
	if err != nil {
		return err
	}
	for i := min(skip, len(list)); i < len(list); i++ {
		if p.more = len(p.resp.GetCalls()) == p.size || p.weight <= 0; p.more {
			p.next = i
			return nil
		}
		p.resp.Calls = append(p.resp.Calls, list[i])
		p.weight -= len(list[i].GetRequest()) + len(list[i].GetResponse()) + len(list[i].GetChoice())
	}
	return nil
}

// GetCall reads one call.
func (s calls) GetCall(ctx context.Context, req *orchestratorv1.GetCallRequest) (*orchestratorv1.Call, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	if req.GetStep() == "" {
		return nil, refuse("step", "required", "say which step made the call")
	}
	if _, err := s.cfg.Store.Run(ctx, id); err != nil {
		return nil, err
	}
	events, list, err := s.callsOf(ctx, id, pipeline.Path(req.GetStep()))
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(c *orchestratorv1.Call) bool { return c.GetN() == req.GetN() })
	if i < 0 {
		return nil, fault(pipeline.NotFound, "no_call", "the step %s of run %s has made no call %d", short(req.GetStep()), id, req.GetN())
	}
	c := list[i]
	if c.GetKind() == callOfModel && c.GetState() == pipeline.InvocationFinished && s.cfg.Prompt != nil {
		prompt, err := s.cfg.Prompt(events, c.GetN())
		if err != nil {
			s.log.WarnContext(ctx, "prompt not rebuilt", "run", id, "step", req.GetStep(), "call", c.GetN(), "err", err)
			return nil, fault(pipeline.Conflict, "prompt_incomplete", "the prompt of call %d is not recorded whole", c.GetN())
		}
		c.Prompt, c.Parts = string(pipeline.EncodeValue(prompt)), partsOf(prompt["parts"])
	}
	return c, nil
}

// callsOf reads a step's calls, in the order in which they began.
func (s calls) callsOf(ctx context.Context, id pipeline.RunID, path pipeline.Path) ([]pipeline.Event, []*orchestratorv1.Call, error) {
	var events []pipeline.Event
	var list []*orchestratorv1.Call
	at := map[int32]int{}
	for e, err := range s.cfg.Store.StepEvents(ctx, id, path, 0) {
		if err != nil {
			return nil, nil, err
		}
		switch {
		case e.Data.Call != nil:
			i, known := at[e.Data.Call.N]
			if !known {
				i = len(list)
				at[e.Data.Call.N] = i
				list = append(list, &orchestratorv1.Call{Step: string(path), N: e.Data.Call.N, Kind: callKind(e.Type), BeganAt: fromTime(e.At)})
			}
			tellCall(list[i], &e)
			events = append(events, e)
		case e.Data.Decision != nil:
			for _, c := range list {
				if d := e.Data.Decision; c.GetApproval() == string(d.Approval) {
					c.Decision, c.DecidedBy, c.Comment = d.Decision, d.Actor, d.Comment
					c.Edited = d.Decision == "approve" && d.Value != nil && c.GetKind() == callOfTool
				}
			}
		}
	}
	slices.SortStableFunc(list, func(a, b *orchestratorv1.Call) int { return cmp.Compare(a.GetN(), b.GetN()) }) // calls of one turn end in any order
	return events, list, nil
}

func callKind(t pipeline.EventType) string {
	if t == pipeline.ToolCalled {
		return callOfTool
	}
	return callOfModel
}

// tellCall adds what an event says of a call.
func tellCall(c *orchestratorv1.Call, e *pipeline.Event) {
	i := e.Data.Call
	c.State, c.Parent, c.Of, c.Agent, c.Turn = i.State, i.In, i.Of, i.Agent, i.Turn
	c.Phase, c.Param, c.Name, c.Effect, c.Provider = i.Phase, i.Param, i.Name, string(i.Effect), i.Provider
	if e.Data.Model != "" {
		c.Model = e.Data.Model
	}
	if e.Data.Usage != nil {
		c.Usage = fromUsage(*e.Data.Usage)
	}
	if e.Data.Error != nil {
		c.Error = fromFailure(e.Data.Error)
	}
	if i.Approval != "" {
		c.Approval = string(i.Approval)
	}
	if i.By != "" {
		c.DecidedBy = i.By
		if c.GetDecision() == "" {
			c.Decision = "approve" // for the rest of the run, earlier
		}
	}
	c.Scripted = i.Provider == "script" || len(i.Rules) > 0
	c.Took, c.First = float64(i.Took)/float64(time.Millisecond), float64(i.Wait)/float64(time.Millisecond)
	c.Tries, c.Failed = i.Tries, i.Failed
	if c.EndedAt = nil; i.State == pipeline.InvocationFinished {
		c.EndedAt = fromTime(e.At)
		if i.Took > 0 && e.At.Add(-i.Took).Before(c.GetBeganAt().AsTime()) {
			c.BeganAt = fromTime(e.At.Add(-i.Took))
		}
	}
	for _, v := range []struct {
		value any
		into  *string
	}{{i.Request, &c.Request}, {i.Response, &c.Response}, {i.Choice, &c.Choice}} {
		if v.value != nil {
			*v.into = string(pipeline.EncodeValue(v.value))
		}
	}
	if m, ok := i.Request.(map[string]any); ok && c.GetKind() == callOfModel {
		c.Parts = partsOf(m["parts"])
	}
}

func partsOf(v any) []*orchestratorv1.PromptPart {
	list, _ := v.([]any)
	var out []*orchestratorv1.PromptPart
	for _, e := range list {
		m, _ := e.(map[string]any)
		name, _ := m["name"].(string)
		bytes, _ := m["bytes"].(int64)
		out = append(out, &orchestratorv1.PromptPart{Name: name, Bytes: clamp(int(bytes))})
	}
	return out
}
