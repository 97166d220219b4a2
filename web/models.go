package web

import (
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// modelsData is what the page of the models shows.
type modelsData struct {
	Models   []*api.Model
	BuiltIn  bool
	Scripted bool
	None     bool // this process asks no models
	Budgets  []*api.Budget
}

func (s *site) modelList(w http.ResponseWriter, r *http.Request) {
	var d modelsData
	list, err := s.models.ListModels(r.Context(), &api.ListModelsRequest{}, bigAnswers)
	switch {
	case status.Code(err) == codes.Unavailable:
		d.None = true
	case err != nil:
		s.fail(w, r, err)
		return
	}
	d.Models, d.BuiltIn, d.Scripted = list.GetModels(), list.GetBuiltIn(), list.GetScripted()
	budgets, err := s.budgets.ListBudgets(r.Context(), &api.ListBudgetsRequest{}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	d.Budgets = budgets.GetBudgets()
	s.show(w, r, http.StatusOK, page{"Models", "models", modelsPage(d)})
}

func (s *site) toolList(w http.ResponseWriter, r *http.Request) {
	list, err := s.tools.ListTools(r.Context(), &api.ListToolsRequest{}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, page{"Tools", "models", toolsPage(list.GetTools())})
}

// perMillion is a price in USD for a million tokens: cents at least, and what
// is smaller where there is some.
func perMillion(usd float64) string {
	whole := strconv.FormatFloat(usd, 'f', 2, 64)
	if exact := strconv.FormatFloat(usd, 'f', -1, 64); len(exact) > len(whole) {
		return "$" + exact
	}
	return "$" + whole
}

// share is a part of a whole in percent; 0: there is no whole.
func share(part, whole float64) string {
	if whole <= 0 {
		return "0"
	}
	return num(min(100, 100*part/whole))
}

// used is how much of a budget is spent, in percent of what comes to its end
// first; empty: it has no limit.
func used(b *api.Budget) string {
	most, any := 0.0, false
	limit, spent := b.GetLimit(), b.GetSpent()
	for _, x := range [][2]float64{
		{spent.GetUsd(), limit.GetUsd()}, {float64(spent.GetTokens()), float64(limit.GetTokens())}, {float64(spent.GetCalls()), float64(limit.GetCalls())},
	} {
		if x[1] > 0 {
			most, any = max(most, x[0]/x[1]), true
		}
	}
	if !any {
		return ""
	}
	return share(most, 1)
}

// firstSentence is the first one of a description.
func firstSentence(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	if i := strings.Index(line, ". "); i > 0 {
		line = line[:i+1]
	}
	return clip(line, 140)
}

// budgetAmount is what a budget counts, in words.
func budgetAmount(a *api.BudgetAmount) string {
	text := ""
	add := func(s string) {
		if text != "" {
			text += ", "
		}
		text += s
	}
	if a.GetUsd() > 0 {
		add(dollars(a.GetUsd()))
	}
	if a.GetTokens() > 0 {
		add(count(int64(a.GetTokens())) + " tokens")
	}
	if a.GetCalls() > 0 {
		add(plural(int64(a.GetCalls()), "call", "calls"))
	}
	if text == "" {
		return "nothing"
	}
	return text
}

// effectWords say what a crash may do to a call of a tool.
func effectWords(effect string) string {
	if effect == "" {
		return "depends on the call"
	}
	return human.Phrase(effect)
}
