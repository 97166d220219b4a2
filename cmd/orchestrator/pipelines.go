package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) pipelinesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pipelines",
		Short: "Register pipelines and look at them",
		Long:  `A registered pipeline has an id and versions that never change. It can be run from the dashboard and by name over the API.`,
		Args:  noSuchVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.pipelinesListCommand(), c.pipelinesGetCommand(), c.pipelinesCreateCommand(), c.pipelinesPauseCommand(), c.pipelinesResumeCommand())
	return cmd
}

// reading gives a verb the API for as long as it takes.
func (c *cli) reading(cmd *cobra.Command, do func(context.Context, *client) error) error {
	ctx, stop := c.endOnSignal(cmd.Context())
	defer stop()
	cl, err := c.reader(ctx)
	if err != nil {
		return err
	}
	defer cl.close()
	return do(ctx, cl)
}

func (c *cli) pipelinesListCommand() *cobra.Command {
	limit, token := int32(50), ""
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the registered pipelines",
		Args:  args(0, 0, "no arguments", "orchestrator pipelines list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.pipelines.ListPipelines(ctx, &api.ListPipelinesRequest{PageSize: limit, PageToken: token})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				w := c.painted(c.out)
				if len(resp.GetPipelines()) == 0 {
					fmt.Fprintln(w, "no pipelines are registered; register one with: orchestrator pipelines create FILE")
					return nil
				}
				now := time.Now()
				rows := [][]string{{dim("PIPELINE"), dim("VERSION"), dim("REGISTERED"), dim("DESCRIPTION")}}
				for _, p := range resp.GetPipelines() {
					rows = append(rows, []string{p.GetId(), p.GetVersion(), human.Ago(human.Moment(p.GetCreatedAt()), now), cut(harmlessLine(p.GetDescription()), 60)})
				}
				table(w, rows)
				moreHint(w, resp.GetNextPageToken())
				return nil
			})
		},
	}
	pageFlags(cmd, &limit, &token)
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) pipelinesGetCommand() *cobra.Command {
	var ver string
	var mermaid, svg, source bool
	cmd := &cobra.Command{
		Use:   "get PIPELINE",
		Short: "Show a registered pipeline",
		Example: `
orchestrator pipelines get nightly-triage
orchestrator pipelines get nightly-triage --version 1.2.0 --source`,
		Args: args(1, 1, "the id of a pipeline", "orchestrator pipelines get nightly-triage"),
		RunE: func(cmd *cobra.Command, args []string) error {
			only, err := drawn(mermaid, svg)
			if err != nil {
				return err
			}
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				p, err := cl.pipelines.GetPipeline(ctx, &api.GetPipelineRequest{Name: args[0], Version: ver})
				if err != nil {
					return err
				}
				if source {
					only = (*api.Pipeline).GetSource
				}
				if err := c.printPipeline(p, only); err != nil || only != nil || c.asJSON {
					return err
				}
				versions, err := cl.pipelines.ListVersions(ctx, &api.ListVersionsRequest{Name: args[0]})
				if err != nil {
					return err
				}
				w := c.painted(c.out)
				fmt.Fprintf(w, "\n%s\n", strong.Render("Versions"))
				var rows [][]string
				for _, v := range versions.GetVersions() {
					rows = append(rows, []string{"  " + v.GetVersion(), human.Ago(human.Moment(v.GetCreatedAt()), time.Now())})
				}
				table(w, rows)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&ver, "version", "", "a version; default the newest")
	cmd.Flags().BoolVar(&source, "source", false, "print the YAML source")
	drawingFlags(cmd, &mermaid, &svg)
	c.jsonFlag(cmd, "print the description as one JSON document")
	return cmd
}

func (c *cli) pipelinesCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create FILE",
		Short: "Register a version of a pipeline",
		Long:  `Registers the pipeline in FILE (- is standard input) under its id and version, with the files that it names. A version never changes: for another text, raise version in the file.`,
		Example: `
orchestrator pipelines create nightly.yaml
orchestrator pipelines create nightly.yaml --server http://127.0.0.1:8080`,
		Args: args(1, 1, "the file of a pipeline", "orchestrator pipelines create nightly.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				src, err := c.readSource(args[0])
				if err != nil {
					return err
				}
				p, err := cl.pipelines.CreatePipeline(ctx, &api.CreatePipelineRequest{Source: src.text, File: src.file, Files: src.files})
				if err != nil {
					return c.refused(ctx, cl, src, err)
				}
				if c.asJSON {
					return c.printJSON(p)
				}
				fmt.Fprintf(c.painted(c.out), "%s registered %s %s\n", painted("COMPLETED", icon("COMPLETED")), p.GetId(), p.GetVersion())
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the pipeline as one JSON document")
	return cmd
}
