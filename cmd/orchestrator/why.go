package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) runsWhyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why RUN",
		Short: "Say why a run is where it is",
		Long: `Says what a run waits for: its turn in a queue, a limit, a person, a signal, a time, a worker, a server; and what to do about it. Of a finished run it says why it ended.

The words in front are stable codes: --json has them with what they refer to.`,
		Example: `
orchestrator runs why last
orchestrator runs why last --json`,
		Args: args(1, 1, "the id of a run, or last", "orchestrator runs why last"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, words[0])
				if err != nil {
					return err
				}
				resp, err := cl.runs.WhyRun(ctx, &api.WhyRunRequest{Id: id})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				c.printCauses(id, resp)
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) printCauses(id string, resp *api.WhyRunResponse) {
	w, now := c.painted(c.out), time.Now()
	fmt.Fprintf(w, "run %s is %s\n", id, word(resp.GetRun().GetStatus().String()))
	for _, cause := range resp.GetCauses() {
		text := harmlessLine(cause.GetMessage())
		if until := cause.GetUntil(); until != nil {
			if in := human.Moment(until).Sub(now); in > 0 {
				text += ", " + human.Span(in.Round(time.Second)) + " from now at most"
			}
		} else if since := cause.GetSince(); since != nil {
			text += ", since " + human.Ago(human.Moment(since), now)
		}
		fmt.Fprintf(w, "  %s: %s\n", cause.GetCode(), text)
		for _, r := range cause.GetRefs() {
			switch r.GetKind() {
			case "run", "worker":
				fmt.Fprintf(w, "    %s %s\n", r.GetKind(), harmlessLine(r.GetId()))
			case "step":
				if cause.GetCode() == "running" {
					fmt.Fprintf(w, "    step %s\n", harmlessLine(r.GetId()))
				}
			}
		}
		if next := c.nextFor(id, cause); next != "" {
			fmt.Fprintf(w, "    next: %s\n", c.again(next))
		}
	}
	if len(resp.GetCauses()) == 0 {
		fmt.Fprintln(w, "  nothing holds it back")
	}
}

// nextFor is the command that does something about a cause, or shows more of it;
// empty: none is needed.
func (c *cli) nextFor(run string, cause *api.Cause) string {
	ref := func(kind string) string {
		for _, r := range cause.GetRefs() {
			if r.GetKind() == kind {
				return harmlessLine(r.GetId())
			}
		}
		return ""
	}
	switch cause.GetCode() {
	case "paused":
		return "runs resume " + run
	case "queue_paused":
		return "queues resume " + ref("queue")
	case "pipeline_paused":
		return "pipelines resume " + ref("pipeline")
	case "queue_full", "rate_limit":
		return "queues get " + ref("queue")
	case "concurrency", "children", "child_queued":
		return "runs why " + ref("run")
	case "approval":
		return "approvals get " + ref("approval")
	case "budget_exceeded":
		return "approvals approve " + ref("approval")
	case "needs_decision":
		return "approvals decide " + ref("approval") + " retry|done|fail"
	case "signal":
		return "signal " + run + " " + ref("signal")
	case "no_worker", "worker_busy":
		return "workers list"
	case "no_replica", "owner_died":
		if c.remote() {
			return ""
		}
		return "runs resume " + run
	case "running":
		return "runs watch " + run
	case "failed", "cancelled":
		return "runs retry " + run
	}
	return ""
}
