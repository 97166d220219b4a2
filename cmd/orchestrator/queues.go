package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) queuesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queues",
		Short: "See where runs wait for their start, and set limits",
		Long: `A run waits in the queue that it or its pipeline names (default: default). Higher priorities go first; within one the queues take turns by their weights, and so do the fair keys of a queue.

A queue appears when a run or a setting first names it.`,
		Example: `
orchestrator queues list
orchestrator queues set reports --max-running 4 --rate 10/m
orchestrator queues pause reports`,
		Args: noSuchVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.queuesListCommand(), c.queuesGetCommand(), c.queuesSetCommand(),
		c.queueCommand("pause", "Let no run of a queue start; runs under way go on", func(ctx context.Context, cl *client, name string) (*api.Queue, error) {
			return cl.queues.PauseQueue(ctx, &api.PauseQueueRequest{Name: name})
		}),
		c.queueCommand("resume", "Let the runs of a queue start again", func(ctx context.Context, cl *client, name string) (*api.Queue, error) {
			return cl.queues.ResumeQueue(ctx, &api.ResumeQueueRequest{Name: name})
		}))
	return cmd
}

func (c *cli) queuesListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the queues with what waits in them",
		Example: "\norchestrator queues list --json",
		Args:    args(0, 0, "no arguments", "orchestrator queues list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.queues.ListQueues(ctx, &api.ListQueuesRequest{})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				c.printQueues(resp.GetQueues())
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) printQueues(list []*api.Queue) {
	w := c.painted(c.out)
	if len(list) == 0 {
		fmt.Fprintln(w, "no queue has been used yet: runs that find room start at once")
		return
	}
	now := time.Now()
	rows := [][]string{{dim("QUEUE"), dim("WAITING"), dim("OLDEST"), dim("RUNNING"), dim("LIMITS"), dim("STATE")}}
	for _, q := range list {
		oldest, state := "", "open"
		if q.GetOldest() != nil {
			oldest = human.Ago(human.Moment(q.GetOldest()), now)
		}
		if q.GetPaused() {
			state = "paused by " + harmlessLine(q.GetPausedBy())
		}
		waiting := strconv.Itoa(int(q.GetWaiting()))
		if q.GetHeld() > 0 {
			waiting += fmt.Sprintf(" (%d held)", q.GetHeld())
		}
		rows = append(rows, []string{q.GetName(), waiting, oldest, strconv.Itoa(int(q.GetRunning())), limitsOf(q), state})
	}
	table(w, rows)
}

// limitsOf are the limits of a queue in a few words.
func limitsOf(q *api.Queue) string {
	var list []string
	if q.GetMaxRunning() > 0 {
		list = append(list, fmt.Sprintf("%d running", q.GetMaxRunning()))
	}
	if q.GetRate() != "" {
		rate := q.GetRate()
		if q.GetBurst() > 1 {
			rate += fmt.Sprintf(" (burst %d)", q.GetBurst())
		}
		list = append(list, rate)
	}
	if q.GetWeight() > 1 {
		list = append(list, fmt.Sprintf("weight %d", q.GetWeight()))
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func (c *cli) printQueue(q *api.Queue) error {
	if c.asJSON {
		return c.printJSON(q)
	}
	c.printQueues([]*api.Queue{q})
	w := c.painted(c.out)
	for _, k := range q.GetKeys() {
		fmt.Fprintf(w, "  %s  %d waiting, weight %d\n", harmlessLine(k.GetKey()), k.GetWaiting(), k.GetWeight())
	}
	if q.GetNextStart() != nil {
		fmt.Fprintf(w, "  the rate lets the next run start at %s\n", human.Moment(q.GetNextStart()).Format(time.RFC3339))
	}
	return nil
}

// queueCommand is a verb that takes the name of a queue and shows the queue.
func (c *cli) queueCommand(verb, short string, do func(context.Context, *client, string) (*api.Queue, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:     verb + " QUEUE",
		Short:   short,
		Example: fmt.Sprintf("\norchestrator queues %s default", verb),
		Args:    args(1, 1, "the name of a queue", fmt.Sprintf("orchestrator queues %s default", verb)),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				q, err := do(ctx, cl, words[0])
				if err != nil {
					return err
				}
				return c.printQueue(q)
			})
		},
	}
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) queuesGetCommand() *cobra.Command {
	return c.queueCommand("get", "Show a queue with its fair keys", func(ctx context.Context, cl *client, name string) (*api.Queue, error) {
		return cl.queues.GetQueue(ctx, &api.GetQueueRequest{Name: name})
	})
}

