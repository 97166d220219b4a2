package pipeline

import (
	"fmt"
	"math"
	"strings"
)

// ReasonBudget is why a step or run waits, or fails, when a budget is spent.
const ReasonBudget = "budget_exceeded"

// Amount is what calls of models have cost, or may cost.
type Amount struct {
	Tokens int64 // in and out
	Nanos  int64 // of a USD: 1e9 are one
	Calls  int64
}

const nano = 1e9

// mostAmount bounds what budgets are raised by, so that sums stay in range.
const mostAmount = 1e17

// Nanos is an amount of USD in billionths, rounded up; a hundred million USD at most.
func Nanos(usd float64) int64 { return int64(min(math.Ceil(usd*nano), mostAmount)) }

// AmountOf is what a usage says.
func AmountOf(u *Usage) Amount {
	return Amount{Tokens: int64(u.InputTokens) + int64(u.OutputTokens), Nanos: Nanos(u.CostUSD), Calls: int64(u.Calls)}
}

// PaidOf is what a usage says but for answers that were replayed.
func PaidOf(u *Usage) Amount {
	return AmountOf(u).Minus(Amount{Tokens: int64(u.ReplayedTokens), Nanos: Nanos(u.ReplayedUSD), Calls: int64(u.ReplayedCalls)})
}

// Amount is the budget in whole numbers.
func (b *Budget) Amount() Amount {
	return Amount{Tokens: b.Tokens, Nanos: Nanos(b.USD), Calls: b.Calls}
}

// USD is the amount of money.
func (a Amount) USD() float64 { return float64(a.Nanos) / nano }

// Plus adds two amounts.
func (a Amount) Plus(b Amount) Amount {
	return Amount{Tokens: a.Tokens + b.Tokens, Nanos: a.Nanos + b.Nanos, Calls: a.Calls + b.Calls}
}

// Minus takes an amount away.
func (a Amount) Minus(b Amount) Amount {
	return Amount{Tokens: a.Tokens - b.Tokens, Nanos: a.Nanos - b.Nanos, Calls: a.Calls - b.Calls}
}

// members are those of an amount, in the order in which they are told.
func (a *Amount) members() [3]*int64 { return [3]*int64{&a.Nanos, &a.Tokens, &a.Calls} }

var memberNames = [3]string{"usd", "tokens", "calls"}

// Exceeds names the members of the amount that are greater than those of the
// limit; a zero member of base, from which the limit came by raises, means that
// there is none.
func (a Amount) Exceeds(base, limit Amount) []string {
	var names []string
	have, from, most := a.members(), base.members(), limit.members()
	for i, n := range memberNames {
		if *from[i] > 0 && *have[i] > *most[i] {
			names = append(names, n)
		}
	}
	return names
}

// Of is the amount in one member: 0.25 USD, 1200 tokens, 3 calls.
func (a Amount) Of(member string) string {
	switch member {
	case "usd":
		return fmt.Sprintf("%.6g USD", a.USD())
	case "tokens":
		return fmt.Sprintf("%d tokens", a.Tokens)
	}
	if a.Calls == 1 {
		return "1 call"
	}
	return fmt.Sprintf("%d calls", a.Calls)
}

// Only keeps the members that are named.
func (a Amount) Only(names []string) Amount {
	var b Amount
	from, to := a.members(), b.members()
	for i, n := range memberNames {
		for _, name := range names {
			if n == name {
				*to[i] = *from[i]
			}
		}
	}
	return b
}

// String tells the members that are not zero.
func (a Amount) String() string {
	var list []string
	of := a.members()
	for i, n := range memberNames {
		if *of[i] != 0 {
			list = append(list, a.Of(n))
		}
	}
	return strings.Join(list, ", ")
}

// The scopes of budgets.
const (
	BudgetRun       = "run"
	BudgetPipeline  = "pipeline"
	BudgetWorkspace = "workspace"
	BudgetDay       = "day"
)

// Overdraft is what the approval of a spent budget is about. It stands in the
// journal, as the request of the call that was not made.
type Overdraft struct {
	Scope, Name string   // whose budget: BudgetRun and the run's id, BudgetDay and 2026-01-31 ...
	Members     []string // that are spent: usd, tokens, calls
	Limit       Amount   // as it was
	Needs       Amount   // of the call, at most
}

// Value is the overdraft as a JSON value.
func (o *Overdraft) Value() map[string]any {
	members := make([]any, len(o.Members))
	for i, m := range o.Members {
		members[i] = m
	}
	return map[string]any{"budget": map[string]any{
		"scope": o.Scope, "name": o.Name, "members": members, "limit": o.Limit.value(), "needs": o.Needs.value(),
	}}
}

func (a Amount) value() map[string]any {
	return map[string]any{"tokens": a.Tokens, "nanos": a.Nanos, "calls": a.Calls}
}

func amountOf(v any) Amount {
	m, _ := v.(map[string]any)
	n := func(k string) int64 { i, _ := m[k].(int64); return i }
	return Amount{Tokens: n("tokens"), Nanos: n("nanos"), Calls: n("calls")}
}

// Overdraft is what an event asks people about a spent budget; nil: it does not.
func (e *Event) Overdraft() *Overdraft {
	c := e.Data.Call
	if e.Type != ModelCalled || c == nil || c.State != InvocationAsked {
		return nil
	}
	m, _ := c.Request.(map[string]any)
	b, ok := m["budget"].(map[string]any)
	if !ok {
		return nil
	}
	o := &Overdraft{Limit: amountOf(b["limit"]), Needs: amountOf(b["needs"])}
	o.Scope, _ = b["scope"].(string)
	o.Name, _ = b["name"].(string)
	list, _ := b["members"].([]any)
	for _, e := range list {
		if s, ok := e.(string); ok {
			o.Members = append(o.Members, s)
		}
	}
	return o
}

// RaiseType is the type of the value that may come with the approval of a spent
// budget: by how much it is raised.
func RaiseType() *Type {
	least := 0.0
	number := func(name, kind, doc string) Property {
		most := 1e15
		if kind == "number" {
			most = mostAmount / nano
		}
		return Property{Name: name, Type: Type{Kind: kind, Min: &least, Max: &most}, Doc: doc}
	}
	return &Type{Kind: "map", Properties: []Property{
		number("usd", "number", "raise it by so many USD"),
		number("tokens", "integer", "raise it by so many tokens"),
		number("calls", "integer", "raise it by so many calls"),
	}}
}

// Raise is by how much a decision raises the budget: by what its value says, of
// RaiseType; without one by as much again, of what was spent. A deadline raises
// nothing: it only lets the step look again.
func (o *Overdraft) Raise(d *Decision) Amount {
	if d.Decision != "approve" || d.Actor == DeadlineActor {
		return Amount{}
	}
	m, ok := d.Value.(map[string]any)
	if !ok {
		return o.Limit.Only(o.Members)
	}
	number := func(k string) float64 {
		switch v := m[k].(type) {
		case int64:
			return float64(v)
		case float64:
			return v
		}
		return 0
	}
	return Amount{Tokens: int64(number("tokens")), Nanos: Nanos(number("usd")), Calls: int64(number("calls"))}
}

// BudgetState is a shared budget as it stands.
type BudgetState struct {
	Scope, Name string
	Limit       Amount // with all raises; zero members: no bound
	Spent       Amount
	Held        Amount // drawn by replicas and not spent, or not yet settled
}
