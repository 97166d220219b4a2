package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// completeFlags tells the shells what may stand where.
func (c *cli) completeFlags(root *cobra.Command) {
	yamlFiles := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
	}
	for _, path := range [][]string{{"run"}, {"replay"}, {"validate"}, {"explain"}, {"pipelines", "create"}} {
		if cmd, _, err := root.Find(path); err == nil {
			cmd.ValidArgsFunction = yamlFiles
		}
	}
	for _, verb := range []string{"get", "watch", "logs", "artifacts", "cancel", "pause", "resume", "retry", "rerun", "fork", "replay", "diff", "export", "why"} {
		if cmd, _, err := root.Find([]string{"runs", verb}); err == nil {
			cmd.ValidArgsFunction = c.completeRun(verb)
		}
	}
	for _, verb := range []string{"steer", "calls", "answers"} {
		cmd, _, err := root.Find([]string{"runs", verb})
		if err != nil {
			continue
		}
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return c.completeRun(verb)(cmd, args, typed)
			}
			return c.completeStep(cmd, args[:1], typed)
		}
	}
	if cmd, _, err := root.Find([]string{"signal"}); err == nil {
		cmd.ValidArgsFunction = c.completeRun("signal")
	}
	for _, verb := range []string{"get", "approve", "reject", "answer", "decide"} {
		if cmd, _, err := root.Find([]string{"approvals", verb}); err == nil {
			cmd.ValidArgsFunction = c.completeApproval(verb)
		}
	}
	if cmd, _, err := root.Find([]string{"report"}); err == nil {
		cmd.ValidArgsFunction = c.completeRun("report")
	}
	for _, verb := range []string{"get", "pause", "resume"} {
		if cmd, _, err := root.Find([]string{"pipelines", verb}); err == nil {
			cmd.ValidArgsFunction = c.completePipeline
		}
	}
	for _, verb := range []string{"get", "set", "pause", "resume"} {
		if cmd, _, err := root.Find([]string{"queues", verb}); err == nil {
			cmd.ValidArgsFunction = c.completeQueue
		}
	}
	for _, verb := range []string{"get", "drain"} {
		if cmd, _, err := root.Find([]string{"workers", verb}); err == nil {
			cmd.ValidArgsFunction = c.completeWorker
		}
	}
	for _, verb := range []string{"get", "test"} {
		if cmd, _, err := root.Find([]string{"models", verb}); err == nil {
			cmd.ValidArgsFunction = c.completeModel
		}
	}
	for _, verb := range []string{"get", "call"} {
		if cmd, _, err := root.Find([]string{"tools", verb}); err == nil {
			cmd.ValidArgsFunction = c.completeTool
		}
	}
	for verb, copied := range map[string]bool{"get": false, "test": false, "update": true, "remove": true} {
		if cmd, _, err := root.Find([]string{"skills", verb}); err == nil {
			cmd.ValidArgsFunction = c.completeSkill(copied)
		}
	}
	none := cobra.FixedCompletions(nil, cobra.ShellCompDirectiveNoFileComp)
	for _, path := range [][]string{{"schema"}, {"serve"}, {"worker"}, {"workers", "list"}, {"models", "list"}, {"tools", "list"}, {"skills", "list"}, {"skills", "add"}, {"models", "usage"}, {"doctor"}, {"version"}, {"runs", "list"}, {"pipelines", "list"}, {"approvals", "list"}, {"queues", "list"}, {"budgets", "list"}, {"schedules", "list"}} {
		if cmd, _, err := root.Find(path); err == nil {
			cmd.ValidArgsFunction = none
		}
	}
	flag := func(path []string, name string, f cobra.CompletionFunc) {
		if cmd, _, err := root.Find(path); err == nil {
			_ = cmd.RegisterFlagCompletionFunc(name, f) // fails only for a flag that is not there: a test looks
		}
	}
	flag([]string{"run"}, "workspace", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
	flag([]string{"run"}, "input", c.completeInput)
	flag([]string{"run"}, "auto", c.completeAuto)
	flag([]string{"run"}, "answers", yamlFiles)
	flag([]string{"replay"}, "answers", yamlFiles)
	flag([]string{"replay"}, "workspace", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
	flag([]string{"runs", "export"}, "cassette", yamlFiles)
	flag([]string{"runs", "fork"}, "answers", yamlFiles)
	flag([]string{"runs", "fork"}, "auto", c.completeRunAuto)
	flag([]string{"replay"}, "auto", cobra.NoFileCompletions)
	flag([]string{"run"}, "script", yamlFiles)
	flag([]string{"runs", "resume"}, "script", yamlFiles)
	flag([]string{"skills", "test"}, "script", yamlFiles)
	flag([]string{"skills", "test"}, "workspace", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
	flag([]string{"runs", "list"}, "status", cobra.FixedCompletions(
		[]string{"queued", "running", "waiting", "paused", "completed", "failed", "cancelled"}, cobra.ShellCompDirectiveNoFileComp))
	flag([]string{"approvals", "list"}, "status", cobra.FixedCompletions([]string{"open", "decided", "expired", "withdrawn"}, cobra.ShellCompDirectiveNoFileComp))
	flag([]string{"approvals", "list"}, "run", c.completeRun("get"))
	flag([]string{"runs", "list"}, "pipeline", c.completePipeline)
	flag([]string{"runs", "logs"}, "step", c.completeStep)
	flag([]string{"report"}, "format", cobra.FixedCompletions([]string{"md", "html", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("config", yamlFiles)
	_ = root.RegisterFlagCompletionFunc("server", cobra.FixedCompletions([]string{"http://127.0.0.1:8080"}, cobra.ShellCompDirectiveNoFileComp))
}

// completing gives a completion the API, for a moment.
func (c *cli) completing(open func(context.Context) (*client, error), do func(context.Context, *client) []string) ([]string, cobra.ShellCompDirective) {
	if c.server == "" {
		c.server, _ = c.env("ORCHESTRATOR_SERVER")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	cl, err := open(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.close()
	return do(ctx, cl), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeRun offers the newest runs that the verb makes sense for.
func (c *cli) completeRun(verb string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && (verb != "diff" || len(args) > 1) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		filter := ""
		switch verb {
		case "cancel", "signal", "steer":
			filter = "status:queued,running,waiting,paused"
		case "resume":
			filter = "status:queued,waiting,paused"
		case "pause":
			filter = "status:queued,running,waiting"
		case "retry":
			filter = "status:failed,cancelled"
		case "rerun", "replay", "export":
			filter = "status:completed,failed,cancelled"
		}
		return c.completing(c.reader, func(ctx context.Context, cl *client) []string {
			resp, err := cl.runs.ListRuns(ctx, &api.ListRunsRequest{Filter: filter, PageSize: 30})
			if err != nil {
				return nil
			}
			out := []string{"last\tthe newest run"}
			for _, r := range resp.GetRuns() {
				out = append(out, r.GetId()+"\t"+r.GetPipeline()+" "+word(r.GetStatus().String())+" "+human.Ago(human.Moment(r.GetCreatedAt()), time.Now()))
			}
			return out
		})
	}
}

// completeTool completes the name of a tool that needs no description.
func (c *cli) completeTool(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completing(c.reader, func(ctx context.Context, cl *client) []string {
		resp, err := cl.tools.ListTools(ctx, &api.ListToolsRequest{})
		if err != nil {
			return nil
		}
		var names []string
		for _, t := range resp.GetTools() {
			names = append(names, t.GetName()+"\t"+t.GetEffect())
		}
		return names
	})
}

// completeApproval offers the newest approvals that the verb makes sense for.
func (c *cli) completeApproval(verb string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 && verb == "decide" {
			return []string{"retry", "done", "fail"}, cobra.ShellCompDirectiveNoFileComp
		}
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		req := &api.ListApprovalsRequest{PageSize: 30, Status: "open"}
		if verb == "get" {
			req.Status = ""
		}
		return c.completing(c.reader, func(ctx context.Context, cl *client) []string {
			resp, err := cl.approvals.ListApprovals(ctx, req)
			if err != nil {
				return nil
			}
			var out []string
			for _, a := range resp.GetApprovals() {
				out = append(out, a.GetId()+"\t"+a.GetPipeline()+": "+cut(plainText(a.GetQuestion()), 60))
			}
			return out
		})
	}
}

func (c *cli) completeStep(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completing(c.reader, func(ctx context.Context, cl *client) []string {
		id, err := cl.findRun(ctx, args[0])
		if err != nil {
			return nil
		}
		resp, err := cl.runs.ListSteps(ctx, &api.ListStepsRequest{Id: id, PageSize: 500})
		if err != nil {
			return nil
		}
		var out []string
		for _, s := range resp.GetSteps() {
			out = append(out, s.GetPath()+"\t"+word(s.GetStatus().String()))
		}
		return out
	})
}

func (c *cli) completePipeline(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completing(c.reader, func(ctx context.Context, cl *client) []string {
		resp, err := cl.pipelines.ListPipelines(ctx, &api.ListPipelinesRequest{PageSize: 500})
		if err != nil {
			return nil
		}
		var out []string
		for _, p := range resp.GetPipelines() {
			out = append(out, p.GetId()+"\t"+cut(harmlessLine(p.GetDescription()), 60))
		}
		return out
	})
}

// completeInput offers the inputs of the pipeline that is named before.
func (c *cli) completeInput(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return c.completeValue(args, typed, func(p *api.Pipeline) (out []string) {
		for _, in := range p.GetInputs() {
			out = append(out, in.GetName()+"=\t"+in.GetType()+" "+in.GetDescription())
		}
		return out
	})
}

// completeAuto offers its <AUTO> tags.
func (c *cli) completeAuto(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return c.completeValue(args, typed, func(p *api.Pipeline) (out []string) {
		for _, h := range p.GetHoles() {
			out = append(out, h.GetKey()+"=\t"+h.GetType()+" "+cut(plainText(h.GetPrompt()), 60))
		}
		return out
	})
}

// completeRunAuto offers those of the run that is named before.
func (c *cli) completeRunAuto(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 || strings.Contains(typed, "=") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	out, _ := c.completing(c.reader, func(ctx context.Context, cl *client) (out []string) {
		id, err := cl.findRun(ctx, args[0])
		if err != nil {
			return nil
		}
		list, err := cl.allAnswers(ctx, id, "")
		if err != nil {
			return nil
		}
		for _, a := range list {
			out = append(out, a.GetKey()+"=\t"+cut(plainText(a.GetValue()), 60))
		}
		return out
	})
	return out, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

// completeValue offers what may stand before the = of a value.
func (c *cli) completeValue(args []string, typed string, offer func(*api.Pipeline) []string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 || strings.Contains(typed, "=") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	out, _ := c.completing(c.compiler, func(ctx context.Context, cl *client) []string {
		src, err := c.readSource(args[0])
		if err != nil || args[0] == "-" {
			return nil
		}
		p, err := c.describe(ctx, cl, src)
		if err != nil {
			return nil
		}
		return offer(p)
	})
	return out, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}
