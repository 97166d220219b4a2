package server

import (
	"context"
	"math"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Budgets keep what calls of models may cost.
type Budgets interface {
	// Budgets lists the shared ones.
	Budgets(ctx context.Context) ([]pipeline.BudgetState, error)
	// RaiseBudget raises one, once for each id, and tells how many steps look again.
	RaiseBudget(ctx context.Context, id, scope, name string, by pipeline.Amount, actor string) (int, error)
}

// Recorder makes cassettes of runs.
type Recorder interface {
	// Cassette is a file with the answers that models gave to the run.
	Cassette(ctx context.Context, run pipeline.RunID) ([]byte, error)
}

// budgets serves orchestrator.v1.Budgets.
type budgets struct {
	orchestratorv1.UnimplementedBudgetsServer
	*Server
}

var _ orchestratorv1.BudgetsServer = budgets{}

// ListBudgets lists the shared budgets.
func (s budgets) ListBudgets(ctx context.Context, _ *orchestratorv1.ListBudgetsRequest) (*orchestratorv1.ListBudgetsResponse, error) {
	list, err := s.cfg.Budgets.Budgets(ctx)
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListBudgetsResponse{Budgets: make([]*orchestratorv1.Budget, len(list))}
	for i, b := range list {
		resp.Budgets[i] = &orchestratorv1.Budget{
			Scope: b.Scope, Name: b.Name, Limit: fromAmount(b.Limit), Spent: fromAmount(b.Spent), Held: fromAmount(b.Held),
		}
	}
	return resp, nil
}

func fromAmount(a pipeline.Amount) *orchestratorv1.BudgetAmount {
	return &orchestratorv1.BudgetAmount{Usd: a.USD(), Tokens: float64(a.Tokens), Calls: float64(a.Calls)}
}

// RaiseBudget raises a shared budget.
func (s budgets) RaiseBudget(ctx context.Context, req *orchestratorv1.RaiseBudgetRequest) (*orchestratorv1.RaiseBudgetResponse, error) {
	const most = 1e15
	by := req.GetBy()
	for _, m := range []struct {
		name string
		n    float64
		most float64
	}{{"by.usd", by.GetUsd(), 1e8}, {"by.tokens", by.GetTokens(), most}, {"by.calls", by.GetCalls(), most}} {
		if math.IsNaN(m.n) || m.n < 0 || m.n > m.most {
			return nil, refuse(m.name, "out_of_range", "it is a number from 0 to %g", m.most)
		}
	}
	a := pipeline.Amount{Tokens: int64(by.GetTokens()), Nanos: pipeline.Nanos(by.GetUsd()), Calls: int64(by.GetCalls())}
	if a == (pipeline.Amount{}) {
		return nil, refuse("by", "required", "say by how much: usd, tokens or calls")
	}
	id := req.GetIdempotencyKey()
	if len(id) > 200 {
		return nil, refuse("idempotency_key", "too_long", "longer than 200 bytes")
	}
	if id == "" {
		id = string(pipeline.NewApprovalID())
	} else {
		id = "key " + id // never an approval's
	}
	n, err := s.cfg.Budgets.RaiseBudget(ctx, id, req.GetScope(), req.GetName(), a, localUser)
	if err != nil {
		return nil, err
	}
	return &orchestratorv1.RaiseBudgetResponse{Woken: int32(min(n, math.MaxInt32))}, nil //nolint:gosec // bounded
}
