package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) schedulesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schedules",
		Short: "Run registered pipelines at times",
		Long: `A schedule starts runs of a registered pipeline at the times of cron expressions, in a time zone. Each fire starts one run, however many servers share the store; what was missed while none ran is made up within bounds.

Servers fire: a schedule of the embedded store waits until orchestrator serve runs. A pipeline can also ask for its schedule itself, with the key on.`,
		Example: `
orchestrator schedules create nightly-triage --cron "0 6 * * 1-5" --timezone Europe/Berlin
orchestrator schedules next nightly-triage
orchestrator schedules backfill nightly-triage --from 2026-01-05T00:00:00Z`,
		Args: noSuchVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.schedulesListCommand(), c.schedulesCreateCommand(), c.schedulesUpdateCommand(), c.schedulesBackfillCommand(), c.schedulesNextCommand())
	cmd.AddCommand(
		c.scheduleVerb("get", "Show a schedule", func(ctx context.Context, cl *client, id string) (*api.Schedule, error) {
			return cl.schedules.GetSchedule(ctx, &api.GetScheduleRequest{Id: id})
		}),
		c.scheduleVerb("pause", "Let a schedule fire no more", func(ctx context.Context, cl *client, id string) (*api.Schedule, error) {
			return cl.schedules.PauseSchedule(ctx, &api.PauseScheduleRequest{Id: id})
		}),
		c.scheduleVerb("resume", "Let a schedule fire again, from now on", func(ctx context.Context, cl *client, id string) (*api.Schedule, error) {
			return cl.schedules.ResumeSchedule(ctx, &api.ResumeScheduleRequest{Id: id})
		}),
		c.scheduleVerb("delete", "Remove a schedule; its runs stay", func(ctx context.Context, cl *client, id string) (*api.Schedule, error) {
			sch, err := cl.schedules.GetSchedule(ctx, &api.GetScheduleRequest{Id: id})
			if err == nil {
				_, err = cl.schedules.DeleteSchedule(ctx, &api.DeleteScheduleRequest{Id: id})
			}
			return sch, err
		}),
	)
	return cmd
}

func (c *cli) schedulesListCommand() *cobra.Command {
	limit, token := int32(50), ""
	var of string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the schedules by id",
		Example: "orchestrator schedules list --pipeline nightly-triage",
		Args:    args(0, 0, "no arguments", "orchestrator schedules list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.schedules.ListSchedules(ctx, &api.ListSchedulesRequest{Pipeline: of, PageSize: limit, PageToken: token})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				w := c.painted(c.out)
				if len(resp.GetSchedules()) == 0 {
					text := "there are no schedules; make one with: orchestrator schedules create PIPELINE --cron \"0 6 * * 1-5\""
					if of != "" {
						text = "the pipeline " + of + " has no schedules"
					}
					fmt.Fprintln(w, text)
					return nil
				}
				rows := [][]string{{dim("SCHEDULE"), dim("PIPELINE"), dim("CRON"), dim("ZONE"), dim("NEXT"), dim("LAST RUN")}}
				for _, s := range resp.GetSchedules() {
					rows = append(rows, []string{s.GetId(), cut(s.GetPipeline(), 24), cut(strings.Join(s.GetCron(), ", "), 30), zoneOf(s), nextOf(s), s.GetLastRun()})
				}
				table(w, rows)
				moreHint(w, resp.GetNextPageToken())
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&of, "pipeline", "", "only those of this pipeline")
	pageFlags(cmd, &limit, &token)
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func zoneOf(s *api.Schedule) string {
	if s.GetTimezone() == "" {
		return "UTC"
	}
	return s.GetTimezone()
}

// nextOf is when a schedule fires next, in its own zone.
func nextOf(s *api.Schedule) string {
	switch {
	case s.GetPaused():
		return "paused"
	case s.GetNextFire() == nil:
		return "never again"
	}
	return inZone(s.GetNextFire(), s)
}

func inZone(t *timestamppb.Timestamp, s *api.Schedule) string {
	at := t.AsTime()
	if loc, err := time.LoadLocation(s.GetTimezone()); err == nil {
		at = at.In(loc)
	}
	return at.Format("2006-01-02 15:04 MST")
}

// scheduleVerb is a verb that names a schedule and shows it.
func (c *cli) scheduleVerb(verb, short string, do func(context.Context, *client, string) (*api.Schedule, error)) *cobra.Command {
	example := "orchestrator schedules " + verb + " nightly-triage"
	cmd := &cobra.Command{
		Use: verb + " SCHEDULE", Short: short, Example: example, ValidArgsFunction: c.completeSchedule,
		Args: args(1, 1, "the id of a schedule", example),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				sch, err := do(ctx, cl, args[0])
				if err != nil {
					return err
				}
				if verb == "delete" && !c.asJSON {
					fmt.Fprintf(c.painted(c.out), "schedule %s is removed\n", sch.GetId())
					return nil
				}
				return c.printSchedule(sch)
			})
		},
	}
	c.jsonFlag(cmd, "print the schedule as one JSON document")
	return cmd
}

