package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) approvalsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "approvals",
		Short: "See what runs ask people, and answer",
		Long: `A step that asks (ask, approve) makes its run wait for a person. The question is an approval: it is decided once, here, in the dashboard or over the API, whoever is first.

On a server the run goes on by itself. A run of the embedded store whose command has ended is continued by: orchestrator runs resume RUN`,
		Example: `
orchestrator approvals list --status open
orchestrator approvals approve 0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f --comment "after lunch"
orchestrator approvals answer 0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f staging`,
		Args: noSuchVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.approvalsListCommand(), c.approvalsGetCommand(), c.approveCommand(), c.rejectCommand(), c.answerCommand(), c.decideCommand())
	return cmd
}

func (c *cli) approvalsListCommand() *cobra.Command {
	limit, token := int32(20), ""
	var status, run string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List approvals, newest first",
		Example: `
orchestrator approvals list --status open
orchestrator approvals list --run last --json`,
		Args: args(0, 0, "no arguments", "orchestrator approvals list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, run)
				if err != nil {
					return err
				}
				resp, err := cl.approvals.ListApprovals(ctx, &api.ListApprovalsRequest{
					Status: strings.ToLower(status), RunId: id, PageSize: limit, PageToken: token,
				})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				c.printApprovals(resp, status != "" || run != "")
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&status, "status", "", "only those in this state: open, decided, expired, withdrawn")
	fl.StringVar(&run, "run", "", "only those of this run, by its id or last")
	pageFlags(cmd, &limit, &token)
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) printApprovals(resp *api.ListApprovalsResponse, filtered bool) {
	w := c.painted(c.out)
	if len(resp.GetApprovals()) == 0 {
		text := "nothing has been asked yet"
		if filtered {
			text = "no approval fits the filter"
		}
		fmt.Fprintln(w, text)
		return
	}
	now := time.Now()
	rows := [][]string{{dim("APPROVAL"), dim("PIPELINE"), dim("STEP"), dim("STATUS"), dim("ASKED"), dim("QUESTION")}}
	for _, a := range resp.GetApprovals() {
		rows = append(rows, []string{
			a.GetId(), cut(a.GetPipeline(), 24), cut(a.GetPath(), 24), approvalStatus(a), human.Ago(human.Moment(a.GetCreatedAt()), now),
			cut(plainText(a.GetQuestion()), 60),
		})
	}
	table(w, rows)
	moreHint(w, resp.GetNextPageToken())
}

// approvalStatus is the state of an approval in its colour, with what was said.
func approvalStatus(a *api.Approval) string {
	text, said := a.GetStatus(), ""
	if n := len(a.GetDecisions()); n > 0 && text != "open" {
		said = ": " + a.GetDecisions()[n-1].GetDecision()
	}
	switch text {
	case "open":
		return painted("WAITING", icon("WAITING")+" open")
	case "decided":
		return painted("COMPLETED", icon("COMPLETED")+" decided"+said)
	}
	return dim(icon("SKIPPED") + " " + text + said)
}

func (c *cli) approvalsGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get APPROVAL",
		Short:   "Show a question, and what was said to it",
		Example: "orchestrator approvals get 0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f",
		Args:    args(1, 1, "the id of an approval", "orchestrator approvals get APPROVAL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				a, err := cl.approvals.GetApproval(ctx, &api.GetApprovalRequest{Id: args[0]})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(a)
				}
				c.printApproval(a)
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the approval as one JSON document")
	return cmd
}

func (c *cli) printApproval(a *api.Approval) {
	w := c.painted(c.out)
	now := time.Now()
	tellQuestion(w, a, now)
	fmt.Fprintln(w)
	rows := [][]string{
		{dim("approval"), a.GetId()},
		{dim("run"), a.GetRunId() + dim("  "+a.GetPipeline())},
		{dim("status"), approvalStatus(a)},
	}
	for _, d := range a.GetDecisions() {
		text := d.GetDecision()
		if d.GetValue() != "" {
			text += " " + plainText(d.GetValue())
		}
		text += " by " + d.GetActor() + ", " + human.Ago(human.Moment(d.GetAt()), now)
		if d.GetComment() != "" {
			text += ": " + plainText(d.GetComment())
		}
		rows = append(rows, []string{dim("decision"), text})
	}
	table(w, rows)
	if a.GetStatus() == "open" {
		fmt.Fprintln(w)
		look(w, c.ways(a)...)
	}
}

// decision is a verb that says one thing to an approval.
func (c *cli) decision(use, short, long, example string, n int, needs string, req func(args []string, a *api.Approval) (*api.DecideApprovalRequest, error)) *cobra.Command {
	var comment string
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		Args: args(n, n, needs, example),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				a, err := cl.approvals.GetApproval(ctx, &api.GetApprovalRequest{Id: args[0]})
				if err != nil {
					return err
				}
				r, err := req(args, a)
				if err != nil {
					return err
				}
				r.Id, r.Comment = a.GetId(), comment
				a, err = cl.approvals.DecideApproval(ctx, r)
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(a)
				}
				return c.tellDecided(ctx, cl, a, r)
			})
		},
	}
	cmd.Flags().StringVar(&comment, "comment", "", "why, for those who look later")
	c.jsonFlag(cmd, "print the approval as one JSON document")
	return cmd
}

