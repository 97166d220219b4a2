package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/pipeline"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) budgetsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "budgets",
		Short: "See what calls of models may cost, and raise it",
		Long: `Budgets bound what calls of models cost: of a run (settings.budget of its pipeline, and budgets.run of the configuration), of all runs of a pipeline, of all runs (workspace), and of all runs of a day in UTC. What a call may cost at most is set aside before it is made; one that does not fit makes its step wait.

A run's own budget is raised by approving what its step asks: orchestrator approvals list --status open`,
		Example: `
orchestrator budgets list
orchestrator budgets raise day --usd 20`,
		Args: noSuchVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.budgetsListCommand(), c.budgetsRaiseCommand())
	return cmd
}

func (c *cli) budgetsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the budgets that runs share, with what is spent",
		Example: "orchestrator budgets list",
		Args:    args(0, 0, "no arguments", "orchestrator budgets list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.budgets.ListBudgets(ctx, &api.ListBudgetsRequest{})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				c.printBudgets(resp.GetBudgets())
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) printBudgets(list []*api.Budget) {
	w := c.painted(c.out)
	if len(list) == 0 {
		fmt.Fprintln(w, "runs share no budget: budgets.pipeline, budgets.workspace and budgets.day of the configuration set one")
		return
	}
	rows := [][]string{{dim("BUDGET"), dim("NAME"), dim("LIMIT"), dim("SPENT"), dim("SET ASIDE")}}
	for _, b := range list {
		rows = append(rows, []string{
			b.GetScope(), cut(harmlessLine(b.GetName()), 40), amountText(b.GetLimit(), "none"), amountText(b.GetSpent(), "nothing"), amountText(b.GetHeld(), ""),
		})
	}
	table(w, rows)
}

// amountText tells the members of an amount that are not zero.
func amountText(a *api.BudgetAmount, nothing string) string {
	var list []string
	if a.GetUsd() != 0 {
		list = append(list, fmt.Sprintf("%.6g USD", a.GetUsd()))
	}
	if a.GetTokens() != 0 {
		list = append(list, plural(int(a.GetTokens()), "token"))
	}
	if a.GetCalls() != 0 {
		list = append(list, plural(int(a.GetCalls()), "call"))
	}
	if len(list) == 0 {
		return nothing
	}
	return strings.Join(list, ", ")
}

func (c *cli) budgetsRaiseCommand() *cobra.Command {
	by, key := &api.BudgetAmount{}, ""
	cmd := &cobra.Command{
		Use:   "raise pipeline|workspace|day [NAME]",
		Short: "Raise a budget that runs share; those that wait for it go on",
		Long:  `Raises a budget over what the configuration says, for good: of a pipeline by its id, of the workspace, or of a day (default: today in UTC). Steps that wait for it look again.`,
		Example: `
orchestrator budgets raise day --usd 20
orchestrator budgets raise pipeline nightly-report --tokens 500000`,
		Args: args(1, 2, "pipeline, workspace or day, and whose budget", "orchestrator budgets raise day --usd 20"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				if by.GetUsd() == 0 && by.GetTokens() == 0 && by.GetCalls() == 0 {
					return usage("orchestrator budgets raise day --usd 20", "say by how much: --usd, --tokens or --calls")
				}
				req := &api.RaiseBudgetRequest{Scope: args[0], By: by, IdempotencyKey: key}
				if len(args) == 2 {
					req.Name = args[1]
				}
				resp, err := cl.budgets.RaiseBudget(ctx, req)
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				w := c.painted(c.out)
				fmt.Fprintf(w, "%s raised by %s\n", painted("COMPLETED", icon("COMPLETED")), amountText(by, "nothing"))
				if n := int(resp.GetWoken()); n > 0 {
					fmt.Fprintf(w, "  %s may go on\n", plural(n, "waiting step"))
				}
				return nil
			})
		},
		ValidArgsFunction: cobra.FixedCompletions([]string{"pipeline", "workspace", "day"}, cobra.ShellCompDirectiveNoFileComp),
	}
	fl := cmd.Flags()
	fl.Float64Var(&by.Usd, "usd", 0, "by so many USD")
	fl.Float64Var(&by.Tokens, "tokens", 0, "by so many tokens")
	fl.Float64Var(&by.Calls, "calls", 0, "by so many calls")
	fl.StringVar(&key, "idempotency-key", "", "the same key again raises nothing")
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

// bound is the setting as a budget.
func (b budgetConfig) bound() pipeline.Budget {
	return pipeline.Budget{Tokens: int64(b.Tokens), USD: b.USD, Calls: int64(b.Calls)}
}
