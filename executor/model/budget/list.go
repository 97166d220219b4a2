package budget

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// Budgets lists the shared budgets: those that were drawn from or raised, and the
// workspace's and today's.
func (p *Purse) Budgets(ctx context.Context) ([]pipeline.BudgetState, error) {
	rows, err := p.cfg.Store.Budgets(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]store.Budget{}
	for _, b := range rows {
		known[b.Key] = b
	}
	bounds := map[string]pipeline.Amount{
		pipeline.BudgetPipeline: p.cfg.Pipeline.Amount(), pipeline.BudgetWorkspace: p.cfg.Workspace.Amount(), pipeline.BudgetDay: p.cfg.Day.Amount(),
	}
	for scope, name := range map[string]string{pipeline.BudgetWorkspace: Workspace, pipeline.BudgetDay: p.today()} {
		key := store.BudgetKey(scope, name)
		if _, ok := known[key]; !ok && bounds[scope] != (pipeline.Amount{}) {
			known[key] = store.Budget{Key: key}
		}
	}
	var list []pipeline.BudgetState
	for _, key := range slices.Sorted(maps.Keys(known)) {
		b := known[key]
		scope, name, _ := strings.Cut(key, "/")
		list = append(list, pipeline.BudgetState{
			Scope: scope, Name: name, Limit: bounded(bounds[scope], bounds[scope].Plus(b.Raised)), Spent: b.Spent, Held: floor(b.Taken.Minus(b.Spent)),
		})
	}
	return list, nil
}

func (p *Purse) today() string { return p.cfg.Now().UTC().Format("2006-01-02") }

// RaiseBudget raises a shared budget and lets the runs that wait for it look
// again. It tells how many. An empty name is the workspace's, or today. The id is
// the caller's for this raise: the same one raises once.
func (p *Purse) RaiseBudget(ctx context.Context, id, scope, name string, by pipeline.Amount, actor string) (int, error) {
	switch {
	case scope == pipeline.BudgetWorkspace && name == "":
		name = Workspace
	case scope == pipeline.BudgetDay && name == "":
		name = p.today()
	case !slices.Contains([]string{pipeline.BudgetPipeline, pipeline.BudgetWorkspace, pipeline.BudgetDay}, scope):
		return 0, &pipeline.Error{
			Kind: pipeline.Invalid, Reason: "wrong_scope",
			Text: fmt.Sprintf("there is no shared budget of the scope %q; say pipeline, workspace or day. A run's is raised by approving what it asks", scope),
		}
	case name == "":
		return 0, &pipeline.Error{Kind: pipeline.Invalid, Reason: "no_name", Text: "say whose budget: the id of a pipeline"}
	}
	if err := Raise(ctx, p.cfg.Store, store.BudgetRaise{ID: id, Key: store.BudgetKey(scope, name), By: by, Actor: actor}); err != nil {
		return 0, err
	}
	return p.wake(ctx, owner{scope, name}, actor)
}

// wake lets the runs look again that have asked for a raise of the budget.
func (p *Purse) wake(ctx context.Context, whose owner, actor string) (int, error) {
	woken := 0
	q := store.ApprovalQuery{Status: pipeline.ApprovalOpen, Limit: 100}
	for {
		page, err := p.cfg.Store.Approvals(ctx, q)
		if err != nil {
			return woken, err
		}
		for _, a := range page.Approvals {
			if q.Before = a.ID; a.Kind != pipeline.ApprovalBudget {
				continue
			}
			ok, err := p.asks(ctx, a, whose)
			if err != nil {
				return woken, err
			}
			if !ok {
				continue
			}
			_, err = p.cfg.Store.Decide(ctx, a.ID, pipeline.Decision{
				Approval: a.ID, Decision: "approve", Value: map[string]any{}, Comment: "the budget was raised", Actor: actor, At: p.cfg.Now().UTC(),
			})
			switch kind := pipeline.KindOf(err); {
			case err == nil:
				woken++
			case kind != pipeline.Conflict && kind != pipeline.NotFound: // else somebody was faster
				return woken, err
			}
		}
		if !page.More {
			return woken, nil
		}
	}
}

// asks reports whether an approval is about the budget.
func (p *Purse) asks(ctx context.Context, a *pipeline.Approval, whose owner) (bool, error) {
	for e, err := range p.cfg.Store.StepEvents(ctx, a.Run, a.Path, 0) {
		if err != nil {
			return false, err
		}
		if o := e.Overdraft(); o != nil && e.Data.Call.Approval == a.ID {
			return owner{o.Scope, o.Name} == whose, nil
		}
	}
	return false, nil
}