// tellDecided says what was decided, and how the run goes on.
func (c *cli) tellDecided(ctx context.Context, cl *client, a *api.Approval, r *api.DecideApprovalRequest) error {
	said := r.GetDecision()
	if r.GetValue() != "" {
		said += " " + plainText(r.GetValue())
	}
	fmt.Fprintf(c.painted(c.out), "%s %s: %s\n", painted("COMPLETED", icon("COMPLETED")), said, cut(plainText(a.GetQuestion()), 70))
	if a.GetStatus() == "open" {
		fmt.Fprintln(c.painted(c.err), dim(stillOpen(a)))
		return nil
	}
	return c.howItGoesOn(ctx, cl, a.GetRunId())
}

// howItGoesOn says how a run of the embedded store continues that something has
// come for: no process may be there to notice.
func (c *cli) howItGoesOn(ctx context.Context, cl *client, run string) error {
	if cl.house == nil {
		look(c.painted(c.err), [2]string{c.again("runs watch " + run), "see the run go on"})
		return nil
	}
	r, err := cl.runs.GetRun(ctx, &api.GetRunRequest{Id: run})
	if err != nil || finished(r) || r.GetStatus() == api.Run_RUNNING {
		return err
	}
	look(c.painted(c.err), [2]string{c.again("runs resume " + run), "continue the run, unless another process does"})
	return nil
}

func (c *cli) approveCommand() *cobra.Command {
	var val string
	remember := false
	cmd := c.decision("approve APPROVAL", "Say yes", "A call that an agent wants to make is made once it is approved. Its arguments can be changed before (--value), and all further calls of the tool be approved for the rest of the run (--remember).", "orchestrator approvals approve 0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f",
		1, "the id of an approval", func([]string, *api.Approval) (*api.DecideApprovalRequest, error) {
			return &api.DecideApprovalRequest{Decision: "approve", Value: val, Remember: remember}, nil
		})
	cmd.Flags().StringVar(&val, "value", "", `of a tool's call: other arguments for it, as JSON; of a spent budget: by how much it is raised, as in {"usd": 5}, else by as much again`)
	cmd.Flags().BoolVar(&remember, "remember", false, "of a tool's call: approve all further ones of that tool by that agent, for the rest of the run")
	return cmd
}

func (c *cli) rejectCommand() *cobra.Command {
	return c.decision("reject APPROVAL", "Say no: the step fails, as its on_failure says", "", "orchestrator approvals reject 0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f --comment 'not on a Friday'",
		1, "the id of an approval", func([]string, *api.Approval) (*api.DecideApprovalRequest, error) {
			return &api.DecideApprovalRequest{Decision: "reject"}, nil
		})
}

func (c *cli) answerCommand() *cobra.Command {
	return c.decision("answer APPROVAL VALUE", "Answer a question",
		`The value is read by the choices or the type of the question: a number where a number is asked, a list as [a, b] or a,b. Where any value will do it is YAML.`,
		"orchestrator approvals answer 0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f staging",
		2, "the id of an approval and the answer", func(args []string, a *api.Approval) (*api.DecideApprovalRequest, error) {
			v, problem := value(a, args[1])
			if problem != "" && may(a, "answer") && a.GetStatus() == "open" {
				return nil, &failure{code: exitInvalid, what: "this is no answer to approval " + a.GetId() + ": " + problem}
			}
			return &api.DecideApprovalRequest{Decision: "answer", Value: v}, nil
		})
}

func (c *cli) decideCommand() *cobra.Command {
	var val string
	kinds := []string{"retry", "done", "fail"}
	cmd := c.decision("decide APPROVAL retry|done|fail", "Decide what became of a step that was lost",
		`When a process dies while a step runs that must not run twice, nobody knows whether its effect has happened. Say so: retry runs it again, done takes it as done with the output of --value, fail lets it fail.`,
		"orchestrator approvals decide 0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f done --value '{\"sent\": true}'",
		2, "the id of an approval and one of retry, done, fail", func(args []string, _ *api.Approval) (*api.DecideApprovalRequest, error) {
			if !slices.Contains(kinds, args[1]) {
				return nil, usage("say one of "+strings.Join(kinds, ", "), "%q is no decision", args[1])
			}
			return &api.DecideApprovalRequest{Decision: args[1], Value: val}, nil
		})
	cmd.Flags().StringVar(&val, "value", "", "with done: the step's output as JSON")
	return cmd
}

func (c *cli) signalCommand() *cobra.Command {
	req := &api.SendSignalRequest{}
	cmd := &cobra.Command{
		Use:   "signal RUN NAME",
		Short: "Send a run the signal that a step waits for",
		Long:  `A step with wait: {signal: NAME} goes on with the data as its output. A signal that comes early is kept until a step waits for it.`,
		Example: `
orchestrator signal last go
orchestrator signal last order-paid --data '{"order": 42}'`,
		Args: args(2, 2, "the id of a run, or last, and the name of a signal", "orchestrator signal last go"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, args[0])
				if err != nil {
					return err
				}
				req.Id, req.Name = id, args[1]
				run, err := c.once(ctx, &req.IdempotencyKey, func(ctx context.Context) (*api.Run, error) { return cl.runs.SendSignal(ctx, req) })
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(run)
				}
				fmt.Fprintf(c.painted(c.out), "%s sent %s to run %s\n", painted("COMPLETED", icon("COMPLETED")), args[1], run.GetId())
				return c.howItGoesOn(ctx, cl, run.GetId())
			})
		},
	}
	cmd.Flags().StringVar(&req.Data, "data", "", "what comes with it, as JSON; default null")
	cmd.Flags().StringVar(&req.IdempotencyKey, "idempotency-key", "", "the same key and signal again send nothing more")
	c.jsonFlag(cmd, "print the run as one JSON document")
	return cmd
}