func (c *cli) printSchedule(s *api.Schedule) error {
	if c.asJSON {
		return c.printJSON(s)
	}
	of := s.GetPipeline()
	if s.GetVersion() != "" {
		of += " " + s.GetVersion()
	}
	rows := [][]string{
		{dim("schedule"), s.GetId()},
		{dim("pipeline"), of},
		{dim("cron"), strings.Join(s.GetCron(), ", ") + dim("  in "+zoneOf(s))},
		{dim("overlap"), s.GetOverlap()},
		{dim("catch-up"), s.GetCatchUp() + dim("  of the last "+s.GetCatchUpWindow())},
		{dim("next"), nextOf(s)},
	}
	if s.GetJitter() != "0s" {
		rows = append(rows, []string{dim("jitter"), s.GetJitter()})
	}
	if s.GetInputs() != "" && s.GetInputs() != "{}" {
		rows = append(rows, []string{dim("inputs"), cut(plainText(s.GetInputs()), 200)})
	}
	if s.GetLastRun() != "" {
		rows = append(rows, []string{dim("last run"), s.GetLastRun()})
	}
	if s.GetOwned() {
		rows = append(rows, []string{dim("owner"), "the pipeline's own on"})
	}
	table(c.painted(c.out), rows)
	return nil
}

// scheduleFlags say what a schedule is.
type scheduleFlags struct {
	id, name, version, timezone, overlap, catchUp, window, jitter, start, end string
	cron, inputs, labels                                                      []string
	priority                                                                  int32
}

func (f *scheduleFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", "", "a title for people")
	fl.StringVar(&f.version, "version", "", "of the pipeline; default the newest when it fires")
	fl.StringArrayVar(&f.cron, "cron", nil, "when: minute hour day month weekday, or @hourly, @daily, @weekly, @monthly, @yearly; may be repeated")
	fl.StringVar(&f.timezone, "timezone", "", "of the expressions, as in Europe/Berlin; default UTC")
	fl.StringVar(&f.overlap, "overlap", "", "while the run before goes on: skip (default), queue, allow, cancel_previous")
	fl.StringVar(&f.catchUp, "catch-up", "", "of what was missed while no server ran: latest (default), all, none")
	fl.StringVar(&f.window, "catch-up-window", "", "how old a missed fire may be to be made up; default 1h")
	fl.StringVar(&f.jitter, "jitter", "", "each fire is late by a part of it, as in 30s")
	fl.StringVar(&f.start, "start", "", "no fires before this time, as in 2026-01-31T00:00:00Z")
	fl.StringVar(&f.end, "end", "", "no fires after this time")
	fl.StringArrayVarP(&f.inputs, "input", "i", nil, "an input of the runs, as key=value; may be repeated")
	fl.StringArrayVar(&f.labels, "label", nil, "a label of the runs, as key=value; may be repeated")
	fl.Int32Var(&f.priority, "priority", 0, "of the runs: higher ones begin first")
}

