package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) runsSteerCommand() *cobra.Command {
	req := &api.SteerRunRequest{}
	cmd := &cobra.Command{
		Use:   "steer RUN STEP TEXT",
		Short: "Say something to an agent at work",
		Long:  `The agent of the step reads the text before its next turn. One that waits for people reads it once it goes on.`,
		Example: `
orchestrator runs steer last research "Look at the newest figures only."`,
		Args: args(3, 3, "the id of a run, or last, the path of a step and what its agent is told", `orchestrator runs steer last research "Be brief."`),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, words[0])
				if err != nil {
					return err
				}
				req.Id, req.Step, req.Text = id, words[1], words[2]
				run, err := c.once(ctx, &req.IdempotencyKey, func(ctx context.Context) (*api.Run, error) { return cl.runs.SteerRun(ctx, req) })
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(run)
				}
				fmt.Fprintf(c.painted(c.out), "%s told %s of run %s\n", painted("COMPLETED", icon("COMPLETED")), words[1], run.GetId())
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&req.IdempotencyKey, "idempotency-key", "", "the same key and text again tell it nothing more")
	c.jsonFlag(cmd, "print the run as one JSON document")
	return cmd
}
