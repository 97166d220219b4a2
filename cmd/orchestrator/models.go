package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) modelsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "models",
		Short: "See the language models, ask one, and what they have cost",
		Long: `The models stand in models.yaml in the home (or where models.registry_path says); without one there are the built-in models. Keys come from ANTHROPIC_API_KEY, OPENAI_API_KEY and GEMINI_API_KEY or GOOGLE_API_KEY, or from secrets of these names. A model without its key is not asked.

  models:
    small:
      provider: local              # anthropic, openai, google, local, script, cassette
      model: llama3.2              # the provider's own name; default: small
      base_url: http://127.0.0.1:11434/v1
      capabilities: {tasks: [general], context_window: 128000, supports_function_calling: true}
    large:
      provider: anthropic
      model: claude-sonnet-4-5
      fallback: [small]
      prices: [{from: 2025-09-29, input: 3, output: 15, cached_input: 0.30}]   # USD for a million tokens`,
		Example: `
orchestrator models list
orchestrator models test gpt-4o-mini`,
		Args: noSuchVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.modelsListCommand(), c.modelsGetCommand(), c.modelsTestCommand(), c.modelsUsageCommand())
	return cmd
}

func (c *cli) modelsListCommand() *cobra.Command {
	available := false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the models, and which can be asked now",
		Example: `
orchestrator models list
orchestrator models list --available --json`,
		Args: args(0, 0, "no arguments", "orchestrator models list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.models.ListModels(ctx, &api.ListModelsRequest{Available: available})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				c.printModels(resp, available)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&available, "available", false, "only those that can be asked now")
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) printModels(resp *api.ListModelsResponse, available bool) {
	w := c.painted(c.out)
	list := resp.GetModels()
	if len(list) == 0 {
		if available {
			fmt.Fprintln(w, "no model can be asked now")
			look(w, [2]string{"orchestrator models list", "see why"})
			return
		}
		fmt.Fprintln(w, "models.yaml names no models")
		look(w, [2]string{"orchestrator models --help", "how to name some"})
		return
	}
	rows := [][]string{{dim("MODEL"), dim("PROVIDER"), dim("STATE"), dim("CALLS"), dim("FAILED"), dim("MEAN"), dim("COST"), dim("IN/OUT PER MILLION")}}
	for _, m := range list {
		s := m.GetStatistics()
		mean := ""
		if s.GetMeanSeconds() > 0 {
			mean = fmt.Sprintf("%.1fs", s.GetMeanSeconds())
		}
		rows = append(rows, []string{
			m.GetName(), m.GetProvider(), modelState(m), strconv.Itoa(int(s.GetCalls())), strconv.Itoa(int(s.GetFailures())), mean,
			costOf(s), priceOf(m.GetPrice()),
		})
	}
	table(w, rows)
	if resp.GetScripted() {
		fmt.Fprintln(w, dim("scripted answers stand in for all of them"))
	} else if resp.GetBuiltIn() {
		fmt.Fprintln(w, dim("these are built in; models.yaml in the home takes their place"))
	}
}

func modelState(m *api.Model) string {
	switch {
	case m.GetAvailable() && m.GetBreaker() != "closed":
		return painted("WAITING", icon("WAITING")+" "+m.GetBreaker())
	case m.GetAvailable():
		return painted("COMPLETED", icon("COMPLETED")+" ready")
	}
	return painted("FAILED", icon("FAILED")+" "+cut(m.GetReason(), 60))
}

func costOf(s *api.ModelStatistics) string {
	if s.GetCalls() == 0 {
		return ""
	}
	return costText(s.GetCostUsd(), s.GetUnpricedCalls())
}

// costText is a cost, with calls of which nobody knows what they cost.
func costText(usd float64, unpriced int32) string {
	switch {
	case unpriced > 0 && usd == 0:
		return "unknown"
	case unpriced > 0:
		return fmt.Sprintf("$%.4f and unknown", usd)
	}
	return fmt.Sprintf("$%.4f", usd)
}

func priceOf(p *api.ModelPrice) string {
	if p == nil {
		return "unknown"
	}
	return fmt.Sprintf("$%g/$%g", p.GetInput(), p.GetOutput())
}

func (c *cli) modelsGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get MODEL",
		Short:   "Show a model: what it can do, what it costs, how it has done",
		Example: "orchestrator models get gpt-4o-mini",
		Args:    args(1, 1, "the name of a model", "orchestrator models get MODEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				m, err := cl.models.GetModel(ctx, &api.GetModelRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(m)
				}
				c.printModel(m)
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the model as one JSON document")
	return cmd
}

