package main

import (
	"slices"
	"strconv"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// The heads of the tables of calls.
var (
	callHead  = []string{"Step", "N", "Call", "Model", "State", "Tokens in", "Tokens out", "Cost", "Took", "Decided by"}
	modelHead = []string{"Model", "Calls", "Tokens in", "Tokens out", "Cost"}
)

// reportCalls is how many calls a report lists.
const reportCalls = 1000

// CallRows are the calls of models and tools, in their order.
func (a *account) CallRows() [][]string {
	var rows [][]string
	for _, x := range a.Calls[:min(len(a.Calls), reportCalls)] {
		facts := callFacts{Agent: x.GetAgent(), Turn: x.GetTurn(), Param: x.GetParam(), Name: x.GetName()}
		state := x.GetState()
		if x.GetFailed() || x.GetError() != nil {
			state = "failed"
		}
		row := []string{x.GetStep(), strconv.Itoa(int(x.GetN())), facts.text("", nil), modelName(x), state, "", "", "", "", x.GetDecidedBy()}
		if u := x.GetUsage(); u != nil {
			row[5], row[6], row[7] = strconv.Itoa(int(u.GetInputTokens())), strconv.Itoa(int(u.GetOutputTokens())), costText(u.GetCostUsd(), u.GetUnpricedCalls())
		}
		if x.GetTook() > 0 {
			row[8] = human.Span(milliseconds(x.GetTook()))
		}
		rows = append(rows, row)
	}
	return rows
}

// modelName is the model that answered; a scripted one says so.
func modelName(x *api.Call) string {
	if x.GetScripted() {
		return x.GetModel() + " (scripted model)"
	}
	return x.GetModel()
}

// ModelRows are what each model has cost, the dearest first.
func (a *account) ModelRows() [][]string {
	type sum struct {
		name          string
		calls         int
		input, output int64
		usd           float64
		unpriced      int32
	}
	var sums []*sum
	for _, x := range a.Calls {
		if x.GetKind() != "model" {
			continue
		}
		name := modelName(x)
		i := slices.IndexFunc(sums, func(s *sum) bool { return s.name == name })
		if i < 0 {
			i = len(sums)
			sums = append(sums, &sum{name: name})
		}
		s, u := sums[i], x.GetUsage()
		s.calls++
		s.input, s.output, s.usd = s.input+int64(u.GetInputTokens()), s.output+int64(u.GetOutputTokens()), s.usd+u.GetCostUsd()
		s.unpriced += u.GetUnpricedCalls()
	}
	slices.SortStableFunc(sums, func(a, b *sum) int {
		switch {
		case a.usd > b.usd:
			return -1
		case a.usd < b.usd:
			return 1
		}
		return 0
	})
	var rows [][]string
	for _, s := range sums {
		rows = append(rows, []string{s.name, strconv.Itoa(s.calls), strconv.FormatInt(s.input, 10), strconv.FormatInt(s.output, 10), costText(s.usd, s.unpriced)})
	}
	return rows
}