// fill writes what was given over what is there.
func (f *scheduleFlags) fill(ctx context.Context, cmd *cobra.Command, cl *client, s *api.Schedule) error {
	for name, to := range map[string]*string{
		"name": &s.Name, "version": &s.Version, "timezone": &s.Timezone, "overlap": &s.Overlap, "catch-up": &s.CatchUp,
		"catch-up-window": &s.CatchUpWindow, "jitter": &s.Jitter,
	} {
		if cmd.Flags().Changed(name) {
			*to, _ = cmd.Flags().GetString(name)
		}
	}
	for name, to := range map[string]**timestamppb.Timestamp{"start": &s.Start, "end": &s.End} {
		if !cmd.Flags().Changed(name) {
			continue
		}
		text, _ := cmd.Flags().GetString(name)
		t, err := timeFlag(name, text)
		if err != nil {
			return err
		}
		*to = t
	}
	if cmd.Flags().Changed("cron") {
		s.Cron = f.cron
	}
	if cmd.Flags().Changed("priority") {
		s.Priority = f.priority
	}
	if cmd.Flags().Changed("label") {
		labels, err := pairs("label", f.labels)
		if err != nil {
			return err
		}
		s.Labels = labels
	}
	if !cmd.Flags().Changed("input") {
		return nil
	}
	texts, err := pairs("input", f.inputs)
	if err != nil {
		return err
	}
	p, err := cl.pipelines.GetPipeline(ctx, &api.GetPipelineRequest{Name: s.GetPipeline(), Version: s.GetVersion()})
	if err != nil {
		return err
	}
	values := map[string]any{}
	for name, text := range texts {
		values[name] = text // the API says which names are not known
		for _, in := range p.GetInputs() {
			if in.GetName() != name {
				continue
			}
			if values[name], err = spec.ParseInput(pipeline.Input{Name: name, Type: inputType(in)}, text); err != nil {
				return usage("", "%s", strings.Join(inputFaults(name, err), "; "))
			}
		}
	}
	s.Inputs = string(pipeline.EncodeValue(values))
	return nil
}

// timeFlag reads a time; empty is none.
func timeFlag(name, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no bound
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usage("write it like 2026-01-31T06:00:00Z or 2026-01-31T06:00:00+01:00", "--%s %q is not a time", name, text)
	}
	return timestamppb.New(t), nil
}

func (c *cli) schedulesCreateCommand() *cobra.Command {
	var f scheduleFlags
	cmd := &cobra.Command{
		Use:   "create PIPELINE --cron EXPRESSION",
		Short: "Make a schedule of a registered pipeline",
		Example: `
orchestrator schedules create nightly-triage --cron "0 6 * * 1-5" --timezone Europe/Berlin
orchestrator schedules create report --id monthly --cron @monthly -i kind=full --overlap queue`,
		Args: args(1, 1, "the id of a pipeline", `orchestrator schedules create nightly-triage --cron "0 6 * * 1-5"`),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				s := &api.Schedule{Pipeline: args[0]}
				if err := f.fill(ctx, cmd, cl, s); err != nil {
					return err
				}
				made, err := cl.schedules.CreateSchedule(ctx, &api.CreateScheduleRequest{
					Id: f.id, Name: s.GetName(), Pipeline: s.GetPipeline(), Version: s.GetVersion(), Inputs: s.GetInputs(), Labels: s.GetLabels(), Priority: s.GetPriority(),
					Cron: s.GetCron(), Timezone: s.GetTimezone(), Overlap: s.GetOverlap(), CatchUp: s.GetCatchUp(), CatchUpWindow: s.GetCatchUpWindow(), Jitter: s.GetJitter(),
					Start: s.GetStart(), End: s.GetEnd(),
				})
				if err != nil {
					return err
				}
				return c.printSchedule(made)
			})
		},
		ValidArgsFunction: c.completePipeline,
	}
	cmd.Flags().StringVar(&f.id, "id", "", "of the schedule; default made of its name, or the pipeline's id")
	f.add(cmd)
	c.jsonFlag(cmd, "print the schedule as one JSON document")
	return cmd
}

func (c *cli) schedulesUpdateCommand() *cobra.Command {
	var f scheduleFlags
	example := `orchestrator schedules update nightly-triage --cron "0 7 * * 1-5"`
	cmd := &cobra.Command{
		Use: "update SCHEDULE", Short: "Change a schedule; what is not named stays", Example: example,
		Args: args(1, 1, "the id of a schedule", example), ValidArgsFunction: c.completeSchedule,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				s, err := cl.schedules.GetSchedule(ctx, &api.GetScheduleRequest{Id: args[0]})
				if err != nil {
					return err
				}
				if err := f.fill(ctx, cmd, cl, s); err != nil {
					return err
				}
				made, err := cl.schedules.UpdateSchedule(ctx, &api.UpdateScheduleRequest{
					Id: s.GetId(), Name: s.GetName(), Pipeline: s.GetPipeline(), Version: s.GetVersion(), Inputs: s.GetInputs(), Labels: s.GetLabels(), Priority: s.GetPriority(),
					Cron: s.GetCron(), Timezone: s.GetTimezone(), Overlap: s.GetOverlap(), CatchUp: s.GetCatchUp(), CatchUpWindow: s.GetCatchUpWindow(), Jitter: s.GetJitter(),
					Start: s.GetStart(), End: s.GetEnd(), Revision: s.GetRevision(),
				})
				if err != nil {
					return err
				}
				return c.printSchedule(made)
			})
		},
	}
	f.add(cmd)
	c.jsonFlag(cmd, "print the schedule as one JSON document")
	return cmd
}