func (c *cli) printModel(m *api.Model) {
	s, p := m.GetStatistics(), m.GetPrice()
	rows := [][]string{
		{dim("model"), m.GetName() + dim("  "+m.GetProvider()+"/"+m.GetId())},
		{dim("state"), modelState(m) + dim("  breaker "+m.GetBreaker())},
		{dim("tasks"), orNone(strings.Join(m.GetTasks(), ", "))},
		{dim("languages"), orNone(strings.Join(m.GetLanguages(), ", "))},
		{dim("can"), orNone(abilities(m))},
	}
	if n := m.GetContextWindow(); n > 0 {
		rows = append(rows, []string{dim("context"), fmt.Sprintf("%d tokens", n)})
	}
	if m.GetBaseModel() != "" {
		rows = append(rows, []string{dim("version of"), m.GetBaseModel() + ", " + m.GetQuantization()})
	}
	if len(m.GetFallback()) > 0 {
		rows = append(rows, []string{dim("fallback"), strings.Join(m.GetFallback(), ", ")})
	}
	price := "unknown"
	if p != nil {
		price = fmt.Sprintf("$%g in, $%g out, $%g from the cache, for a million tokens", p.GetInput(), p.GetOutput(), p.GetCachedInput())
		if p.GetFrom() != "" {
			price += dim("  since " + p.GetFrom())
		}
	}
	rows = append(rows, []string{dim("price"), price})
	if s.GetCalls() > 0 {
		rows = append(rows,
			[]string{dim("30 days"), fmt.Sprintf("%d calls, %d failed, %.1fs each, reward %.2f", s.GetCalls(), s.GetFailures(), s.GetMeanSeconds(), s.GetMeanReward())},
			[]string{dim("used"), fmt.Sprintf("%.0f tokens in, %.0f out, %s", s.GetInputTokens(), s.GetOutputTokens(), costOf(s))})
	}
	table(c.painted(c.out), rows)
}

func abilities(m *api.Model) string {
	var list []string
	for _, a := range []struct {
		yes  bool
		name string
	}{{m.GetFunctionCalling(), "call tools"}, {m.GetStructuredOutput(), "hold to a schema"}, {m.GetStreaming(), "stream"}} {
		if a.yes {
			list = append(list, a.name)
		}
	}
	return strings.Join(list, ", ")
}

func (c *cli) modelsTestCommand() *cobra.Command {
	prompt := ""
	cmd := &cobra.Command{
		Use:   "test MODEL",
		Short: "Ask a model for one short answer; it costs what that costs",
		Example: `
orchestrator models test gpt-4o-mini
orchestrator models test local --prompt "Say hello"`,
		Args: args(1, 1, "the name of a model", "orchestrator models test MODEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.models.TestModel(ctx, &api.TestModelRequest{Name: args[0], Prompt: prompt})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				w := c.painted(c.out)
				fmt.Fprintln(w, plainText(resp.GetText()))
				cost := "cost unknown"
				if resp.GetPriced() {
					cost = fmt.Sprintf("$%.6f", resp.GetCostUsd())
				}
				fmt.Fprintln(c.painted(c.err), dim(fmt.Sprintf("%s answered in %.1fs: %d tokens in, %d out, %s",
					resp.GetModel(), resp.GetSeconds(), resp.GetInputTokens(), resp.GetOutputTokens(), cost)))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&prompt, "prompt", "", "what it is asked; default: to answer with the word ready")
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) modelsUsageCommand() *cobra.Command {
	limit, token := int32(50), ""
	req := &api.ListUsageRequest{}
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "List what models have used and cost, by day, pipeline and model",
		Example: `
orchestrator models usage --since 2026-01-01
orchestrator models usage --pipeline research --json`,
		Args: args(0, 0, "no arguments", "orchestrator models usage"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				req.PageSize, req.PageToken = limit, token
				resp, err := cl.models.ListUsage(ctx, req)
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				c.printUsage(resp)
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Since, "since", "", "from this day on, as in 2026-01-31")
	f.StringVar(&req.Until, "until", "", "up to this day")
	f.StringVar(&req.Pipeline, "pipeline", "", "only of this pipeline")
	f.StringVar(&req.Model, "model", "", "only of this model, as in openai/gpt-4o")
	pageFlags(cmd, &limit, &token)
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) printUsage(resp *api.ListUsageResponse) {
	w := c.painted(c.out)
	if len(resp.GetUsage()) == 0 {
		fmt.Fprintln(w, "no model was asked")
		return
	}
	rows := [][]string{{dim("DAY"), dim("PIPELINE"), dim("MODEL"), dim("CALLS"), dim("FAILED"), dim("TOKENS IN"), dim("OUT"), dim("COST")}}
	for _, u := range resp.GetUsage() {
		s := u.GetStatistics()
		rows = append(rows, []string{
			u.GetDay(), orNone(u.GetPipeline()), u.GetModel(), strconv.Itoa(int(s.GetCalls())), strconv.Itoa(int(s.GetFailures())),
			fmt.Sprintf("%.0f", s.GetInputTokens()), fmt.Sprintf("%.0f", s.GetOutputTokens()), costOf(s),
		})
	}
	table(w, rows)
	moreHint(w, resp.GetNextPageToken())
}

// completeModel lists the models of the registry.
func (c *cli) completeModel(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completing(c.reader, func(ctx context.Context, cl *client) []string {
		resp, err := cl.models.ListModels(ctx, &api.ListModelsRequest{})
		if err != nil {
			return nil
		}
		var names []string
		for _, m := range resp.GetModels() {
			names = append(names, m.GetName()+"\t"+m.GetProvider())
		}
		return names
	})
}
