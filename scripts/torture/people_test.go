package torture

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// record is what the checks read in the data of an event.
type record struct {
	Signal   string `json:"signal"`
	Value    any    `json:"value"`
	Reason   string `json:"reason"`
	Decision struct {
		Approval string `json:"approval"`
		Comment  string `json:"comment"`
	} `json:"decision"`
	Step struct {
		Output any `json:"output"`
	} `json:"step"`
}

// check holds what was said to a run against its log; it returns how often the
// run was woken.
func (p *people) check(id string, events []*orchestratorv1.Event, bad func(string, ...any)) (woken int) {
	received, decided := map[string]int{}, map[string]int{}
	for _, e := range events {
		var r record
		if err := json.Unmarshal([]byte(e.GetData()), &r); err != nil {
			bad("run %s: the data of event %d cannot be read: %v", id, e.GetSeq(), err)
			continue
		}
		switch e.GetType() {
		case "run_resumed":
			if r.Reason == "woken" {
				woken++
			}
		case "signal_received":
			if r.Signal == pipeline.SignalHandedOver {
				continue // the word of a server that stopped; the API refuses it from people
			}
			data, _ := r.Value.(string)
			if !p.said[data] {
				bad("run %s: event %d is a signal with the data %v, which nobody sent", id, e.GetSeq(), r.Value)
			}
			received[data]++
		case "approval_decided":
			decided[r.Decision.Approval]++
		case "step_finished":
			name, waits := signals[e.GetPath()]
			data, _ := r.Step.Output.(string)
			if waits && (r.Signal != name || received[data] == 0) {
				bad("run %s: step %s took the signal %q with the data %v, which had not come", id, e.GetPath(), r.Signal, r.Step.Output)
			}
		}
	}
	for data := range p.said {
		if n := received[data]; n != 1 {
			bad("run %s: the signal %q came %d times", id, data, n)
		}
	}
	for path, approval := range p.approvals {
		if n := decided[approval]; n != 1 {
			bad("run %s: the decision of step %s is recorded %d times", id, path, n)
		}
	}
	return woken
}

// checkApprovals holds that of those who decided each approval of a run one won,
// and that the step's result is what this one said.
func (l *load) checkApprovals(ctx context.Context, id string, p *people, bad func(string, ...any)) error {
	page, err := l.approvals.ListApprovals(ctx, &orchestratorv1.ListApprovalsRequest{RunId: id, PageSize: 500})
	if err != nil {
		return err
	}
	if n := len(page.GetApprovals()); n != len(p.approvals) {
		bad("run %s: it has asked %d times and has %d approvals", id, len(p.approvals), n)
	}
	outputs := map[string]string{}
	for _, e := range l.runs[id].seen {
		if e.GetType() == "step_finished" {
			if outputs[e.GetPath()], err = outputOf(e); err != nil {
				return err
			}
		}
	}
	for _, a := range page.GetApprovals() {
		path, list := a.GetPath(), a.GetDecisions()
		if a.GetStatus() != "decided" || len(list) != 1 || p.approvals[path] != a.GetId() {
			bad("run %s: approval %s of step %s is %s with %d decisions; the step asked by %s", id, a.GetId(), path, a.GetStatus(), len(list), p.approvals[path])
			continue
		}
		winner := list[0].GetComment()
		if slices.ContainsFunc(p.won[path], func(who string) bool { return who != winner }) {
			bad("run %s: %v were told that they decided step %s, but %s is on record", id, p.won[path], path, winner)
		}
		want := winner
		if list[0].GetDecision() == "approve" {
			want = "approve"
		}
		if outputs[path] != want {
			bad("run %s: step %s has the result %q, but %s decided %q", id, path, outputs[path], winner, want)
		}
	}
	return nil
}