func (c *cli) queuesSetCommand() *cobra.Command {
	req := &api.SetQueueRequest{}
	var limit, weight int32
	var rate string
	var weights map[string]int
	cmd := &cobra.Command{
		Use:   "set QUEUE",
		Short: "Set limits and weights of a queue",
		Example: `
orchestrator queues set reports --max-running 4
orchestrator queues set reports --rate 10/m --burst 3
orchestrator queues set default --key-weight team-a=3
orchestrator queues set reports --max-running 0 --rate ""`,
		Args: args(1, 1, "the name of a queue", "orchestrator queues set reports --max-running 4"),
		RunE: func(cmd *cobra.Command, words []string) error {
			req.Name = words[0]
			fl := cmd.Flags()
			if fl.Changed("max-running") {
				req.MaxRunning = &limit
			}
			if fl.Changed("rate") {
				req.Rate = &rate
			}
			if fl.Changed("weight") {
				req.Weight = &weight
			}
			for key, w := range weights {
				if req.Weights == nil {
					req.Weights = map[string]int32{}
				}
				req.Weights[key] = int32(min(max(w, 0), 1<<30))
			}
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				q, err := cl.queues.SetQueue(ctx, req)
				if err != nil {
					return err
				}
				return c.printQueue(q)
			})
		},
	}
	fl := cmd.Flags()
	fl.Int32Var(&limit, "max-running", 0, "how many runs may be under way at the same time; 0: no limit")
	fl.StringVar(&rate, "rate", "", "how many may start in a time, as in 10/m, by s, m, h or d; empty: no limit")
	fl.Int32Var(&req.Burst, "burst", 0, "how many may start at once after a lull, with --rate; default 1")
	fl.Int32Var(&weight, "weight", 1, "the queue's share among the queues, 1 to 1000")
	fl.StringToIntVar(&weights, "key-weight", nil, "the share of a fair key within the queue, as in team-a=3")
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

// pipelinePauseCommand pauses a registered pipeline or lets it go on.
func (c *cli) pipelinePauseCommand(verb, short string, do func(context.Context, *client, string) (*api.PipelinePause, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:     verb + " PIPELINE",
		Short:   short,
		Example: fmt.Sprintf("\norchestrator pipelines %s nightly-report", verb),
		Args:    args(1, 1, "the id of a pipeline", fmt.Sprintf("orchestrator pipelines %s nightly-report", verb)),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				p, err := do(ctx, cl, words[0])
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(p)
				}
				w := c.painted(c.out)
				if p.GetPaused() {
					fmt.Fprintf(w, "%s is paused: its new runs wait; go on with: %s\n", p.GetName(), c.again("pipelines resume "+p.GetName()))
				} else {
					fmt.Fprintf(w, "%s is not paused\n", p.GetName())
				}
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) pipelinesPauseCommand() *cobra.Command {
	return c.pipelinePauseCommand("pause", "Let no queued run of a pipeline start", func(ctx context.Context, cl *client, name string) (*api.PipelinePause, error) {
		return cl.queues.PausePipeline(ctx, &api.PausePipelineRequest{Name: name})
	})
}

func (c *cli) pipelinesResumeCommand() *cobra.Command {
	return c.pipelinePauseCommand("resume", "Let the runs of a pipeline start again", func(ctx context.Context, cl *client, name string) (*api.PipelinePause, error) {
		return cl.queues.ResumePipeline(ctx, &api.ResumePipelineRequest{Name: name})
	})
}

// completeQueue offers the queues that have been used or set.
func (c *cli) completeQueue(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completing(c.reader, func(ctx context.Context, cl *client) []string {
		resp, err := cl.queues.ListQueues(ctx, &api.ListQueuesRequest{})
		if err != nil {
			return nil
		}
		var names []string
		for _, q := range resp.GetQueues() {
			names = append(names, q.GetName()+"\t"+strconv.Itoa(int(q.GetWaiting()))+" waiting")
		}
		return names
	})
}