func (c *cli) schedulesBackfillCommand() *cobra.Command {
	var from, to string
	parallel := int32(1)
	example := "orchestrator schedules backfill nightly-triage --from 2026-01-05T00:00:00Z --to 2026-01-12T00:00:00Z --max-parallel 2"
	cmd := &cobra.Command{
		Use:   "backfill SCHEDULE --from TIME",
		Short: "Start the runs of a stretch of time that have none",
		Long:  `Starts the runs of those fires between two times that have none, oldest first, each with its own fire time. Saying it again starts nothing twice.`,
		Args:  args(1, 1, "the id of a schedule", example), Example: example, ValidArgsFunction: c.completeSchedule,
		RunE: func(cmd *cobra.Command, args []string) error {
			first, err := timeFlag("from", from)
			if err != nil {
				return err
			}
			last, err := timeFlag("to", to)
			if err != nil {
				return err
			}
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.schedules.BackfillSchedule(ctx, &api.BackfillScheduleRequest{Id: args[0], From: first, To: last, MaxParallel: parallel})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				fmt.Fprintf(c.painted(c.out), "%s in that time; %d had no run and get one\n", plural(int(resp.GetFires()), "fire"), resp.GetAdded())
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&from, "from", "", "the first fire time, as in 2026-01-05T00:00:00Z; at most 366 days ago")
	fl.StringVar(&to, "to", "", "the last one; default now")
	fl.Int32Var(&parallel, "max-parallel", 1, "how many of the runs run at once, at most 100")
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) schedulesNextCommand() *cobra.Command {
	n, limit := int32(5), int32(5)
	example := "orchestrator schedules next nightly-triage -n 10"
	cmd := &cobra.Command{
		Use: "next SCHEDULE", Short: "Show the fires that come, and the last ones", Example: example,
		Args: args(1, 1, "the id of a schedule", example), ValidArgsFunction: c.completeSchedule,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				s, err := cl.schedules.GetSchedule(ctx, &api.GetScheduleRequest{Id: args[0]})
				if err != nil {
					return err
				}
				resp, err := cl.schedules.ListFires(ctx, &api.ListFiresRequest{Id: args[0], Next: n, PageSize: limit})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				var rows [][]string
				for i := len(resp.GetFires()) - 1; i >= 0; i-- {
					f := resp.GetFires()[i]
					rows = append(rows, []string{inZone(f.GetAt(), s), f.GetState(), f.GetRunId() + f.GetReason()})
				}
				for _, t := range resp.GetNext() {
					rows = append(rows, []string{inZone(t, s), "comes", ""})
				}
				w := c.painted(c.out)
				if len(rows) == 0 || s.GetPaused() {
					fmt.Fprintf(w, "schedule %s fires %s\n", s.GetId(), map[bool]string{true: "not: it is paused", false: "never again"}[s.GetPaused()])
				}
				table(w, rows)
				return nil
			})
		},
	}
	cmd.Flags().Int32VarP(&n, "number", "n", 5, "how many that come, at most 100")
	cmd.Flags().Int32Var(&limit, "last", 5, "how many that were")
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

// completeSchedule offers the ids of schedules.
func (c *cli) completeSchedule(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completing(c.reader, func(ctx context.Context, cl *client) []string {
		resp, err := cl.schedules.ListSchedules(ctx, &api.ListSchedulesRequest{PageSize: 500})
		if err != nil {
			return nil
		}
		var out []string
		for _, s := range resp.GetSchedules() {
			out = append(out, s.GetId()+"\t"+cut(strings.Join(s.GetCron(), ", "), 60))
		}
		return out
	})
}
